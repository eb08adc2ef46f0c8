"""The DeepLab forms: sizes, receptive fields by hand, the sum of the branches, and what a deformable layer costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.ops import DeformConv2d, deform_conv2d

from rfsearch import plugins
from rfsearch.backbones import deeplab
from rfsearch.backbones.deeplab import deeplab_lsdfn_beside_small
from rfsearch.backbones.vgg import load_imagenet_vgg16
from rfsearch.layers import LSDFN
from rfsearch.planning.forecaster import shapes_only
from rfsearch.plugins import backbone
from rfsearch.receptive import receptive_field, receptive_field_at, receptive_fields
from rfsearch.surgery import match_sites, measure_sites, set_dilation
from rfsearch.training import Meter

SMALL = [
    "deeplab-small",
    "deeplab-lsdfn-small",
    "deeplab-dfn-small",
    "deeplab-deform-small",
    "deeplab-lsdfn-beside-small",
]
VGG16 = ["deeplab-vgg16", "deeplab-lsdfn-vgg16", "deeplab-dfn-vgg16", "deeplab-deform-vgg16"]
RESNET = [
    "deeplab-resnet101",
    "deeplab-lsdfn-resnet101",
    "deeplab-lsdfn-beside-resnet101",
    "deeplab-dfn-resnet101",
    "deeplab-deform-resnet101",
]
STRIDED = [pytest.param(name, 4, id=name) for name in SMALL] + [pytest.param(name, 8, id=name) for name in VGG16]


def flop_of(work: Callable[[], object]) -> float:
    with Meter() as meter:
        work()
    return meter.flop


@pytest.mark.parametrize(("name", "stride"), STRIDED)
@torch.no_grad()
def test_logits_at_the_size_of_the_image(name: str, stride: int) -> None:
    model = backbone(name)(5, in_channels=1).eval()
    maps: list[Tensor] = []
    for branch in model.branches:
        branch.register_forward_hook(lambda module, args, out: maps.append(out))
    for height, width in ((48, 64), (43, 57)):
        assert model(torch.randn(2, 1, height, width)).shape == (2, 5, height, width)
        size = model.features(torch.zeros(1, 1, height, width)).shape[-2:]
        assert abs(size[0] - height / stride) < 1
        assert abs(size[1] - width / stride) < 1
        assert {tuple(one.shape) for one in maps} == {(2, 5, *size)}
        maps.clear()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # features, then two steps of the widest branch's taps; px = map px x stride
        ("deeplab-small", 15 + 4 * 2 * 8),
        ("deeplab-vgg16", 212 + 8 * 2 * 24),
        # gamma (s - 1) + k - 1 steps
        ("deeplab-lsdfn-small", 15 + 4 * (4 * 4 + 2)),
        ("deeplab-lsdfn-vgg16", 212 + 8 * (8 * 4 + 2)),
        ("deeplab-dfn-small", 15 + 4 * 2),
        ("deeplab-dfn-vgg16", 212 + 8 * 2),
        # its regular grid
        ("deeplab-deform-small", 15 + 4 * 2),
        ("deeplab-deform-vgg16", 212 + 8 * 2),
    ],
)
def test_the_receptive_field_is_that_of_the_widest_branch(name: str, expected: int) -> None:
    stride = 4 if name.endswith("small") else 8
    fields = receptive_fields(backbone(name)(5), (1, 3, 96, 128))
    # the resampling to the image reads two units of the map, a stride apart
    assert (fields[""].height_px, fields[""].width_px) == (expected + stride, expected + stride)
    assert (fields[""].jump_h, fields[""].jump_w) == (1, 1)
    assert (fields["features"].jump_h, fields["features"].jump_w) == (stride, stride)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("deeplab-small", [2 * d for d in (2, 4, 6, 8)]),
        ("deeplab-vgg16", [2 * d for d in (6, 12, 18, 24)]),
        ("deeplab-lsdfn-small", [4 * gamma + 2 for gamma in (1, 2, 3, 4)]),
        ("deeplab-lsdfn-vgg16", [4 * gamma + 2 for gamma in (2, 4, 6, 8)]),
    ],
)
def test_each_branch_has_its_own_receptive_field(name: str, steps: list[int]) -> None:
    fields = receptive_fields(backbone(name)(5), (1, 3, 96, 128))
    base, stride = (15, 4) if name.endswith("small") else (212, 8)
    assert [fields[f"branches.{i}"].px for i in range(4)] == [base + stride * step for step in steps]


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_logits_are_the_sum_of_the_branches(name: str) -> None:
    """At the resolution of the map: without its features the model resizes nothing."""
    model = backbone(name)(5).eval()
    model.features = nn.Identity()
    x = torch.randn(2, 128 if "beside" in name else 64, 24, 20)
    total = torch.zeros(2, 5, 24, 20)
    for branch in model.branches:
        total += branch(x)
    torch.testing.assert_close(model(x), total)


@pytest.mark.parametrize("name", ["deeplab-small", "deeplab-lsdfn-small"])
@torch.no_grad()
def test_each_branch_contributes_exactly_its_output(name: str) -> None:
    model = backbone(name)(5).eval()
    model.features = nn.Identity()
    x = torch.randn(2, 64, 24, 20)
    assert len(model.branches) == 4
    for branch in model.branches:
        before, own = model(x), branch(x)
        for parameter in branch.parameters():
            if parameter.requires_grad:
                parameter.zero_()
        assert own.abs().max() > 0.01
        torch.testing.assert_close(before - model(x), own - branch(x))


@torch.no_grad()
def test_the_map_is_enlarged_bilinearly() -> None:
    """A ramp of scores is a ramp of logits, units on the pixels that they are centred on: 0, 4, ..., 28."""
    model = backbone("deeplab-small")(1, in_channels=1)
    model.features = nn.MaxPool2d(1, stride=4)
    model.branches = nn.ModuleList([nn.Identity()])
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    torch.testing.assert_close(model(ramp)[..., :29], ramp[..., :29])
    torch.testing.assert_close(model(ramp)[..., 29:], torch.full((1, 1, 32, 3), 28.0))


def test_the_branches_are_sites() -> None:
    model, shape = backbone("deeplab-small")(5).eval(), (1, 3, 96, 96)
    paths = match_sites(model, ["branches.*"])
    assert paths == ("branches.0", "branches.1", "branches.2", "branches.3")
    sites = measure_sites(model, paths, (96, 96), 3)
    assert [(site.map_size, site.largest_dilation) for site in sites] == 4 * [((24, 24), 11)]
    set_dilation(model.branches[1], 11)
    assert receptive_field_at(model, shape, "branches.1").px == 15 + 4 * 2 * 11
    assert receptive_field(model, shape).px == 15 + 4 * 2 * 11 + 4
    assert model(torch.zeros(shape)).shape == (1, 5, 96, 96)


def test_every_branch_of_the_small_networks_fits_its_map() -> None:
    model = backbone("deeplab-small")(5)
    sites = measure_sites(model, match_sites(model, ["branches.*"]), (96, 96), 3)
    spans = [site.span(conv.dilation[0]) for site, conv in zip(sites, model.branches, strict=True)]
    spans += [gamma * (deeplab.SAMPLES - 1) + 3 for gamma in deeplab.SMALL_GAMMAS]
    assert spans == [5, 9, 13, 17, 7, 11, 15, 19]
    assert max(spans) <= 24


@torch.no_grad()
def test_a_deformable_branch_starts_as_a_plain_convolution() -> None:
    (branch,) = backbone("deeplab-deform-small")(5).branches
    x = torch.randn(2, 64, 12, 10)
    plain = F.conv2d(x, branch.conv.weight, branch.conv.bias, padding=1)
    assert plain.std() > 0.1
    torch.testing.assert_close(branch(x), plain)


@torch.no_grad()
def test_a_deformable_branch_moves_its_taps() -> None:
    """All by one row down and two columns right: the plain convolution of a place further on."""
    (branch,) = backbone("deeplab-deform-small")(5).branches
    branch.offset.bias.copy_(torch.tensor([1.0, 2.0]).repeat(9))
    x = torch.randn(2, 64, 12, 10)
    plain = F.conv2d(x, branch.conv.weight, branch.conv.bias, padding=1)
    torch.testing.assert_close(branch(x)[..., 1:-2, 1:-3], plain[..., 2:-1, 3:-1])


def test_a_deformable_field_is_at_least_that_of_its_offsets() -> None:
    class Far(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Conv2d(2, 18, (3, 9), padding="same")
            self.conv = DeformConv2d(2, 2, 3, padding=2, dilation=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x, self.offset(x))

    field = receptive_field(nn.Sequential(nn.Conv2d(2, 2, 2, 2), Far()), (1, 2, 64, 64))
    assert (field.height_px, field.width_px) == (2 + 2 * 4, 2 + 2 * 8)
    assert (field.jump_h, field.jump_w) == (2, 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_what_a_deformable_convolution_costs(groups: int, masked: bool, device: str) -> None:
    """2 x MAC of the kernel and 11 a bilinear sample, 12 with a mask; backward two products and three samplings."""

    def tensor(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device, requires_grad=True)

    x, offset, weight = tensor(2, 4, 10, 9), tensor(2, 2 * 6, 8, 8), tensor(6, 4 // groups, 3, 2)
    mask = tensor(2, 6, 8, 8) if masked else None
    product = 2 * (2 * 8 * 8) * 6 * (4 // groups) * 3 * 2
    sampling = (2 * 8 * 8) * 4 * 3 * 2 * (12 if masked else 11)
    assert flop_of(lambda: deform_conv2d(x, offset, weight, mask=mask)) == product + sampling
    y = deform_conv2d(x, offset, weight, mask=mask)
    assert flop_of(lambda: y.backward(torch.zeros_like(y))) == 2 * product + 3 * sampling


@torch.no_grad()
def test_what_a_deformable_branch_costs() -> None:
    (branch,) = backbone("deeplab-deform-small")(5).branches
    offsets = 2 * 64 * 18 * 9
    assert flop_of(lambda: branch(torch.zeros(1, 64, 6, 7))) == 6 * 7 * (offsets + 2 * 64 * 5 * 9 + 11 * 64 * 9)


def one_step(model: nn.Module, device: str) -> float:
    """FLOP of one training step."""
    image = torch.zeros(2, 3, 32, 48, device=device)
    labels = torch.zeros(2, 32, 48, dtype=torch.int64, device=device)
    model.zero_grad()
    return flop_of(lambda: F.cross_entropy(model(image), labels).backward())


@pytest.mark.parametrize("name", SMALL)
def test_shapes_alone_cost_the_same_as_numbers(name: str) -> None:
    model = backbone(name)(5)
    real = one_step(model, "cpu")
    assert one_step(shapes_only(model), "meta") == real > 0


@pytest.mark.parametrize("name", [*VGG16, "deeplab-lsdfn-resnet101", "deeplab-lsdfn-beside-resnet101"])
def test_the_large_networks_can_be_forecast(name: str) -> None:
    model = shapes_only(backbone(name)(5))
    features = sum(2 * conv.weight.numel() for conv in model.features.modules() if isinstance(conv, nn.Conv2d))
    assert one_step(model, "meta") > 3 * features * 2 * 32 * 48 / 64


@pytest.mark.parametrize("name", SMALL)
def test_it_learns(name: str) -> None:
    """One step of gradient descent on a fixed batch lowers its loss, and at the second every parameter takes part: at
    the first the blocks of LS-DFN give every class the same logit, which tells their features nothing."""
    torch.manual_seed(0)
    model = backbone(name)(5)
    image, labels = torch.randn(4, 3, 48, 48), torch.randint(0, 5, (4, 12, 12))
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(5), abs=0.05)
    assert losses[1] < losses[0] - 0.003
    learned = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, grad in learned.items() if grad is None or not grad.any()] == []


@pytest.mark.parametrize("name", VGG16)
@torch.no_grad()
def test_trained_weights_fit_the_features(name: str, tmp_path: Path) -> None:
    features = make_layers(cfgs["D"], batch_norm=False)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, path := tmp_path / "vgg16.pth")
    model = backbone(name)(5)
    branches = {key: value.clone() for key, value in model.branches.state_dict().items()}
    assert load_imagenet_vgg16(model, str(path)).loaded
    image = torch.randn(1, 3, 32, 40)
    assert torch.equal(model.features[:23](image), features[:23](image))
    assert torch.equal(model.features[28].weight, features[28].weight)
    assert all(torch.equal(value, branches[key]) for key, value in model.branches.state_dict().items())


def shaped(name: str, classes: int = 21) -> nn.Module:
    with torch.device("meta"):
        return backbone(name)(classes)


@pytest.mark.parametrize("name", RESNET)
def test_resnet_101_is_deeplabs(name: str) -> None:
    """A stride of 8 px, res4 dilated by 2 and res5 by 4 (DeepLab V2), and as many layers as torchvision's."""
    model = shapes_only(backbone(name)(21))
    convs = [
        layer for key, layer in model.features.named_modules() if isinstance(layer, nn.Conv2d) and ".block" not in key
    ]
    assert len(convs) == 100 + 4  # 33 blocks of three and the first one; four shortcuts have a convolution
    middle = [conv for conv in convs if conv.kernel_size == (3, 3)]
    assert [conv.dilation for conv in middle] == [(1, 1)] * 7 + [(2, 2)] * 23 + [(4, 4)] * 3
    assert all(conv.padding == conv.dilation for conv in middle)
    image = torch.zeros(1, 3, 65, 97, device="meta")
    assert model.features(image).shape[2:] == (9, 13)
    assert model(image).shape == (1, 21, 65, 97)


def test_the_best_row_reads_res5b_and_is_joined_to_res5c() -> None:
    """Wu et al. sec. 4.2: C' = 24, s = 5, gamma = 3, k = 3, a 1x1 convolution of 256 channels, then the dilations."""
    model = shaped("deeplab-lsdfn-beside-resnet101")
    (_, block, _), post = model.features[-1].block
    assert (block.out_channels, block.s, block.k, block.stride.gamma.shape) == (24, 5, 3, ())
    assert backbone("deeplab-lsdfn-beside-small")(5).features[-1].block[0][1].stride.gamma == 1.5
    assert deeplab.BESIDE == (3.0, 24, 256)
    assert (post.in_channels, post.out_channels, post.kernel_size) == (24, 256, (1, 1))
    assert [branch.in_channels for branch in model.branches] == [2048 + 256] * 4
    assert [branch.dilation for branch in model.branches] == [(d, d) for d in (6, 12, 18, 24)]
    plain = shaped("deeplab-resnet101")
    own = [(key, tuple(value.shape)) for key, value in plain.features.state_dict().items()]
    joined = model.features.state_dict().items()
    assert [tuple(value.shape) for key, value in joined if ".block" not in key] == [shape for _, shape in own]


@torch.no_grad()
def test_a_block_beside_a_layer_reads_what_the_layer_reads() -> None:
    model = backbone("deeplab-lsdfn-beside-small")(5).eval()
    image = torch.randn(1, 3, 40, 32)
    x = model.features[:-1](image)
    kept = x.clone()
    joined = model.features(image)
    layer, block = model.features[-1].layer(kept.clone()), model.features[-1].block(kept)
    assert joined.shape[1] == 64 + 64
    torch.testing.assert_close(joined, torch.cat([layer, block], dim=1))


def test_a_block_beside_a_layer_starts_as_the_average_of_its_features() -> None:
    block = next(module for module in deeplab_lsdfn_beside_small(5).modules() if isinstance(module, LSDFN))
    features = block.feature(x := torch.randn(1, block.in_channels, 24, 24))
    # Pixel (12, 12), whose sampled places all lie on the map, on a map of twice as many: places are 1.5 px apart.
    fine = F.interpolate(features.mean(1, keepdim=True), size=(47, 47), mode="bilinear", align_corners=True)
    expected = fine[0, 0, 18:31:3, 18:31:3].mean()
    torch.testing.assert_close(block(x)[0, :, 12, 12], expected.expand(block.out_channels))


def test_networks_of_one_channel_have_another_first_layer() -> None:
    with torch.device("meta"):
        assert backbone("deeplab-resnet101")(2, in_channels=1).features[0].weight.shape == (64, 1, 7, 7)


def test_every_network_has_a_name() -> None:
    named = [name for name in plugins.names("backbones") if name.startswith("deeplab")]
    assert named == sorted(SMALL + VGG16 + RESNET)
    for name in named:
        assert backbone(name) is getattr(deeplab, name.replace("-", "_"))
