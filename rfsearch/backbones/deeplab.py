"""Build DeepLab's atrous spatial pyramid, and what the LS-DFN paper puts in its place: features, then branches, summed.

DeepLab: Chen et al., "DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and fully
connected CRFs", TPAMI 2018. LS-DFN: Wu et al., "Dynamic filtering with large sampling field for ConvNets", ECCV 2018.
Deformable: Dai et al., "Deformable convolutional networks", ICCV 2017.

Choices of ours:
- Each branch is one 3x3 layer straight to the classes, DeepLab's ResNet variant, on VGG-16 too. Its VGG variant has two
  hidden 1x1 layers per branch (fc6, fc7, fc8).
- The VGG-16 networks are built with the papers' numbers. The small ones, for images of about 96 px, scale them down to
  their maps of 24 x 24: dilations to a third, sample strides to half, the widths of the LS-DFN blocks to a quarter.
- With one sample (s = 1, the plain dynamic filter network) the sample stride has no effect and the four blocks would be
  one and the same, so there is one. A deformable convolution finds its own dilation, so there is one too.
- An LS-DFN block multiplies the map by kernels made of that map, which diverges at the learning rates that convolutions
  take. It is therefore placed between two batch normalisations.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from rfsearch.backbones import small, vgg
from rfsearch.backbones.grid import Grid
from rfsearch.backbones.parsing_path import initialise_he
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

# Standard deviation of the weights directly before the sum: small logits, as DeepLab initialises its last layers.
_STD = 0.01


class DeepLab(nn.Module):
    """Sum branches over shared features: features -> branches -> sum -> bilinear.

    Maps B x C x H x W to B x classes x H x W. A branch that is a convolution is a site, `branches.0` and so on.

    Args:
        features: Maps the image to a map. They are initialised here as those of ParsingPath are.
        branches: Each maps that map to class scores of its size.
        grid: Where the map's units lie on the image.

    Example:
        >>> deeplab_small(num_classes=5)(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 5, 32, 32])
    """

    def __init__(self, features: nn.Module, branches: Iterable[nn.Module], grid: Grid) -> None:
        super().__init__()
        self._grid = grid
        self.features = features
        self.branches = nn.ModuleList(branches)
        initialise_he(self.features)

    def forward(self, image: Tensor) -> Tensor:
        """Map B x C x H x W to B x classes x H x W."""
        x = self.features(image)
        scores = reduce(add, [branch(x) for branch in self.branches])
        return self._grid.enlarge(scores, image.shape[-2:])


class Deformable(nn.Module):
    """Convolve 3x3 with learned tap positions: B x in_channels x H x W to B x out_channels x H x W.

    `offset` reads from the map how far each tap moves, (y, x) px of the map. It is zero at the start, so that `conv`
    then is a plain convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Example:
        >>> Deformable(8, 4)(torch.randn(1, 8, 12, 12)).shape
        torch.Size([1, 4, 12, 12])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_channels, 2 * KERNEL**2, KERNEL, padding=KERNEL // 2)
        self.conv = DeformConv2d(in_channels, out_channels, KERNEL, padding=KERNEL // 2)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)
        _start_small(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x in_channels x H x W to B x out_channels x H x W."""
        output: Tensor = self.conv(x, self.offset(x))
        return output


def deeplab_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four atrous convolutions at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_atrous(small.CHANNELS, num_classes, dilation) for dilation in SMALL_DILATIONS]
    return _small(in_channels, branches)


def deeplab_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four atrous convolutions at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_atrous(VGG16_CHANNELS, num_classes, dilation) for dilation in VGG16_DILATIONS]
    return _vgg16(in_channels, branches)


def deeplab_lsdfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four LS-DFN blocks at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic_small(num_classes, SAMPLES, gamma) for gamma in SMALL_GAMMAS]
    return _small(in_channels, branches)


def deeplab_lsdfn_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four LS-DFN blocks at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic_vgg16(num_classes, SAMPLES, gamma) for gamma in VGG16_GAMMAS]
    return _vgg16(in_channels, branches)


def deeplab_dfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build one dynamic filter block at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _small(in_channels, [_dynamic_small(num_classes)])


def deeplab_dfn_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build one dynamic filter block at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _vgg16(in_channels, [_dynamic_vgg16(num_classes)])


def deeplab_deform_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build one deformable convolution at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _small(in_channels, [Deformable(small.CHANNELS, num_classes)])


def deeplab_deform_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build one deformable convolution at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    return _vgg16(in_channels, [Deformable(VGG16_CHANNELS, num_classes)])


def _small(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(small.small_features(in_channels), branches, Grid(small.OFFSET, small.STRIDE))


def _vgg16(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(vgg.vgg16_features(in_channels), branches, Grid(vgg.OFFSET, vgg.STRIDE))


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
