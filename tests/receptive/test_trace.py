"""The traced receptive field against the truth: the support of the input gradient of a linearised model."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

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
    Axis,
    Call,
    Field,
    ReceptiveField,
    receptive_field,
    receptive_field_at,
    receptive_fields,
    register,
)

CHANNELS = 2


def linearised(model: nn.Module) -> nn.Module:
    """All weights positive, nothing that gates: the input gradient of a unit is positive wherever the unit looks."""
    model = copy.deepcopy(model).double()
    for name, module in list(model.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.ReLU | nn.BatchNorm2d | nn.Dropout):
            setattr(model.get_submodule(parent), leaf, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            pool = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            setattr(model.get_submodule(parent), leaf, pool)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dim():
            nn.init.constant_(parameter, 0.5)
    return model


def refuse(inside: bool) -> None:
    assert inside, "the image is too small for this test"


def support(
    model: nn.Module, size: tuple[int, int], offset: int = 0, cut: Callable[[bool], object] | None = None
) -> tuple[int, int]:
    """Height and width, px, of what one unit of a linear model's output looks at: `offset` units from the centre.

    cut: told whether that stays clear of the image's border, where padding would hide a part; without one it has to.
    """
    image = torch.ones(1, CHANNELS, *size, dtype=torch.float64, requires_grad=True)
    output = model(image)
    y, x = output.shape[2] // 2 + offset, output.shape[3] // 2 + offset
    (grad,) = torch.autograd.grad(output[0, :, y, x].sum(), image)
    rows, columns = grad[0].sum(0).sum(1).nonzero().flatten(), grad[0].sum(0).sum(0).nonzero().flatten()
    if not len(rows):
        return 0, 0
    inside = rows[0] > 0 and columns[0] > 0 and rows[-1] < size[0] - 1 and columns[-1] < size[1] - 1
    (cut or refuse)(bool(inside))
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


class Branches(nn.Module):
    def __init__(self, join: str, *branches: nn.Module) -> None:
        super().__init__()
        self.join, self.branches = join, nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        return torch.cat(maps, dim=1).mean(1, keepdim=True).expand_as(x) if self.join == "cat" else sum(maps)


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    return nn.Conv2d(
        CHANNELS,
        CHANNELS,
        draw(pairs),
        stride=draw(st.sampled_from([1, 1, 2, (1, 2), (3, 1)])),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.sampled_from([1, 2, (1, 3), (2, 1)])),
        groups=draw(st.sampled_from([1, CHANNELS])),
    )


@st.composite
def pools(draw: st.DrawFn) -> nn.Module:
    pool = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    return pool(draw(st.sampled_from([2, 3, (2, 3)])), stride=draw(st.sampled_from([None, 1, (2, 1)])), padding=1)


@st.composite
def branchings(draw: st.DrawFn) -> nn.Module:
    """Odd kernels that keep the size: their windows have one centre, so that the larger field holds the smaller."""
    branches: list[nn.Module] = [nn.Identity()] if draw(st.booleans()) else []
    for _ in range(2):
        kernel = draw(st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])))
        dilation = draw(st.integers(1, 3))
        branches.append(nn.Conv2d(CHANNELS, CHANNELS, kernel, padding="same", dilation=dilation))
    return Branches(draw(st.sampled_from(["add", "cat"])), *branches)


keepers = st.one_of(
    st.builds(nn.ReLU), st.builds(nn.BatchNorm2d, st.just(CHANNELS)), st.builds(nn.ZeroPad2d, st.just((1, 2, 0, 3)))
)
operators = st.one_of(convolutions(), pools(), branchings(), keepers)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operators, min_size=1, max_size=5))
def test_random_networks(layers: list[nn.Module]) -> None:
    model, size = nn.Sequential(*layers), (151, 160)
    field = receptive_field(model, (2, CHANNELS, *size))
    assume(field.jump_h <= 8 and field.jump_w <= 8 and field.px < 100)
    assert (field.height_px, field.width_px) == support(linearised(model), size, cut=assume)


def test_the_jump_is_how_far_the_window_moves() -> None:
    model = linearised(nn.Sequential(nn.Conv2d(2, 2, 3, (2, 1), 1), nn.MaxPool2d(3, (1, 2), 1)))
    image = torch.ones(1, 2, 33, 33, dtype=torch.float64, requires_grad=True)
    output = model(image)
    tops = [
        torch.autograd.grad(output[0, :, y, x].sum(), image, retain_graph=True)[0][0].sum(0).nonzero().min(0).values
        for y, x in ((5, 5), (6, 6))
    ]
    field = receptive_field(model, (1, 2, 33, 33))
    assert (field.jump_h, field.jump_w) == tuple((tops[1] - tops[0]).tolist()) == (2, 2)


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
    assert (field.height_px, field.jump_h) == (max(windows), 2 / stride)


def test_the_networks_of_the_textbooks() -> None:
    """AlexNet: 195 px behind its last pool. VGG-16: 212 px (Simonyan and Zisserman's stages by hand)."""
    with torch.device("meta"):
        alexnet, vgg = torchvision.models.alexnet(weights=None), torchvision.models.vgg16(weights=None)
    assert receptive_field_at(alexnet, (1, 3, 224, 224), "features") == ReceptiveField(195, 195, 32, 32)
    assert receptive_field_at(vgg, (1, 3, 224, 224), "features") == ReceptiveField(212, 212, 32, 32)
    assert receptive_field_at(vgg, (1, 3, 224, 224), "features.23").px == 100
    # a linear layer over the flattened map sees the whole axis of the image
    assert receptive_field(vgg, (1, 3, 224, 256)) == receptive_field_at(vgg, (1, 3, 224, 256), "classifier")
    assert receptive_field(vgg, (1, 3, 224, 256)).width_px == 256


def test_a_segmentation_model_of_torchvision() -> None:
    with torch.device("meta"):
        model = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    field = receptive_field(model, (2, 3, 65, 97))
    assert field.height_px == receptive_field_at(model, (2, 3, 65, 97), "backbone.layer4").height_px + 2 * 8
    assert field.jump_h == pytest.approx(8 * 9 / 65)


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
    assert fields["stem"] == ReceptiveField(3, 3, 4, 4)
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
    assert (field.height_px, field.width_px) == support(linearised(before_resampling), (64, 64), 1)


def test_pixels_are_rounded_half_up_in_the_report() -> None:
    assert ReceptiveField(10.5, 3.0, 1, 1).px == 11
    assert ReceptiveField(3.0, 12.49, 1, 1).px == 12


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
    "upsample": (lambda x, a, b, c: c(b(a(x))), [conv(3, 2), nn.Upsample(scale_factor=4), conv()], (4, 4, 0.5, 0.5)),
    "interpolate": (lambda x, a, b: b(F.interpolate(a(x), size=(32, 32))), [conv(3, 2), conv()], (5, 6, 1, 1.5)),
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
    "dict": (lambda x, a: {"aux": x, "out": a(x)}, [conv()], (3, 3, 1, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str) -> None:
    function, layers, expected = CASES[name]
    assert receptive_field(Lambda(function, *layers), (1, CHANNELS, 32, 48)) == ReceptiveField(*expected)


class Roll(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(1, 2)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(conv(), Roll()), "tensor method 'roll'.*rfsearch.receptive.register"),
        (Lambda(lambda x: torch.roll(x, 1, 2)), "function torch.*roll.*rfsearch.receptive.register"),
        (nn.Sequential(conv(), nn.Unfold(1)), "module torch.nn.modules.fold.Unfold at '1'.*register.Unfold, rule"),
        (Lambda(lambda x: torch.cat([x, x], 2)), "height or width"),
        (Lambda(lambda x: x.flatten(2)), "cannot be followed"),
        (Lambda(lambda x: x[:, :, torch.tensor([0, 2])]), "list or a tensor"),
        (Lambda(lambda x, a: a(x.transpose(1, 2)), nn.AvgPool2d(2)), "B x C x H x W"),
        (Lambda(lambda x: (x, x)), "one tensor or of the entry 'out'"),
        (Lambda(lambda x: torch.ones_like(W) + len(x.shape)), "cannot be traced"),
        (Lambda(lambda x: torch.zeros(x.shape)), "does not depend on its input"),
        (Branching(), "cannot be traced.*control flow"),
        (nn.Conv2d(3, 3, 3), "cannot run on one image of 1 x 2 x 32 x 32.*channels"),
    ],
)
def test_what_cannot_be_followed_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        receptive_field(model, (1, CHANNELS, 32, 32))


def test_a_registered_rule_is_used() -> None:
    class Shift(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(1, 2) + float(x.sum() > 0)

    with pytest.raises(ModelError):
        receptive_field(Shift(), (1, CHANNELS, 32, 32))

    def rule(call: Call) -> Field:
        def shift(axis: Axis, index: int) -> Axis:
            return axis if index else axis.windowed(2)

        return call.map().each(shift)

    register(Shift, rule)
    assert receptive_field(nn.Sequential(conv(3, 2), Shift()), (1, CHANNELS, 32, 32)) == ReceptiveField(5, 3, 2, 2)


def test_a_subclass_with_its_own_forward_is_looked_into() -> None:
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


def test_every_module_is_quoted_by_path() -> None:
    stage = nn.Sequential(conv(), conv())
    fields = receptive_fields(nn.Sequential(stage, nn.ReLU(), stage), (1, CHANNELS, 32, 32))
    assert {path: field.px for path, field in fields.items()} == {"1": 5, "0.0": 7, "0.1": 9, "0": 9, "": 9}
    with pytest.raises(ModelError, match="Got '0.3'.*Known: , 0, 0.0, 0.1, 1"):
        receptive_field_at(nn.Sequential(stage, nn.ReLU()), (1, CHANNELS, 32, 32), "0.3")


def test_a_shape_that_is_no_image_is_refused() -> None:
    with pytest.raises(ModelError, match="each 1 or more. Got .1, 32, 32."):
        receptive_field(conv(), (1, 32, 32))  # type: ignore[arg-type]


def test_the_arithmetic_imports_without_ray() -> None:
    check = "import sys, rfsearch.receptive; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
