"""The traced receptive field against the truth: the support of the input gradient of a linearised model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.layers import Inflation, InflationFactor, Interpolation
from rfsearch.receptive import (
    AxisField,
    Call,
    Field,
    ReceptiveField,
    receptive_field,
    receptive_field_at,
    receptive_fields,
    register,
    trace_model,
)

CHANNELS = 2


def four(field: ReceptiveField) -> tuple[float, float, float, float]:
    """Height and width of a field, px, and the jumps of its units."""
    return field.height_px, field.width_px, field.jump_h, field.jump_w


class MeanPool(nn.Module):
    """A max pool made linear: the mean over its taps, dilation and ceil mode as they are."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        size = self.pool(x).shape[-2:]
        k, s, p, d = (
            v if isinstance(v, tuple) else (v, v)
            for v in (self.pool.kernel_size, self.pool.stride, self.pool.padding, self.pool.dilation)
        )
        x = F.pad(x, (p[1], k[1] * d[1] + s[1], p[0], k[0] * d[0] + s[0]))
        x = F.conv2d(x, torch.ones(x.shape[1], 1, *k, dtype=x.dtype), None, s, 0, d, x.shape[1])
        return x[..., : size[0], : size[1]]


def linearised(model: nn.Module) -> nn.Module:
    """All weights positive, nothing that gates: the input gradient of a unit is positive wherever the unit looks."""
    model = copy.deepcopy(model).double()
    for name, module in list(model.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.ReLU | nn.BatchNorm2d | nn.Dropout):
            setattr(model.get_submodule(parent), leaf, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            setattr(model.get_submodule(parent), leaf, MeanPool(module))
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dim():
            nn.init.constant_(parameter, 0.5)
    return model


def seen(model: nn.Module, size: tuple[int, ...], unit: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last pixel, on each axis, of the support of the input gradient of one unit of a linear model."""
    image = torch.ones(1, CHANNELS, *size, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(model(image)[(0, slice(None), *unit)].sum(), image)
    places = grad[0].sum(0).nonzero()
    if not len(places):
        return [(-1, -1)] * len(size)
    return [(int(low), int(high)) for low, high in zip(places.min(0).values, places.max(0).values, strict=True)]


def support(model: nn.Module, size: tuple[int, int], offset: int = 0) -> tuple[int, int]:
    """Height and width, px, of what the unit `offset` from the centre looks at, clear of the image's border."""
    output = model(torch.ones(1, CHANNELS, *size, dtype=torch.float64))
    windows = seen(model, size, (output.shape[2] // 2 + offset, output.shape[3] // 2 + offset))
    if windows[0] == (-1, -1):
        return 0, 0
    assert all(low > 0 and high < n - 1 for (low, high), n in zip(windows, size, strict=True)), "too small an image"
    return windows[0][1] - windows[0][0] + 1, windows[1][1] - windows[1][0] + 1


def check_units(model: nn.Module, size: tuple[int, ...]) -> None:
    """What the arithmetic says of units in the middle of the map is the support of their gradients, to the pixel."""
    field = receptive_field(model, (2, CHANNELS, *size))
    linear = linearised(model)
    shape = linear(torch.ones(1, CHANNELS, *size, dtype=torch.float64)).shape[2:]
    assert tuple(len(axis.windows) for axis in field.axes) == tuple(shape)
    checked = 0
    for shifts in ((0, 0, 0), (1, 0, 1), (0, 1, 0), (1, 1, 1), (2, 1, 0), (1, 2, 2)):
        unit = tuple(min(n - 1, n // 2 + shift) for n, shift in zip(shape, shifts, strict=False))
        told = [axis.windows[place] for axis, place in zip(field.axes, unit, strict=True)]
        if any(np.isnan(window).any() for window in told):
            assert seen(linear, size, unit) == [(-1, -1)] * len(size)
            checked += 1
        elif all(low > 0 and high < n - 1 for (low, high), n in zip(told, size, strict=True)):
            assert seen(linear, size, unit) == [(round(low), round(high)) for low, high in told]
            assert all(axis.px >= high - low + 1 for axis, (low, high) in zip(field.axes, told, strict=True))
            checked += 1
    if all(axis.px < n / 2 - 2 * axis.jump for axis, n in zip(field.axes, size, strict=True)):
        assert checked, "nothing was compared"


class Branches(nn.Module):
    """Branches whose maps may differ in size by a few units: cropped to the smallest, which shifts none of them."""

    def __init__(self, join: str, *branches: nn.Module) -> None:
        super().__init__()
        self.join, self.branches = join, nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        height, width = (min(m.shape[dim] for m in maps) for dim in (2, 3))
        maps = [m[:, :, :height, :width] for m in maps]
        if self.join == "add":
            return sum(maps)
        return torch.cat(maps, dim=1).unflatten(1, (len(maps), -1)).mean(1)


class Hourglass(nn.Module):
    """Down, something, up again, and the skip connection around it."""

    def __init__(self, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.down(x))
        height, width = min(x.shape[2], y.shape[2]), min(x.shape[3], y.shape[3])
        return x[:, :, :height, :width] + y[:, :, :height, :width]


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    """Any kernel, even and asymmetric ones too, groups and depthwise, padding of any kind."""
    kernel = draw(pairs)
    return nn.Conv2d(
        CHANNELS,
        CHANNELS,
        kernel,
        stride=draw(st.sampled_from([1, 1, 2, (1, 2), (3, 1)])),
        padding=draw(st.sampled_from([0, 1, 2, (0, 2), (2, 1)])),
        dilation=draw(st.sampled_from([1, 2, (1, 3), (2, 1)])),
        groups=draw(st.sampled_from([1, CHANNELS])),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    )


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    kernel, stride = draw(st.sampled_from([2, 3, (2, 3)])), draw(st.sampled_from([None, 1, 2, (2, 1)]))
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        return nn.AvgPool2d(kernel, stride, padding=1, ceil_mode=ceil)
    return nn.MaxPool2d(
        kernel, stride, padding=draw(st.integers(0, 1)), dilation=draw(st.integers(1, 2)), ceil_mode=ceil
    )


def covers(up: nn.ConvTranspose2d) -> bool:
    """Whether every phase of the stride has a tap. Where one has none, units on a row of zeros see nothing, but the
    arithmetic, which goes axis by axis, keeps their columns."""
    axes = zip(up.kernel_size, up.stride, up.dilation, strict=True)
    return all(len({tap * d % s for tap in range(k)}) == s for k, s, d in axes)


@st.composite
def resamplings(draw: st.DrawFn) -> nn.Module:
    if draw(st.booleans()):
        up = nn.ConvTranspose2d(
            CHANNELS,
            CHANNELS,
            draw(pairs),
            stride=draw(st.sampled_from([1, 2, (2, 3)])),
            padding=draw(st.integers(0, 1)),
            dilation=draw(st.sampled_from([1, 2])),
            groups=draw(st.sampled_from([1, CHANNELS])),
        )
        assume(covers(up))
        return up
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]))
    corners = draw(st.booleans()) if mode in ("bilinear", "bicubic") else None
    return nn.Upsample(scale_factor=draw(st.sampled_from([2, 3, 1.5, 0.5])), mode=mode, align_corners=corners)


@st.composite
def branchings(draw: st.DrawFn) -> nn.Module:
    """Branches of any kernels, offset against each other, and hourglasses."""
    if draw(st.booleans()):
        down = nn.Sequential(draw(st.sampled_from([nn.AvgPool2d(2), nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1)])))
        down.append(draw(convolutions().filter(lambda conv: conv.stride == (1, 1))))
        up = draw(st.sampled_from([nn.Upsample(scale_factor=2), nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2)]))
        return Hourglass(down, up)
    branches: list[nn.Module] = [nn.Identity()] if draw(st.booleans()) else []
    branches += [draw(convolutions().filter(lambda conv: conv.stride == (1, 1))) for _ in range(2)]
    return Branches(draw(st.sampled_from(["add", "cat"])), *branches)


keepers = st.one_of(
    st.builds(nn.ReLU), st.builds(nn.BatchNorm2d, st.just(CHANNELS)), st.builds(nn.ZeroPad2d, st.just((1, 2, 0, 3)))
)
operators = st.one_of(convolutions(), pools(), branchings(), resamplings(), keepers)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(operators, min_size=1, max_size=5))
def test_random_networks(layers: list[nn.Module]) -> None:
    model, size = nn.Sequential(*layers), (93, 100)
    shape = (CHANNELS, *size)
    for layer in layers:  # a map too small for its layer, or too large for this test, is none of this test's business
        try:
            with torch.device("meta"):
                shape = tuple(copy.deepcopy(layer).to("meta").eval()(torch.empty(1, *shape)).shape[1:])
        except RuntimeError:
            return
        if max(shape[1:]) > 400 or min(shape[1:]) < 2:
            return
    check_units(model, size)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (nn.Sequential(nn.Conv1d(2, 4, 5, 2, dilation=3), nn.MaxPool1d(2), nn.Conv1d(4, 2, 4, groups=2)), (200,)),
        (nn.Sequential(nn.ConvTranspose1d(2, 2, 4, 3), nn.Upsample(scale_factor=2, mode="linear")), (50,)),
        (nn.Sequential(nn.Conv3d(2, 2, (1, 3, 5), (1, 2, 1)), nn.AvgPool3d(2), nn.Conv3d(2, 2, 3)), (20, 31, 26)),
        (nn.Sequential(nn.Conv3d(2, 2, 3, 2), nn.Upsample(scale_factor=2, mode="trilinear")), (20, 22, 26)),
    ],
)
def test_signals_and_volumes(model: nn.Module, size: tuple[int, ...]) -> None:
    for module in model.modules():
        if isinstance(module, nn.MaxPool1d):
            model[1] = nn.AvgPool1d(2)
    check_units(model, size)


def test_the_jump_is_how_far_the_window_moves() -> None:
    model = linearised(nn.Sequential(nn.Conv2d(2, 2, 3, (2, 1), 1), nn.MaxPool2d(3, (1, 2), 1)))
    first, second = seen(model, (33, 33), (5, 5)), seen(model, (33, 33), (6, 6))
    field = receptive_field(model, (1, 2, 33, 33))
    assert [field.jump_h, field.jump_w] == [b[0] - a[0] for a, b in zip(first, second, strict=True)] == [2, 2]
    # the first unit's centre: padding shifts it by p - (k - 1) / 2 jumps a layer
    assert [axis.offset for axis in field.axes] == [
        sum(low + high for low, high in [first[i]]) / 2 - 5 * 2 for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [(3, 2, 1), (4, 2, 1), (2, 2, 1), (5, 3, 2), (4, 1, 2), (1, 2, 1), (3, 2, 2), (2, 2, 3)],
)
def test_transposed_convolutions(kernel: int, stride: int, dilation: int) -> None:
    """The widest window over all phases of the stride."""
    up = nn.ConvTranspose2d(CHANNELS, CHANNELS, kernel, stride, padding=0, dilation=dilation)
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, 2), up, nn.Conv2d(CHANNELS, CHANNELS, 1))
    windows = [support(linearised(model), (61, 61), phase)[0] for phase in range(stride)]
    field = receptive_field(model, (1, CHANNELS, 61, 61))
    assert (field.height_px, field.jump_h) == (max(windows), pytest.approx(2 / stride))


# Behind the last convolution or pool of torchvision's networks: extent and jump, px, at the image size given. By the
# closed form r = 1 + sum over layers of (k - 1) prod(strides before), the longest path where branches meet. ResNets as
# torchvision builds them have the stride in the 3x3 convolution of a bottleneck, not in its first 1x1.
TORCHVISION = {
    "alexnet": ("features", 224, 195, 32),
    "vgg16": ("features", 224, 212, 32),
    "resnet18": ("layer4", 224, 435, 32),
    "resnet34": ("layer4", 224, 899, 32),
    "resnet50": ("layer4", 224, 427, 32),
    "resnet101": ("layer4", 224, 971, 32),
    "resnet152": ("layer4", 224, 1451, 32),
    "mobilenet_v2": ("features", 224, 491, 32),
    "inception_v3": ("Mixed_7c", 299, 1311, 32),
}


def closed_form(*layers: tuple[int, int]) -> int:
    """Extent of a chain of (kernel, stride)."""
    extent, jump = 1, 1
    for kernel, stride in layers:
        extent, jump = extent + (kernel - 1) * jump, jump * stride
    return extent


def bottlenecks(*blocks: int) -> list[tuple[int, int]]:
    stages = [[(3, 1 if i else 1 + bool(stage)) for i in range(count)] for stage, count in enumerate(blocks)]
    return [(7, 2), (3, 2), *(layer for stage in stages for layer in stage)]


def basics(*blocks: int) -> list[tuple[int, int]]:
    stages = [
        [pair for i in range(count) for pair in ((3, 1 if i else 1 + bool(stage)), (3, 1))]
        for stage, count in enumerate(blocks)
    ]
    return [(7, 2), (3, 2), *(layer for stage in stages for layer in stage)]


def inverted(*stages: tuple[int, int]) -> list[tuple[int, int]]:
    return [(3, 2), *((3, 1 if i else stride) for count, stride in stages for i in range(count))]


CHAINS = {
    "alexnet": [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)],
    "vgg16": [layer for count in (2, 2, 3, 3, 3) for layer in [*[(3, 1)] * count, (2, 2)]],
    "resnet18": basics(2, 2, 2, 2),
    "resnet34": basics(3, 4, 6, 3),
    "resnet50": bottlenecks(3, 4, 6, 3),
    "resnet101": bottlenecks(3, 4, 23, 3),
    "resnet152": bottlenecks(3, 8, 36, 3),
    "mobilenet_v2": inverted((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)),
    # stem; the 5x5 of A blocks; 3x3, 3x3/2 of B; two pairs of 7 taps of C; 7 taps, 3x3/2 of D; two 3x3 of E
    "inception_v3": [
        *[(3, 2), (3, 1), (3, 1), (3, 2), (1, 1), (3, 1), (3, 2)],
        *[(5, 1)] * 3,
        *[(3, 1), (3, 2)],
        *[(7, 1), (7, 1)] * 4,
        *[(7, 1), (3, 2)],
        *[(3, 1), (3, 1)] * 2,
    ],
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_networks_of_torchvision(name: str) -> None:
    path, size, extent, jump = TORCHVISION[name]
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **({"init_weights": False} if "inc" in name else {}))
    field = receptive_field_at(model, (1, 3, size, size), path)
    assert four(field) == (extent, extent, jump, jump)
    assert extent == closed_form(*CHAINS[name])


def test_resnet_34_sees_more_than_its_image() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet34(weights=None)
    field = receptive_field_at(model, (1, 3, 224, 224), "layer4.2.conv2")
    assert field.px == 899 > 224
    assert not field.whole


def test_linear_layers_over_a_flattened_map_see_all_of_the_image() -> None:
    with torch.device("meta"):
        vgg = torchvision.models.vgg16(weights=None)
    field = receptive_field(vgg, (1, 3, 224, 256))
    assert receptive_field_at(vgg, (1, 3, 224, 256), "features.23").px == 100
    assert (field.height_px, field.width_px, field.whole, field.local_px) == (224, 256, True, 0)


def test_segmentation_models_of_torchvision() -> None:
    """Their last resampling reads up to two units of the map an axis, 8 px apart."""
    with torch.device("meta"):
        build = torchvision.models.segmentation
        fcn = build.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
        lraspp = build.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    field = receptive_field(fcn, (2, 3, 65, 97))
    assert field.height_px == receptive_field_at(fcn, (2, 3, 65, 97), "backbone.layer4").height_px + 2 * 8 + 8
    assert field.jump_h == pytest.approx(8 * 9 / 65)
    gated = receptive_field(lraspp, (1, 3, 96, 96))
    assert gated.whole
    assert 96 < gated.local_px < 1000


def test_windows_of_attention_and_whole_attention() -> None:
    """Swin: patches of 4 px; windows of 7 x 7 of them, 28 px; shifted by 3 they reach into their neighbours: 56 px;
    merged two by two. ViT: every token sees all of the image, and by itself its own patch."""
    swin = torchvision.models.swin_t(weights=None)
    fields = receptive_fields(swin, (1, 3, 224, 224))
    found = [fields[path] for path in ("features.0", "features.1.0", "features.1.1", "features.2")]
    assert [four(field)[::2] for field in found] == [(4, 4), (28, 4), (56, 4), (84, 8)]
    assert not any(field.whole for field in found)
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32)
    fields = receptive_fields(vit, (1, 3, 32, 32))
    assert (fields["conv_proj"].px, fields["conv_proj"].whole) == (8, False)
    assert (fields["encoder"].px, fields["encoder"].whole, fields["encoder"].local_px) == (32, True, 8)


@pytest.mark.parametrize("leading", [0, 1, 5])
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 5), (6, 1), (1, 4), (1, 1)])
def test_tokens_are_quoted_as_the_grid_that_they_are(leading: int, rows: int, columns: int) -> None:
    """Patches of 8 px, one after the other behind tokens that see no pixel: 8 px from row to row and column to column,
    the first one's centre between pixels 3 and 4."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Conv2d(3, 16, 8, 8)

        def forward(self, image: Tensor) -> Tensor:
            patches = self.project(image).flatten(2).mT
            return torch.cat([patches.new_zeros(len(image), leading, 16), patches], 1)

    height, width = receptive_field(Tokens(), (1, 3, 8 * rows, 8 * columns)).axes
    for axis, units in ((height, rows), (width, columns)):
        assert (axis.local_px, axis.jump, axis.offset) == (8, 8, 3.5)
        assert axis.windows.tolist() == [[8 * unit, 8 * unit + 7] for unit in range(units)]


class WindowBlock(nn.Module):
    """Attention within windows of 2 x 2 units of a map B x h x w x C, as in Swin, then a layer on its tokens."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.qkv, self.mlp = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, columns, channels = x.shape
        rolled = x.roll((-self.shift, -self.shift), (1, 2))
        windows = rolled.view(batch, rows // 2, 2, columns // 2, 2, channels).transpose(2, 3).reshape(-1, 4, channels)
        mixed = F.scaled_dot_product_attention(*self.qkv(windows).chunk(3, -1))
        mixed = mixed.view(batch, rows // 2, columns // 2, 2, 2, channels).transpose(2, 3).reshape(x.shape)
        tokens = (x + mixed.roll((self.shift, self.shift), (1, 2))).flatten(1, 2)
        return (tokens + self.mlp(tokens)).view(x.shape)


class Windows(nn.Module):
    """Patches of 2 px, blocks of windows that are shifted in turn, and 2 x 2 units merged to one in the end."""

    def __init__(self, blocks: int, tokens: bool) -> None:
        super().__init__()
        self.project, self.tokens = nn.Conv2d(CHANNELS, CHANNELS, 2, 2), tokens
        self.blocks = nn.Sequential(*(WindowBlock(number % 2) for number in range(blocks)))
        self.merge = nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.project(image).movedim(1, -1))
        batch, rows, columns, channels = x.shape
        x = x.view(batch, rows // 2, 2, columns // 2, 2, channels).transpose(2, 3).flatten(3)
        return self.merge(x).flatten(1, 2) if self.tokens else self.merge(x).movedim(-1, 1)


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
@pytest.mark.parametrize("tokens", [False, True])
def test_windows_are_quoted_unit_by_unit_as_the_gradient_has_them(blocks: int, tokens: bool) -> None:
    torch.manual_seed(0)
    model, size = Windows(blocks, tokens).double(), (24, 32)
    as_map = nn.Sequential(model, nn.Unflatten(1, (6, 8)), Lambda(lambda y: y.movedim(-1, 1))) if tokens else model
    for axis, quoted in enumerate(receptive_field(model, (1, CHANNELS, *size)).axes):
        units = [(unit, 3) if axis == 0 else (3, unit) for unit in range(size[axis] // 4)]
        assert [tuple(window) for window in quoted.windows] == [seen(as_map, size, unit)[axis] for unit in units]
        assert quoted.jump == 4


@pytest.mark.parametrize(("blocks", "rows", "columns"), [(12, 4, 6), (2, 3, 3), (4, 3, 5)])
@pytest.mark.parametrize("tokens", [False, True])
def test_units_keep_their_distance_where_all_of_them_see_the_whole_image(
    blocks: int, rows: int, columns: int, tokens: bool
) -> None:
    """With 3 or 5 units the fields of all are soon centred on the image, as Swin's are at 224 px."""
    axes = receptive_field(Windows(blocks, tokens), (1, CHANNELS, 4 * rows, 4 * columns)).axes
    for quoted, units in zip(axes, (rows, columns), strict=True):
        assert (quoted.px, quoted.jump, len(quoted.windows)) == (4 * units, 4, units)


class Path(nn.Module):
    """conv, inflation by f, dilated conv, interpolation to the image."""

    def __init__(self, f: float, dilation: int, stride: int) -> None:
        super().__init__()
        factor = InflationFactor(f)
        self.stem = nn.Conv2d(CHANNELS, CHANNELS, 3, stride, padding=1)
        self.inflation = Inflation(factor)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding="same", dilation=dilation)
        self.interpolation = Interpolation(factor, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.interpolation(self.conv(self.inflation(self.stem(x))), x.shape[-2:])


def test_an_inflated_path() -> None:
    fields = receptive_fields(Path(f=1.6, dilation=3, stride=4), (1, CHANNELS, 64, 64))
    assert four(fields["stem"]) == (3, 3, 4, 4)
    assert fields["inflation"].height_px == 3
    assert fields["inflation"].jump_h == pytest.approx(4 / 1.6)
    assert fields["conv"].height_px == pytest.approx(3 + 2 * 3 * 4 / 1.6)
    assert fields["interpolation"].jump_h == pytest.approx(1)
    assert fields[""] == fields["interpolation"]


def test_an_inflated_path_by_its_gradient() -> None:
    """f = 2 and dilation 4: the taps of a unit at an even place fall onto pixels of the map before inflation."""
    model = Path(f=2.0, dilation=4, stride=2)
    before_resampling = nn.Sequential(model.stem, model.inflation, model.conv)
    field = receptive_field_at(model, (1, CHANNELS, 64, 64), "conv")
    assert (field.height_px, field.width_px) == support(linearised(before_resampling), (64, 64))


def test_centres_that_do_not_move_have_no_offset() -> None:
    """Sums of many fractions of a pixel leave 1e-15 px, which is none."""
    for f in (0.7, 0.951, 1.1, 1.3):
        field = receptive_field(Path(f, dilation=3, stride=1), (1, CHANNELS, 48, 48))
        assert [str(axis.offset) for axis in field.axes] == ["0.0", "0.0"]


def test_pixels_are_rounded_half_up_in_the_report() -> None:
    def of(*extents: float) -> ReceptiveField:
        return ReceptiveField(tuple(AxisField(px, 1.0, 0.0, False, 64, np.zeros((0, 2))) for px in extents))

    assert of(10.5, 3.0).px == 11
    assert of(3.0, 12.49).px == 12


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def conv(kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding=kernel // 2)


def squeeze(x: Tensor, layer: nn.Module) -> Tensor:
    gate = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return layer(x) * gate.sigmoid()[:, :, None, None]


def channel_shuffle(x: Tensor, before: nn.Module, after: nn.Module) -> Tensor:
    x = before(x)
    x = x.view(x.shape[0], 2, 1, x.shape[2], x.shape[3]).transpose(1, 2).reshape(x.shape)
    return after(x)


def written_in_place(x: Tensor, layer: nn.Module) -> Tensor:
    """Half of the channels moved by one row, as temporal shift modules do."""
    y, moved = layer(x), torch.zeros_like(x)
    moved[:, :1, 1:] = y[:, :1, :-1]
    moved[:, 1:] = y[:, 1:]
    return moved


W = torch.ones(CHANNELS, CHANNELS, 3, 3)

# function of the image and layers, the layers, then height_px, width_px, jump_h, jump_w at 32 x 48
CASES = {
    "relu": (lambda x, a: F.relu(a(x)) + 1, [conv()], (3, 3, 1, 1)),
    "functional conv": (lambda x: F.conv2d(x, W, None, 2, 1, (1, 3)), [], (3, 7, 2, 2)),
    "functional pool": (lambda x: F.avg_pool2d(F.max_pool2d(x, 2), (1, 3), stride=1), [], (2, 6, 2, 2)),
    "dilated pool": (lambda x: F.max_pool2d(x, 2, stride=1, dilation=5), [], (6, 6, 1, 1)),
    "dilated pool layer": (lambda x, a: a(x), [nn.MaxPool2d(2, 1, 1, 2)], (3, 3, 1, 1)),
    "pad": (lambda x, a: a(F.pad(x, (1, 2, 3, 4))), [conv(5)], (5, 5, 1, 1)),
    "crop": (lambda x, a, b: b(a(x)[:, :1, 2:-2, ::2].expand(1, 2, -1, -1)), [conv(), conv()], (5, 7, 1, 2)),
    "ellipsis": (lambda x, a, b: b(a(x)[..., ::2]), [conv(), conv()], (5, 7, 1, 2)),
    "chunk": (lambda x, a: torch.cat([a(x).chunk(2, 1)[0], x], 1), [conv()], (3, 3, 1, 1)),
    "cat of a chunk": (lambda x, a, b: b(torch.cat(a(x).chunk(2, 1), 1)), [conv(), conv()], (5, 5, 1, 1)),
    "upsample": (lambda x, a, b, c: c(b(a(x))), [conv(3, 2), nn.Upsample(scale_factor=4), conv()], (5, 5, 0.5, 0.5)),
    "interpolate": (lambda x, a, b: b(F.interpolate(a(x), size=(32, 32))), [conv(3, 2), conv()], (5, 7, 1, 1.5)),
    "pixel shuffle": (lambda x, a: F.pixel_shuffle(torch.cat([a(x), a(x)], 1), 2), [conv(3, 2)], (3, 3, 1, 1)),
    "pixel unshuffle": (lambda x, a: F.pixel_unshuffle(a(x), 2), [conv()], (4, 4, 2, 2)),
    "global pool": (lambda x, a, b: b(a(x)), [conv(), nn.AdaptiveAvgPool2d(1)], (32, 48, 32, 48)),
    "one axis": (lambda x, a: a(x).mean(2, keepdim=True), [conv()], (32, 3, 32, 1)),
    "bins": (lambda x, a: a(x), [nn.AdaptiveMaxPool2d((8, 5))], (4, 11, 4, 9.6)),
    "squeeze and excite": (squeeze, [conv()], (32, 48, 1, 1)),
    "gate": (lambda x, a, b: b(a(x) * x.mean((2, 3), keepdim=True)), [conv(), conv()], (32, 48, 1, 1)),
    "without a batch": (lambda x, a, b: b(a(x)[0] + torch.ones(1, 1, 1, 1)), [conv(), conv()], (5, 5, 1, 1)),
    "one channel": (lambda x, a, b: b(a(x)[:, 0, None].expand(-1, 2, -1, -1)), [conv(), conv()], (5, 5, 1, 1)),
    "mean channel": (lambda x, a, b: b(a(x).mean(1).unsqueeze(1).expand(-1, 2, -1, -1)), [conv()] * 2, (5, 5, 1, 1)),
    "as many channels as rows": (
        lambda x, a, b: b(a(x).unsqueeze(2).squeeze(2)),
        [nn.Conv2d(CHANNELS, 32, 3, padding=1), nn.Conv2d(32, CHANNELS, 3, padding=1)],
        (5, 5, 1, 1),
    ),
    "weight norm": (lambda x, a: a(x), [nn.utils.parametrizations.weight_norm(conv(5))], (5, 5, 1, 1)),
    "linear head": (lambda x, a: a(x.flatten(1)), [nn.Linear(CHANNELS * 32 * 48, 3)], (32, 48, 32, 48)),
    "linear on channels": (
        lambda x, a, b, c: c(b(a(x).permute(0, 2, 3, 1)).permute((0, 3, 1, 2))),
        [conv(), nn.Linear(CHANNELS, CHANNELS), conv()],
        (5, 5, 1, 1),
    ),
    "linear on width": (lambda x, a, b: b(a(x)), [conv(), nn.Linear(48, 48)], (3, 48, 1, 48)),
    "softmax of a map": (lambda x, a: a(x).softmax(dim=1), [conv()], (3, 3, 1, 1)),
    "softmax over width": (lambda x, a: F.softmax(a(x), dim=-1), [conv()], (3, 48, 1, 1)),
    "channel shuffle": (channel_shuffle, [conv(), conv()], (5, 5, 1, 1)),
    "strided branches": (lambda x, a, b: a(x) + b(x), [conv(5, 2), conv(1, 2)], (5, 5, 2, 2)),
    "in place": (lambda x, a: a(x).relu_().add_(x), [conv()], (3, 3, 1, 1)),
    "a constant map": (lambda x, a: a(x) * torch.ones(1, 1, 32, 1), [conv()], (3, 3, 1, 1)),
    "roll": (lambda x, a: torch.roll(a(x), 3, 2), [conv()], (3, 3, 1, 1)),
    "unfold": (lambda x, a: F.unfold(a(x), 3, padding=1).unflatten(2, (32, 48)).mean(1, True), [conv()], (5, 5, 1, 1)),
    "joined along the width": (lambda x, a, b: b(torch.cat([a(x), a(x).flip(3)], 3)), [conv(), conv()], (5, 5, 1, 1)),
    "written in place": (written_in_place, [conv()], (4, 3, 1, 1)),
    "tokens and back": (
        lambda x, a, b: b(a(x).flatten(2).mul(2).unflatten(2, (32, 48))),
        [conv(), conv()],
        (5, 5, 1, 1),
    ),
    "picked": (lambda x, a: a(x)[:, :, torch.arange(0, 32, 4)], [conv()], (3, 3, 4, 1)),
    "stacked": (lambda x, a: torch.stack([x, a(x)]).mean(0), [conv()], (3, 3, 1, 1)),
    "repeat": (lambda x, a: a(x).repeat(1, 2, 1, 1), [conv()], (3, 3, 1, 1)),
    "dict": (lambda x, a: {"aux": x, "out": a(x)}, [conv()], (3, 3, 1, 1)),
    "dict of logits": (lambda x, a: {"loss": None, "logits": a(x)}, [conv()], (3, 3, 1, 1)),
    "object": (lambda x, a: SimpleNamespace(hidden=x, logits=a(x)), [conv()], (3, 3, 1, 1)),
    "tuple": (lambda x, a: (a(x), x), [conv()], (3, 3, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str) -> None:
    function, layers, expected = CASES[name]
    assert four(receptive_field(Lambda(function, *layers), (1, CHANNELS, 32, 48))) == pytest.approx(expected)


class MatrixExponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(conv(), MatrixExponential()),
            r"aten::linalg_matrix_exp in module '1' .MatrixExponential.*register.'linalg_matrix_exp', rule.*"
            r"register.MatrixExponential",
        ),
        (Lambda(lambda x: x.histc(4)), "aten::histc.*rfsearch.receptive.register"),
        (Lambda(lambda x: x[:, :, torch.tensor([0, 2]), torch.tensor([0, 2])]), "several lists"),
        (Lambda(lambda x: x[:, :, (x[0, 0, 0] > 0).long()]), "by a tensor"),
        (Lambda(lambda x: F.conv2d(x, x[:, :, :3, :3])), "kernel that depends on the image"),
        (Lambda(lambda x: {"aux": x}), "entry 'out' or 'logits' of a dict or object. Lambda returns something else"),
        (Lambda(lambda x: torch.zeros(x.shape)), "does not depend on its input"),
        (Lambda(lambda x: torch.zeros_like(x)), "does not depend on its input"),
        (Branching(), "control flow depends on the content"),
        (nn.Sequential(conv(), Branching()), "control flow depends on the content.*'1' .Branching"),
        (nn.Conv2d(3, 3, 3), "cannot run on one image of 1 x 2 x 32 x 32.*channels"),
    ],
)
def test_what_cannot_be_followed_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        receptive_field(model, (1, CHANNELS, 32, 32))


def test_control_flow_by_a_weight_is_followed() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.conv = nn.Parameter(torch.tensor(1.0)), conv(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if self.gate.item() > 0 else x

    model = Gated()
    assert receptive_field(model, (1, CHANNELS, 32, 32)).px == 5
    nn.init.constant_(model.gate, -1.0)
    assert receptive_field(model, (1, CHANNELS, 32, 32)).px == 1


def test_another_dilation_is_looked_up_without_running_the_model_again() -> None:
    model = nn.Sequential(conv(3, 2), conv(3), conv(1), conv(3))
    trace = trace_model(model, (1, CHANNELS, 64, 64))
    for dilation in (1, 2, 5):
        fields = trace.receptive_fields({"1": dilation, "2": 7})
        model[1] = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=dilation, dilation=dilation)
        assert four(fields[""]) == four(receptive_field(model, (1, CHANNELS, 64, 64)))
        assert four(fields["1"])[0] == 3 + 2 * 2 * dilation
    assert trace.shapes["1"] == (1, CHANNELS, 32, 32)


def test_a_registered_rule_is_used() -> None:
    class Shift(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(1, 2) + float(x.sum() > 0)

    with pytest.raises(ModelError):
        receptive_field(Shift(), (1, CHANNELS, 32, 32))

    def rule(call: Call) -> Field:
        return call.field.windowed((2, 1), padding=(1, 0))

    register(Shift, rule)
    assert four(receptive_field(nn.Sequential(conv(3, 2), Shift()), (1, CHANNELS, 32, 32))) == (5, 3, 2, 2)


def test_a_registered_operator_is_used() -> None:
    model = Lambda(lambda x, a: a(x).renorm(2, 1, 1.0), conv())
    with pytest.raises(ModelError, match="aten::renorm"):
        receptive_field(model, (1, CHANNELS, 32, 32))
    register("aten::renorm", lambda call: call.field.whole())
    field = receptive_field(model, (1, CHANNELS, 32, 48))
    assert (four(field), field.local_px) == ((32, 48, 1, 1), 3)


def test_a_subclass_with_its_own_forward_is_followed_inside() -> None:
    class Wide(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, self.bias, dilation=4)

    class Same(nn.Conv2d):
        pass

    assert receptive_field(nn.Sequential(Wide(CHANNELS, 1, 3)), (1, CHANNELS, 32, 32)).px == 9
    assert receptive_field(nn.Sequential(Same(CHANNELS, 1, 3)), (1, CHANNELS, 32, 32)).px == 3


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS), nn.Dropout()).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    receptive_field(model, (1, CHANNELS, 32, 32))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_module_is_quoted_by_name() -> None:
    stage = nn.Sequential(conv(), conv())
    fields = receptive_fields(nn.Sequential(stage, nn.ReLU(), stage), (1, CHANNELS, 32, 32))
    assert {path: field.px for path, field in fields.items()} == {"1": 5, "0.0": 7, "0.1": 9, "0": 9, "": 9}
    with pytest.raises(ModelError, match="Got '0.3'.*Known: , 0, 0.0, 0.1, 1"):
        receptive_field_at(nn.Sequential(stage, nn.ReLU()), (1, CHANNELS, 32, 32), "0.3")


def test_a_shape_that_is_not_an_image_is_refused() -> None:
    with pytest.raises(ModelError, match="each 1 or more. Got .1, 32."):
        receptive_field(conv(), (1, 32))
