"""DeepLab's atrous spatial pyramid, and what the paper of LS-DFN puts in its place: features, then branches, summed.

DeepLab: Chen et al., "DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and
fully connected CRFs", TPAMI 2018. LS-DFN: Wu et al., "Dynamic filtering with large sampling field for ConvNets",
ECCV 2018. Deformable: Dai et al., "Deformable convolutional networks", ICCV 2017.

Choices of ours:
- Each branch is one 3x3 layer straight to the classes, DeepLab's ResNet form, on VGG-16 too; its VGG form has two
  hidden 1x1 layers a branch (fc6, fc7, fc8).
- The VGG-16 forms are built with the papers' numbers. The small forms, for images of about 96 px, scale them down to
  their maps of 24 x 24: dilations to a third, sample strides to half, the widths of the LS-DFN blocks to a quarter.
- With one sample (s = 1, the plain dynamic filter network) the sample stride has no effect and the four blocks would
  be the same one four times, so one stands for them; a deformable convolution finds its own dilation, so one too.
- An LS-DFN block multiplies the map by kernels made of that map, which diverges at the learning rates that convolutions
  take: it stands between two batch normalisations.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from rfsearch.backbones import small, vgg
from rfsearch.backbones.grid import Grid
from rfsearch.backbones.parsing_path import _initialise
from rfsearch.layers.lsdfn import LSDFN

KERNEL = 3
VGG16_CHANNELS = 512

# DeepLab's largest pyramid (its "ASPP-L"), and a third of it; px of the map.
VGG16_DILATIONS = (6, 12, 18, 24)
SMALL_DILATIONS = (2, 4, 6, 8)

# Sample strides of the LS-DFN blocks, and half of them: the widest of these reads gamma (s - 1) + k = 19 px of a map.
VGG16_GAMMAS = (2, 4, 6, 8)
SMALL_GAMMAS = (1, 2, 3, 4)
SAMPLES = 5

# Channels inside an LS-DFN block.
VGG16_HIDDEN = 128
SMALL_HIDDEN = 32

# Deviation of a convolution's weights straight in front of the sum: small logits, as DeepLab starts its last layers.
_STD = 0.01


class DeepLab(nn.Module):
    """features -> branches -> their sum -> bilinear, B x C x H x W to B x classes x H x W.

    features: from the image to a map, initialised here as ParsingPath's are. branches: each from that map to class
    scores of its size, `branches.0` and on; where one is a convolution, it is a site. grid: where the map's units lie.
    """

    def __init__(self, features: nn.Module, branches: Iterable[nn.Module], grid: Grid) -> None:
        super().__init__()
        self._grid = grid
        self.features = features
        self.branches = nn.ModuleList(branches)
        _initialise(self.features)

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        scores = reduce(add, [branch(x) for branch in self.branches])
        return self._grid.enlarge(scores, image.shape[-2:])


class Deformable(nn.Module):
    """A 3x3 convolution that learns where its taps fall: B x in_channels x H x W to B x out_channels x H x W.

    `offset` reads from the map how far each tap moves, (y, x) px of the map; zero at the start, so that `conv` then
    is a plain convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_channels, 2 * KERNEL**2, KERNEL, padding=KERNEL // 2)
        self.conv = DeformConv2d(in_channels, out_channels, KERNEL, padding=KERNEL // 2)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)
        _start_small(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.offset(x))


def deeplab_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Four atrous convolutions at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_atrous(small.CHANNELS, num_classes, dilation) for dilation in SMALL_DILATIONS]
    return _small(in_channels, branches)


def deeplab_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Four atrous convolutions at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_atrous(VGG16_CHANNELS, num_classes, dilation) for dilation in VGG16_DILATIONS]
    return _vgg16(in_channels, branches)


def deeplab_lsdfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Four LS-DFN blocks at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic_small(num_classes, SAMPLES, gamma) for gamma in SMALL_GAMMAS]
    return _small(in_channels, branches)


def deeplab_lsdfn_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Four LS-DFN blocks at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic_vgg16(num_classes, SAMPLES, gamma) for gamma in VGG16_GAMMAS]
    return _vgg16(in_channels, branches)


def deeplab_dfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """One dynamic filter block at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _small(in_channels, [_dynamic_small(num_classes)])


def deeplab_dfn_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """One dynamic filter block at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _vgg16(in_channels, [_dynamic_vgg16(num_classes)])


def deeplab_deform_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """One deformable convolution at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _small(in_channels, [Deformable(small.CHANNELS, num_classes)])


def deeplab_deform_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """One deformable convolution at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _vgg16(in_channels, [Deformable(VGG16_CHANNELS, num_classes)])


def _small(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(small._features(in_channels), branches, Grid(small.OFFSET, small.STRIDE))


def _vgg16(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(vgg._features(in_channels), branches, Grid(vgg.OFFSET, vgg.STRIDE))


def _atrous(in_channels: int, num_classes: int, dilation: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, num_classes, KERNEL, padding=dilation, dilation=dilation)
    _start_small(conv)
    return conv


def _dynamic_small(num_classes: int, samples: int = 1, gamma: float = 1.0) -> nn.Module:
    return _dynamic(small.CHANNELS, num_classes, SMALL_HIDDEN, samples, gamma)


def _dynamic_vgg16(num_classes: int, samples: int = 1, gamma: float = 1.0) -> nn.Module:
    return _dynamic(VGG16_CHANNELS, num_classes, VGG16_HIDDEN, samples, gamma)


def _dynamic(channels: int, num_classes: int, hidden: int, samples: int, gamma: float) -> nn.Module:
    block = LSDFN(channels, num_classes, features=hidden, s=samples, k=KERNEL, gamma=gamma)
    return nn.Sequential(nn.BatchNorm2d(channels), block, nn.BatchNorm2d(num_classes))


def _start_small(conv: nn.Conv2d | DeformConv2d) -> None:
    nn.init.normal_(conv.weight, std=_STD)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
