"""Every network predicts a pixel from what lies around it: units are centred on the label pixels they predict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfsearch import plugins
from rfsearch.backbones.grid import Grid, measure_grid
from rfsearch.receptive import receptive_field
from rfsearch.surgery import set_dilation

SHAPE = (1, 3, 256, 320)


def misplaced_px(net: nn.Module, shape: tuple[int, ...] = SHAPE) -> tuple[float, ...]:
    """How far behind the label pixels that they predict units read on average, px an axis, as labels are compared with
    them: resized bilinearly, in the middle half of the image."""
    found = []
    for axis, side in zip(receptive_field(net.eval(), shape).axes, shape[2:], strict=True):
        units = len(axis.windows)
        predicted = (np.arange(units) + 0.5) * side / units - 0.5
        found.append((axis.windows.mean(axis=1) - predicted)[units // 4 : units - units // 4].mean())
    return tuple(found)


# Half a pixel at pool4, whose kernel is even; and half a unit of 8 px at conv6, whose kernel is even, at odd dilations.
EVEN = {"wei-vgg16-voc": -0.5, "wei-vgg16-helen": -0.5 + 4}
# Wei's Table 1 pads its pools on both sides, and its map is squeezed onto the image; see the test below.
PRINTED = {"wei-table1-voc": 0.0, "wei-table1-helen": 4}


LABELLING = ("deeplab", "wei")  # those that label pixels, one image and a map of logits


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "name",
    [
        # The deep ones have the same parts as the small ones, and take seconds each.
        pytest.param(name, marks=pytest.mark.slow if name.startswith("deeplab") and "resnet101" in name else ())
        for name in sorted(set(plugins.names("backbones")) - PRINTED.keys())
        if name.startswith(LABELLING)
    ],
)
def test_units_of_built_in_networks_are_centred_on_their_pixels(name: str) -> None:
    expected = EVEN.get(name, 0.0)
    assert misplaced_px(plugins.make_backbone(name, 5)) == pytest.approx((expected, expected))


@pytest.mark.parametrize("dilation", [2, 4, 12])
def test_the_even_kernel_of_the_helen_network_is_centred_at_even_dilations(dilation: int) -> None:
    net = plugins.make_backbone("wei-vgg16-helen", 5)
    set_dilation(net.conv6, dilation)
    assert misplaced_px(net) == pytest.approx((-0.5, -0.5))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("name", "conv6"), PRINTED.items())
def test_units_of_table_1_lie_where_its_pads_put_them(name: str, conv6: float) -> None:
    """Unit i is centred on pixel 8 i - 7.5: a pool of stride 2 moves it by -1/2 of its input's units, pool4 by as much.
    It predicts pixel F i with F = 499 / 64, so that units at the borders read up to 7.5 px outside of the image."""
    net = plugins.make_backbone(name, 5).eval()
    (axis, _) = receptive_field(net, (1, 3, 500, 500)).axes
    pixels = np.arange(500)
    centres = 8 * pixels / (499 / 64) - 7.5 + conv6
    inner = slice(100, 400)  # not cut at the borders
    on_a_unit = np.isclose(pixels % (499 / 64), 0, atol=1e-6)
    assert on_a_unit.sum() == 2
    # Between two units both are read, so that the middle of what is read is half a unit off at most.
    np.testing.assert_allclose(axis.windows.mean(axis=1)[inner], centres[inner], atol=4)
    assert (axis.windows.mean(axis=1) - centres)[inner].mean() == pytest.approx(0, abs=0.1)
    assert (axis.windows.mean(axis=1) - pixels)[inner].mean() == pytest.approx(-1 + conv6, abs=0.1)


CLASSIFIERS = [
    "torchvision:resnet18",  # 15.5 px before the middle of its units
    "torchvision:squeezenet1_1",  # unpadded, with pools that round up
    "torchvision:vgg11",  # in the middle
    "timm:tf_efficientnet_lite0",  # pads behind where the side is even
    "timm:test_vit",
]
MORE_CLASSIFIERS = ["torchvision:googlenet", "timm:test_resnet", "timm:test_mambaout", "timm:test_convnext"]


@pytest.mark.parametrize(
    "spec", [*CLASSIFIERS, *(pytest.param(spec, marks=pytest.mark.slow) for spec in MORE_CLASSIFIERS)]
)
def test_units_of_wrapped_classifiers_are_centred_on_their_pixels(spec: str) -> None:
    pytest.importorskip(spec.partition(":")[0])
    net = plugins.make_backbone(spec, 5)
    assert misplaced_px(net) == pytest.approx((0.0, 0.0))
    # of no multiple of the stride, over which the mean is not exactly 0
    assert misplaced_px(net, (1, 3, 250, 290)) == pytest.approx((0.0, 0.0), abs=1.0)


# Networks that enlarge their own maps are taken as they are; what they misplace is in their making. Those of
# torchvision put the first unit of a stride of 8 px (16 px) into the middle of its square, those of
# segmentation-models-pytorch double maps whose units lie on the first pixel of each square.
OF_OTHERS = {
    "torchvision:fcn_resnet50": -3.5,
    "torchvision:deeplabv3_resnet50": -3.5,
    "torchvision:lraspp_mobilenet_v3_large": -7.5,
    "smp:unet/resnet18": -15.5,
    "smp:fpn/mobilenet_v2": -15.5,
    "smp:deeplabv3plus/mobilenet_v2": -7.5,
}


@pytest.mark.parametrize(("spec", "expected"), OF_OTHERS.items())
def test_segmentation_networks_of_other_packages_are_used_unchanged(spec: str, expected: float) -> None:
    if spec.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    assert misplaced_px(plugins.make_backbone(spec, 5)) == pytest.approx((expected, expected))


class Picked(nn.Module):
    """The image at every `jump`-th pixel from `offset` on."""

    def __init__(self, offset: int, jump: int) -> None:
        super().__init__()
        self.offset, self.jump = offset, jump

    def forward(self, image: Tensor) -> Tensor:
        return image[..., self.offset :: self.jump, self.offset :: self.jump]


@pytest.mark.parametrize(("offset", "jump"), [(0, 4), (3, 4), (0, 1), (5, 8), (2, 3)])
def test_a_ramp_sampled_at_units_and_enlarged_is_the_ramp(offset: int, jump: int) -> None:
    """Between the centres of the outermost units; beyond them, it stays at their values."""
    for height, width in ((32, 47), (33, 40)):
        ramp = torch.arange(float(height))[:, None] * 100 + torch.arange(float(width))
        grid = measure_grid(Picked(offset, jump), (1, 1, height, width))
        assert grid == Grid(offset, jump)
        picked = Picked(offset, jump)(ramp[None, None])
        enlarged = grid.enlarge(picked, (height, width))[0, 0]
        last = [offset + (n - 1) * jump for n in picked.shape[-2:]]
        rows = torch.arange(height).clamp(offset, last[0])
        columns = torch.arange(width).clamp(offset, last[1])
        torch.testing.assert_close(enlarged, ramp[rows][:, columns])


def test_units_between_pixels_are_enlarged_to_them() -> None:
    ramp = torch.arange(24.0).expand(1, 1, 24, 24)
    pooled = nn.functional.avg_pool2d(ramp, 4)
    grid = measure_grid(nn.AvgPool2d(4), (1, 1, 24, 24))
    assert grid == Grid(1.5, 4)
    torch.testing.assert_close(grid.enlarge(pooled, (24, 24))[..., 2:-2], ramp[..., 2:-2])
    torch.testing.assert_close(Grid(-2.5, 4).enlarge(pooled, (24, 24))[..., :-6], (ramp + 4)[..., :-6])


def test_units_that_cannot_be_told_apart_have_no_grid() -> None:
    class Mixed(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return (image.flatten(2) @ torch.ones(256, 256)).view(image.shape)

    class Stretched(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[..., ::2, ::4]

    assert measure_grid(Mixed(), (1, 1, 16, 16)) is None
    assert measure_grid(Stretched(), (1, 1, 16, 16)) is None
