"""Build DeepLab's atrous spatial pyramid, and what the LS-DFN paper puts in its place: features, then branches, summed.

DeepLab: Chen et al., "DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and fully
connected CRFs", TPAMI 2018. LS-DFN: Wu et al., "Dynamic filtering with large sampling field for ConvNets", ECCV 2018.
Deformable: Dai et al., "Deformable convolutional networks", ICCV 2017.

The ResNet-101 networks are DeepLab V2's, with the LS-DFN paper's numbers (sec. 4.2): blocks in the place of the four
dilations, or one beside them, which reads res5b, the last map but one, and is joined to res5c. Not there: the CRF and
the three scales of the image. Wu et al. do not print how many channels a block filters; 128 is their example.

Choices of ours:
- ResNet-101 is torchvision's, whose stages stride in their 3x3 convolutions; DeepLab's stride in the 1x1 before.
- Each branch is one 3x3 layer straight to the classes, DeepLab's ResNet variant, on VGG-16 too. Its VGG variant has two
  hidden 1x1 layers per branch (fc6, fc7, fc8).
- The small networks, for images of about 96 px, scale the papers' numbers down to their maps of 24 x 24: dilations to a
  third, sample strides to half, the widths of the LS-DFN blocks to a quarter.
- With one sample (s = 1, the plain dynamic filter network) the sample stride has no effect and the four blocks would be
  one and the same, so there is one. A deformable convolution finds its own dilation, so there is one too.
- An LS-DFN block multiplies the map by kernels made of that map, which diverges at the learning rates that convolutions
  take. It is therefore placed between two batch normalisations.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import DeformConv2d

from rfsearch.backbones import small, vgg
from rfsearch.backbones.grid import Grid
from rfsearch.backbones.parsing_path import initialise_he
from rfsearch.layers.lsdfn import LSDFN

KERNEL = 3
VGG16_CHANNELS = 512
RESNET_CHANNELS = 2048
RESNET_STRIDE = 8
RESNET_OFFSET = 0.0  # centre of the first unit behind the features, px

# DeepLab's largest pyramid (its "ASPP-L"), and a third of it; px of the map.
DILATIONS = (6, 12, 18, 24)
SMALL_DILATIONS = (2, 4, 6, 8)

# Sample strides of the LS-DFN blocks, and half of them: the widest of these reads gamma (s - 1) + k = 19 px of a map.
GAMMAS = (2, 4, 6, 8)
SMALL_GAMMAS = (1, 2, 3, 4)
SAMPLES = 5

# Channels inside an LS-DFN block.
HIDDEN = 128
SMALL_HIDDEN = 32

# The block beside the dilations: its sample stride, its dynamic features C', and the channels of the 1x1 convolution
# behind it.
BESIDE, SMALL_BESIDE = (3.0, 24, 256), (1.5, 6, 64)

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


class Beside(nn.Module):
    """Join what a block reads of a map to what a layer makes of it.

    Maps B x C x H x W to B x (C1 + C2) x H x W, the layer's channels first.

    Args:
        layer: Maps the map to C1 channels of its size.
        block: Maps it to C2.

    Example:
        >>> Beside(nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1))(torch.randn(1, 8, 12, 12)).shape
        torch.Size([1, 6, 12, 12])
    """

    def __init__(self, layer: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.layer, self.block = layer, block

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x (C1 + C2) x H x W."""
        # The block first: a layer that works in place, as ReLU does, may change the map.
        joined = self.block(x)
        return torch.cat([self.layer(x), joined], dim=1)


def deeplab_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four atrous convolutions at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_atrous(small.CHANNELS, num_classes, dilation) for dilation in SMALL_DILATIONS]
    return _small(in_channels, branches)


def deeplab_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four atrous convolutions at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_atrous(VGG16_CHANNELS, num_classes, dilation) for dilation in DILATIONS]
    return _vgg16(in_channels, branches)


def deeplab_lsdfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four LS-DFN blocks at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic_small(num_classes, SAMPLES, gamma) for gamma in SMALL_GAMMAS]
    return _small(in_channels, branches)


def deeplab_lsdfn_vgg16(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build four LS-DFN blocks at a stride of 8 px: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic_vgg16(num_classes, SAMPLES, gamma) for gamma in GAMMAS]
    return _vgg16(in_channels, branches)


def deeplab_lsdfn_beside_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build an LS-DFN block beside four atrous convolutions: B x in_channels x H x W to B x num_classes x H x W."""
    layers = small.small_features(in_channels)
    conv = layers[6]  # the third of three, each with its normalisation and ReLU
    assert isinstance(conv, nn.Conv2d)
    channels = small.CHANNELS + SMALL_BESIDE[-1]
    branches = [_atrous(channels, num_classes, dilation) for dilation in SMALL_DILATIONS]
    network = DeepLab(layers, branches, Grid(small.OFFSET, small.STRIDE))
    # Behind the others: it has an initialisation of its own.
    block = _block_beside(conv.in_channels, SMALL_HIDDEN, *SMALL_BESIDE)
    network.features = nn.Sequential(*layers[:6], Beside(layers[6:], block))
    return network


def deeplab_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build DeepLab V2 without its CRF and scales: B x in_channels x H x W to B x num_classes x H x W."""
    return _resnet101(in_channels, [_atrous(RESNET_CHANNELS, num_classes, dilation) for dilation in DILATIONS])


def deeplab_lsdfn_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build DeepLab V2 with LS-DFN for its dilations: B x in_channels x H x W to B x num_classes x H x W."""
    branches = [_dynamic(RESNET_CHANNELS, num_classes, HIDDEN, SAMPLES, gamma) for gamma in GAMMAS]
    return _resnet101(in_channels, branches)


def deeplab_lsdfn_beside_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build DeepLab V2 with LS-DFN from res5b to res5c: B x in_channels x H x W to B x num_classes x H x W."""
    stages = resnet101_features(in_channels)
    res5 = stages[-1]
    assert isinstance(res5, nn.Sequential)
    channels = RESNET_CHANNELS + BESIDE[-1]
    branches = [_atrous(channels, num_classes, dilation) for dilation in DILATIONS]
    network = DeepLab(stages, branches, Grid(RESNET_OFFSET, RESNET_STRIDE))
    # As in the small one: behind the others.
    block = _block_beside(RESNET_CHANNELS, HIDDEN, *BESIDE)
    network.features = nn.Sequential(*stages[:-1], res5[:-1], Beside(res5[-1], block))
    return network


def deeplab_dfn_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build DeepLab V2 with one dynamic filter block: B x in_channels x H x W to B x num_classes x H x W."""
    return _resnet101(in_channels, [_dynamic(RESNET_CHANNELS, num_classes, HIDDEN)])


def deeplab_deform_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build DeepLab V2 with one deformable convolution: B x in_channels x H x W to B x num_classes x H x W."""
    return _resnet101(in_channels, [Deformable(RESNET_CHANNELS, num_classes)])


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


def resnet101_features(in_channels: int) -> nn.Sequential:
    """Build ResNet-101 up to res5c at a stride of 8 px: res4 is dilated by 2, res5 by 4."""
    net = models.resnet101(weights=None, replace_stride_with_dilation=[False, True, True])
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    for stage, dilation in ((net.layer3, 2), (net.layer4, 4)):
        for block in stage:
            block.conv2.dilation = block.conv2.padding = (dilation, dilation)
    return nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4)


def _small(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(small.small_features(in_channels), branches, Grid(small.OFFSET, small.STRIDE))


def _vgg16(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(vgg.vgg16_features(in_channels), branches, Grid(vgg.OFFSET, vgg.STRIDE))


def _resnet101(in_channels: int, branches: Iterable[nn.Module]) -> nn.Module:
    return DeepLab(resnet101_features(in_channels), branches, Grid(RESNET_OFFSET, RESNET_STRIDE))


def _block_beside(channels: int, hidden: int, gamma: float, dynamic: int, post: int) -> nn.Module:
    """Build an LS-DFN block of `dynamic` features C' and the 1x1 convolution to `post` channels behind it."""
    return nn.Sequential(_dynamic(channels, dynamic, hidden, SAMPLES, gamma), nn.Conv2d(dynamic, post, 1))


def _atrous(in_channels: int, num_classes: int, dilation: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, num_classes, KERNEL, padding=dilation, dilation=dilation)
    _start_small(conv)
    return conv


def _dynamic_small(num_classes: int, samples: int = 1, gamma: float = 1.0) -> nn.Module:
    return _dynamic(small.CHANNELS, num_classes, SMALL_HIDDEN, samples, gamma)


def _dynamic_vgg16(num_classes: int, samples: int = 1, gamma: float = 1.0) -> nn.Module:
    return _dynamic(VGG16_CHANNELS, num_classes, HIDDEN, samples, gamma)


def _dynamic(channels: int, out_channels: int, hidden: int, samples: int = 1, gamma: float = 1.0) -> nn.Module:
    block = LSDFN(channels, out_channels, features=hidden, s=samples, k=KERNEL, gamma=gamma)
    return nn.Sequential(nn.BatchNorm2d(channels), block, nn.BatchNorm2d(out_channels))


def _start_small(conv: nn.Conv2d | DeformConv2d) -> None:
    nn.init.normal_(conv.weight, std=_STD)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
