"""Rules of operators that move, fold, sample and pick units, against the support of the gradient; and all core ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.receptive import receptive_field, receptive_fields, register
from rfsearch.receptive.rules.registry import BLIND, rule_of_operator
from tests.training.test_formulas import core_operators


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def windows(
    function: Callable[..., Tensor], size: tuple[int, int], along: tuple[int, int] = (2, 3)
) -> list[list[tuple[int, int]]]:
    """Return the first and the last pixel that any unit in each place of each axis depends on, by gradients.

    along: dimensions of the result along which the height and the width of the image run.
    """
    image = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    out = function(image)
    found = []
    for axis, dim in zip((2, 3), along, strict=True):
        rows = []
        for place in range(out.shape[dim]):
            (grad,) = torch.autograd.grad(out.select(dim, place).sum(), image, retain_graph=True)
            seen = grad.abs().sum([other for other in range(4) if other != axis]).nonzero()
            rows.append((int(seen.min()), int(seen.max())))
        found.append(rows)
    return found


def check(
    function: Callable[..., Tensor],
    size: tuple[int, int] = (10, 12),
    inside: int = 0,
    along: tuple[int, int] = (2, 3),
) -> None:
    """Compare every unit that is clear of the border by `inside`; of what it reads, what lies in the image."""
    field = receptive_field(Lambda(function).double(), (1, 2, *size))
    for axis, expected in zip(field.axes, windows(function, size, along), strict=True):
        assert len(axis.windows) == len(expected)
        whole = [(0, axis.image_px - 1)] * len(expected)
        read = [(max(low, 0), min(high, axis.image_px - 1)) for low, high in axis.windows]
        found = whole if axis.whole and np.isnan(axis.windows).all() else read
        assert found[inside : len(found) - inside] == expected[inside : len(expected) - inside]


def turned(x: Tensor, angle: float, scale: float, mode: str = "bilinear") -> Tensor:
    """Sampled on a grid that is turned and scaled about the middle."""
    s, c = np.sin(angle) * scale, np.cos(angle) * scale
    theta = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]], dtype=x.dtype)
    return F.grid_sample(x, F.affine_grid(theta, [1, 2, 8, 6], align_corners=False), mode, align_corners=False)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("corners", [False, True])
def test_a_sampling_at_places_known_beforehand_reads_those(mode: str, corners: bool) -> None:
    places = torch.tensor([-0.73, -0.2, 0.1, 0.44, 0.71], dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(places, places * 0.9, indexing="xy"), dim=-1)[None]
    check(lambda x: F.grid_sample(F.avg_pool2d(x, 3, 1, 1), grid, mode, align_corners=corners), (16, 18))


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 0.6), (0.4, 0.5), (np.pi / 2, 0.6), (-2.0, 0.5)])
def test_a_turned_sampling_reads_along_both_axes(angle: float, scale: float) -> None:
    along = (2, 3) if abs(np.cos(angle)) > 0.5 else (3, 2)  # by more than 45 degrees: the height runs along columns
    check(lambda x: turned(F.avg_pool2d(x, (3, 1), 1, (1, 0)), angle, scale), (20, 20), along=along)


def test_a_sampled_map_has_the_jump_of_its_places() -> None:
    field = receptive_field(Lambda(lambda x: turned(x, 0.0, 0.5)), (1, 2, 32, 48))
    assert (field.jump_h, field.jump_w) == (pytest.approx(0.5 * 32 / 8, rel=0.1), pytest.approx(0.5 * 48 / 6, rel=0.1))
    volume = Lambda(lambda x: F.grid_sample(x, F.affine_grid(torch.eye(3, 4)[None], [1, 2, 4, 4, 4]), "nearest"))
    assert [axis.local_px for axis in receptive_field(volume, (1, 2, 4, 4, 4)).axes] == [1, 1, 1]


def test_sampling_at_places_given_by_the_image_sees_all_and_what_gives_them() -> None:
    def warped(x: Tensor) -> Tensor:
        flow = F.avg_pool2d(x, 5, 1, 2).permute(0, 2, 3, 1)
        return F.grid_sample(x, F.affine_grid(torch.eye(2, 3)[None], [1, 2, 16, 20], align_corners=False) + flow)

    field = receptive_field(Lambda(warped), (1, 2, 16, 20))
    assert (field.whole, field.height_px, field.width_px, field.local_px) == (True, 16, 20, 5)


def test_places_without_values_are_named() -> None:
    grid = torch.zeros(1, 3, 3, 2, device="meta")
    model = Lambda(lambda x, a: F.grid_sample(a(x), grid), nn.Conv2d(2, 2, 1, device="meta"))
    with pytest.raises(ModelError, match="grid_sampler_2d samples at places without values"):
        receptive_field(model, (1, 2, 16, 20))


@pytest.mark.parametrize(
    ("kernel", "dilation", "padding", "stride"),
    [(3, 1, 1, 1), (2, 1, 0, 2), ((3, 2), (2, 3), (2, 1), (1, 2)), (4, 1, 1, 2), (3, 2, 0, 3)],
)
def test_folding_is_the_inverse_of_unfolding(kernel: object, dilation: object, padding: object, stride: object) -> None:
    form = {"kernel_size": kernel, "dilation": dilation, "padding": padding, "stride": stride}

    def folded(x: Tensor) -> Tensor:
        return F.fold(F.unfold(F.avg_pool2d(x, (3, 1), 1, (1, 0)), **form), x.shape[-2:], **form)

    reached = F.fold(F.unfold(torch.ones(1, 1, 12, 14), **form), (12, 14), **form)[0, 0] > 0
    if reached.any(1).all() and reached.any(0).all():
        check(folded, (12, 14), inside=3)
    field = receptive_field(Lambda(folded), (1, 2, 12, 14))
    assert (field.height_px, field.width_px) == (3, 1)

    def mixed(x: Tensor) -> Tensor:
        """Every patch mixed in itself, as attention over windows that overlap does."""
        return F.fold(
            torch.ones(
                *[x.shape[1] * int(np.prod(kernel if isinstance(kernel, tuple) else (kernel,) * 2))] * 2, dtype=x.dtype
            )
            @ F.unfold(x, **form),
            x.shape[-2:],
            **form,
        )

    if reached.any(1).all() and reached.any(0).all():
        check(mixed, (20, 22), inside=7)


def test_a_running_sum_reads_everything_before() -> None:
    check(lambda x: F.avg_pool2d(x, 3, 1, 1).cumsum(2))
    check(lambda x: (x + 1).cumprod(3))


def test_a_diagonal_reads_along_both_axes() -> None:
    check(lambda x: torch.diagonal(F.avg_pool2d(x, 3, 1, 1), 1, 2, 3)[:, :, None], (10, 12), along=(3, 3))
    check(lambda x: torch.diagonal(x, -2, 3, 2)[:, :, None], (10, 12), along=(3, 3))


def recurrent(kind: type[nn.RNNBase], **form: object) -> tuple[Lambda, nn.RNNBase]:
    """Columns of a map as sequences."""
    layer = kind(2, 3, batch_first=True, **form)  # type: ignore[arg-type]

    def along_the_height(x: Tensor, layer: nn.Module) -> Tensor:
        batch, channels, height, width = x.shape
        out = layer(x.permute(0, 3, 2, 1).reshape(batch * width, height, channels))[0]
        return out.reshape(batch, width, height, -1).permute(0, 3, 2, 1)

    return Lambda(along_the_height, layer), layer


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_recurrent_layer_reads_the_sequence_before_a_unit(kind: type[nn.RNNBase], layers: int) -> None:
    model, _ = recurrent(kind, num_layers=layers)
    field = receptive_field(model, (1, 2, 8, 6))
    assert [tuple(window) for window in field.axes[0].windows] == [(0, unit) for unit in range(8)]
    assert [tuple(window) for window in field.axes[1].windows] == [(unit, unit) for unit in range(6)]
    assert windows(model.double(), (8, 6)) == [[(0, unit) for unit in range(8)], [(unit, unit) for unit in range(6)]]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_recurrent_layer_that_goes_both_ways_sees_the_sequence_whole(kind: type[nn.RNNBase]) -> None:
    model, _ = recurrent(kind, bidirectional=True)
    field = receptive_field(model, (1, 2, 8, 6))
    assert [(axis.whole, axis.local_px) for axis in field.axes] == [(True, 0), (False, 1)]


def test_last_states_and_given_states_of_a_recurrent_layer() -> None:
    """The state after a sequence has seen all of it; one that is given is read by every unit."""
    layer = nn.LSTM(2, 3)

    def last(x: Tensor, layer: nn.Module) -> Tensor:
        state = layer(x[0].permute(1, 2, 0))[1][0]  # rows are the sequence, columns the batch
        return state.permute(0, 2, 1)[None]

    field = receptive_field(Lambda(last, layer), (1, 2, 8, 6))
    assert (field.axes[0].whole, field.axes[1].local_px) == (True, 1)

    def given(x: Tensor, layer: nn.Module) -> Tensor:
        state = F.adaptive_avg_pool2d(x, 1).expand(1, 2, 3, 1)[:, :1, :, 0]
        return layer(torch.zeros(6, 1, 2), (state, state))[0].permute(1, 2, 0)[:, :, None]

    with pytest.raises(ModelError, match="one that does not depend on the image"):
        receptive_field(Lambda(given, layer), (1, 2, 8, 6))


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_recurrent_cell_in_a_loop(cell: type[nn.Module]) -> None:
    def steps(x: Tensor, cell: nn.Module) -> Tensor:
        state, found = None, []
        for row in x.unbind(2):
            state = cell(row[0].t(), state)
            found.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(found, 0).permute(2, 0, 1)[None]

    field = receptive_field(Lambda(steps, cell(2, 3)), (1, 2, 5, 4))
    assert [tuple(window) for window in field.axes[0].windows] == [(0, unit) for unit in range(5)]


EMPTY = {
    "joined behind": lambda x: torch.cat([x, x[:, :, :0]], 2),
    "joined before": lambda x: torch.cat([x[:, :, :, :0], x], 3),
    "no channel": lambda x: torch.cat([x[:, :0], x], 1),
    "nothing yet": lambda x: torch.cat([torch.empty(0), x], 1),
    "only empty ones": lambda x: torch.cat([x, torch.cat([x[:, :0], x[:, :0]], 1)], 1),
    "added": lambda x: torch.cat([x, x[:, :, :0] + x[:, :, :0]], 2),
    "stacked": lambda x: torch.cat([x, torch.stack([x[:, :, :0], x[:, :, :0]]).sum(0)], 2),
    "flattened": lambda x: torch.cat([x.flatten(2), x[:, :, :0].flatten(2)], 2).unflatten(2, x.shape[2:]),
    "turned": lambda x: torch.cat([x, x[:, :, :0].permute(0, 1, 3, 2).transpose(2, 3)], 2),
    "split": lambda x: torch.cat(x.split([0, x.shape[3]], 3), 3),
    "padded": lambda x: x + F.pad(x[:, :, :0], (0, 0, 0, x.shape[2])),
    "mixed": lambda x: x + x[:, :, :0].sum(2, keepdim=True),
    "softened": lambda x: torch.cat([x, x[:, :, :0].softmax(1)], 2),
    "flipped": lambda x: torch.cat([x, x[:, :, :0].flip(2).roll(1, 3)], 2),
    "multiplied": lambda x: x + x[:, :, :, :0] @ x[:, :, :, :0].transpose(2, 3).new_zeros(1, 2, 0, x.shape[3]),
    "without a batch": lambda x: torch.cat([x, F.conv2d(x[:0], torch.ones(2, 2, 3, 3, dtype=x.dtype), padding=1)]),
    "repeated": lambda x: torch.cat([x, x[:, :, :0].repeat(1, 1, 2, 1)], 2),
    "written": lambda x: x.clone().index_copy(2, torch.arange(0), x[:, :, :0]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_maps_add_nothing(name: str) -> None:
    function = EMPTY[name]
    x = torch.rand(1, 2, 8, 6)
    assert torch.equal(function(x), x)
    field = receptive_field(Lambda(lambda x: function(F.avg_pool2d(x, 3, 1, 1))), (1, 2, 8, 6))
    assert (field.height_px, field.width_px, field.jump_h, field.jump_w, field.whole) == (3, 3, 1, 1, False)


def test_modules_that_give_empty_maps_are_quoted_as_seeing_nothing() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, :0]

    model = Lambda(lambda x, nothing: torch.cat([nothing(x), x], 2), Nothing())
    assert receptive_fields(model, (1, 2, 8, 6))["layers.0"].axes[0].local_px == 0


MOVED = {
    "gated halves": lambda x: F.glu(torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1), 1),
    "a slice replaced": lambda x: torch.slice_scatter(x, F.avg_pool2d(x, 3, 1, 1)[:, :, 2:8:2], 2, 2, 8, 2),
    "a row replaced": lambda x: torch.select_scatter(x, F.avg_pool2d(x, 3, 1, 1)[:, :, 3], 2, 5),
    "complex and back": lambda x: torch.view_as_real(torch.complex(x, x.flip(3).flip(3))).sum(-1),
    "triangle": lambda x: torch.tril(F.avg_pool2d(x, 3, 1, 1), 12).triu(-12),
    "matrix by vector": lambda x: torch.stack([torch.mv(x[0].flatten(1).t(), x.new_ones(2)).view(x.shape[2:])])[None],
}


@pytest.mark.parametrize("name", MOVED)
def test_what_moves_units_is_followed_to_the_pixel(name: str) -> None:
    check(MOVED[name], inside=1)


# function of a 3 x 3 pooled map, then the height and the width, px, a unit sees, and what it reads by itself, at 8 x 6
ANYWHERE = {
    "Fourier filter": (lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[-2:]), (8, 6, 0)),
    "Fourier transform of rows": (lambda x: torch.fft.fft(x, dim=3).abs(), (3, 6, 3)),
    "sort": (lambda x: x.sort(2).values, (8, 3, 3)),
    "largest of a column": (lambda x: x.topk(3, 2).values, (8, 3, 3)),
    "gather": (lambda x: x.gather(2, x.long()), (8, 3, 3)),
    "scatter": (lambda x: x.scatter_add(3, x.long(), x), (3, 6, 3)),
    "put": (lambda x: x.index_put((torch.arange(1), torch.arange(1)), x[:1, 0]), (8, 6, 3)),
    "rows of a table": (lambda x: F.embedding(x[:, 0].long(), torch.ones(4, 2)).permute(0, 3, 1, 2), (3, 3, 3)),
    "distances": (lambda x: torch.cdist(x, x, 1.0).mean(3, keepdim=True), (8, 6, 0)),
    "unpooled": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (4, 4, 4)),
    "any": (lambda x: x * x.bool().any(2, keepdim=True), (8, 3, 3)),
}


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_the_image_picks_may_come_from_anywhere_along_its_axis(name: str) -> None:
    function, expected = ANYWHERE[name]
    field = receptive_field(Lambda(lambda x: function(F.avg_pool2d(x, 3, 1, 1))), (1, 2, 8, 6))
    assert (field.height_px, field.width_px, field.local_px) == expected


# Core operators that an image may reach and that have no rule, with the reason.
WITHOUT_A_RULE = {
    "nonzero": "how many places it gives, the image says: what follows has no shape of its own",
    "_local_scalar_dense": "a number out of a map, which control flow depends on: refused, and said so",
    "resize_": "takes memory as it lies: a unit has no place",
    "_embedding_bag": "its bags are ragged lists of table rows, which no map is",
    "sym_is_contiguous": "gives no tensor",
}


def test_every_core_operator_has_a_rule_or_a_reason() -> None:
    missing = []
    for name, overloads in core_operators().items():
        reads = any(
            "Tensor" in str(argument.type)
            for op in overloads
            for argument in op._schema.arguments
            if not argument.is_out
        )
        gives = any("Tensor" in str(result.type) for op in overloads for result in op._schema.returns)
        pointwise = any(torch.Tag.pointwise in op.tags for op in overloads)
        known = rule_of_operator(name) or name in BLIND or pointwise
        if reads and gives and not known and not name.endswith("_backward"):  # a forward pass runs no gradients
            missing.append(name)
    assert sorted(missing) == sorted(WITHOUT_A_RULE.keys() & set(missing))
    assert not [name for name in WITHOUT_A_RULE if rule_of_operator(name)]


class TwoFrames(nn.Module):
    """A flow network on one image and its mirror image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, x.flip(3), num_flow_updates=2)[-1]


def test_raft_sees_both_frames_whole() -> None:
    """Its correlation volume is sampled where its own flow points: anywhere in the other frame."""
    model = TwoFrames(torchvision.models.optical_flow.raft_small(weights=None))
    field = receptive_field(model, (1, 3, 128, 128))
    assert field.whole
    assert field.jump_h == pytest.approx(8 * 15 / 127)  # its last enlarging, x 8, has corners aligned


@pytest.mark.parametrize(("name", "options"), [("volo_d1_224", {}), ("sequencer2d_s", {"layers": [1, 1, 1, 1]})])
def test_networks_that_fold_and_recur(name: str, options: dict[str, object]) -> None:
    timm = pytest.importorskip("timm")
    if name not in timm.list_models():
        pytest.skip(f"timm has no {name}")
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    assert receptive_field(model, (1, 3, 224, 224)).whole


def test_a_registered_rule_replaces_a_built_in_one() -> None:
    model = Lambda(lambda x: x.sort(2).values)
    before = rule_of_operator("sort")
    try:
        register("sort", lambda call: [call.field, call.field])
        assert not receptive_field(model, (1, 2, 8, 6)).whole
    finally:
        register("sort", before)  # type: ignore[arg-type]
    assert receptive_field(model, (1, 2, 8, 6)).whole
