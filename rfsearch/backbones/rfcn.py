"""Build R-FCN and CoupleNet, with an LS-DFN block between features and head or without.

R-FCN: Dai, Li, He, Sun, "R-FCN: object detection via region-based fully convolutional networks", NIPS 2016. Hard
examples: Shrivastava, Gupta, Girshick, "Training region-based object detectors with online hard example mining", CVPR
2016. CoupleNet: Zhu et al., "CoupleNet: coupling global structure with local parts for object detection", ICCV 2017.
LS-DFN: Wu et al., "Dynamic filtering with large sampling field for ConvNets", ECCV 2018, sec. 4.1.

The regions come from outside: `[task] proposals` in a space file, see `rfsearch.tasks.proposals`. In training the true
boxes join them. A map of BINS x BINS x (classes + 1) scores and one of BINS x BINS x 4 shifts are pooled position by
position and averaged over the bins. CoupleNet's global branch adds scores of the whole region and of one twice as wide.
The receptive field is that of a unit of the score maps.

The networks on ResNet-50 and ResNet-101 follow the papers: res5 at a stride of 16 px with dilation 2, 1024 channels in
front of the head, 300 regions of which the 128 with the largest loss count. Choices of ours:
- Boxes are refined by the local branch alone, and the two branches of CoupleNet are summed behind a learned scale each.
- The small networks, for images of about 128 px, have a stride of 4 px, and pool by bilinear samples: a region of 8 px
  is two units wide, narrower than seven bins.
- The LS-DFN block stands between two batch normalisations, as in `rfsearch.backbones.deeplab`, and its C' channels join
  the features, behind a 1x1 convolution to as many channels as the features have where `post` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.ops import PSRoIAlign, PSRoIPool, RoIAlign, clip_boxes_to_image

from rfsearch.backbones.deeplab import Beside, Deformable
from rfsearch.backbones.parsing_path import initialise_he
from rfsearch.backbones.regions import best, matched, shifted, twice_as_wide
from rfsearch.detector import Detected, Detector, Maps, Objects
from rfsearch.errors import ModelError
from rfsearch.layers.lsdfn import LSDFN
from rfsearch.layers.lsdfn_ablated import AblatedLSDFN

BINS = 7
_STD = 0.01

SMALL_CHANNELS, SMALL_STRIDE, SMALL_HARD, SMALL_REDUCED = 64, 4, 32, 32
STRIDE, CHANNELS, HARD = 16, 1024, 128
HIDDEN, DYNAMIC = 128, 24  # C and C' of the block (sec. 3.1 and 4.1)
POST = 256  # channels of the convolution behind it
SMALL_PART = 4  # by which the small networks divide these three


class Residual(nn.Module):
    """Add two 3x3 convolutions to a map: B x C x H x W to B x width x H / stride x W / stride.

    Args:
        in_channels: C.
        width: Channels of the result.
        stride: Of the first convolution, px.

    Example:
        >>> Residual(16, 32, 2)(torch.randn(1, 16, 32, 32)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to B x width x H / stride x W / stride."""
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class GlobalBranch(nn.Module):
    """Score whole regions, and regions twice as wide: CoupleNet's global branch.

    Args:
        channels: Of the features.
        reduced: Channels that are pooled, and of the layer behind.
        scores: Classes and background.
        scale: Units of the map per px.
    """

    def __init__(self, channels: int, reduced: int, scores: int, scale: float) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.pool = RoIAlign(BINS, scale, sampling_ratio=2, aligned=True)
        self.whole = nn.Conv2d(2 * reduced, reduced, BINS)
        self.score = nn.Conv2d(reduced, scores, 1)

    def forward(self, reduced: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """Return R x scores of all regions, whose features are B x reduced x h x w."""
        wide = [twice_as_wide(boxes) for boxes in regions]
        pooled = torch.cat([self.pool(reduced, list(boxes)) for boxes in (regions, wide)], dim=1)
        found: Tensor = self.score(torch.relu(self.whole(pooled)))
        return found.flatten(1)


class Rfcn(Detector):
    """Detect objects in given regions by maps of scores that depend on the position within a region.

    Args:
        num_classes: Without the background.
        features: Map the image to a map.
        channels: Of that map, the block's included.
        stride: Of that map, px.
        hard: Regions of an image whose losses count, the largest ones.
        reduced: Channels of CoupleNet's global branch. 0: none.
        quantised: Whether pooling averages the units of a bin, as the paper does, or bilinear samples.

    Example:
        >>> net = rfcn_small(3).eval()
        >>> net(images, [regions])  # regions: p x 4, px
    """

    def __init__(
        self,
        num_classes: int,
        features: nn.Module,
        channels: int,
        stride: int,
        hard: int,
        reduced: int = 0,
        quantised: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self._scores, self._hard = num_classes + 1, hard
        self.score = nn.Conv2d(channels, BINS * BINS * self._scores, 1)
        self.shift = nn.Conv2d(channels, BINS * BINS * 4, 1)
        for head in (self.score, self.shift):
            nn.init.normal_(head.weight, std=_STD)
            assert head.bias is not None
            nn.init.zeros_(head.bias)
        self.pool = PSRoIPool(BINS, 1 / stride) if quantised else PSRoIAlign(BINS, 1 / stride, sampling_ratio=2)
        self.global_branch = GlobalBranch(channels, reduced, self._scores, 1 / stride) if reduced else None
        self.scales = nn.Parameter(torch.ones(2, self._scores)) if reduced else None

    def maps(self, images: Tensor) -> Maps:
        """Return the score maps, the shift maps, and what a global branch pools."""
        x = self.features(images)
        named = {"scores": self.score(x), "shifts": self.shift(x)}
        if self.global_branch is not None:
            named["reduced"] = torch.relu(self.global_branch.reduce(x))
        return Maps(named, named["scores"], (int(images.shape[-2]), int(images.shape[-1])))

    def find_loss(self, maps: Maps, objects: Sequence[Objects]) -> Tensor:
        """Return the mean loss of the regions that are hardest, `hard` of each image (OHEM)."""
        if not any(len(one.proposals) for one in objects):
            raise ModelError(
                "This network takes its regions from outside, and none was proposed. Set proposals = 100, or another "
                "number, in the table [task] of the space's file."
            )
        regions = [torch.cat([one.proposals, one.boxes]) for one in objects]
        logits, shifts = self.pooled(maps, regions)
        labels, wanted = (torch.cat(part) for part in zip(*map(matched, regions, objects), strict=True))
        losses = F.cross_entropy(logits, labels, reduction="none")
        apart = F.smooth_l1_loss(shifts, wanted, reduction="none").sum(1)
        losses = losses + torch.where(labels > 0, apart, torch.zeros_like(apart))
        counts = [len(boxes) for boxes in regions]
        hardest = [one.topk(min(self._hard, len(one))).values for one in losses.split(counts)]
        return torch.cat(hardest).mean()

    def find_objects(self, maps: Maps, proposals: Sequence[Tensor] | None) -> list[Detected]:
        """Return what is found in the proposed regions; without any, nothing."""
        regions = proposals if proposals is not None else [maps.out.new_zeros(0, 4)] * len(maps)
        logits, shifts = self.pooled(maps, regions)
        found, begin = [], 0
        for boxes in regions:
            end = begin + len(boxes)
            refined = clip_boxes_to_image(shifted(boxes, shifts[begin:end]), maps.size)
            found.append(best(refined, logits[begin:end].softmax(1)[:, 1:]))
            begin = end
        return found

    def pooled(self, maps: Maps, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return R x (classes + 1) logits and R x 4 shifts of all regions, those of the first image first."""
        named, boxes = maps.named, [one.to(maps.out.dtype) for one in regions]
        logits, shifts = (self.pool(named[name], boxes).mean(dim=(2, 3)) for name in ("scores", "shifts"))
        if self.global_branch is not None and self.scales is not None:
            logits = self.scales[0] * logits + self.scales[1] * self.global_branch(named["reduced"], boxes)
        return logits, shifts


def small_features(in_channels: int) -> nn.Sequential:
    """Build a small ResNet up to res5 at a stride of SMALL_STRIDE px."""
    features = nn.Sequential()
    features.add_module("conv1", nn.Conv2d(in_channels, 16, 3, 2, padding=1, bias=False))
    features.add_module("bn1", nn.BatchNorm2d(16))
    features.add_module("relu", nn.ReLU(inplace=True))
    features.add_module("res3", Residual(16, 32, 2))
    features.add_module("res5", Residual(32, SMALL_CHANNELS))
    initialise_he(features)
    return features


def resnet_features(depth: int, in_channels: int) -> nn.Sequential:
    """Build ResNet-50 or ResNet-101 up to res5 at a stride of STRIDE px, and a 1x1 convolution to CHANNELS."""
    make = {50: models.resnet50, 101: models.resnet101}[depth]
    net = make(weights=None, replace_stride_with_dilation=[False, False, True])
    if in_channels != 3:
        net.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    features = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        features.add_module(name, getattr(net, name))
    features.add_module("reduce", nn.Sequential(nn.Conv2d(2048, CHANNELS, 1), nn.ReLU(inplace=True)))
    return features


@dataclass(frozen=True)
class Block:
    """Say what LS-DFN block joins the features of a network.

    Attributes:
        s: Samples an axis.
        gamma: Sample stride, px of the map.
        dynamic: C', on ResNets; the small networks have a quarter of it, and of the maps that are filtered.
        attention: See `AblatedLSDFN`.
        residual: Likewise.
        post: Whether a 1x1 convolution follows, to 256 channels on ResNets and a quarter of that on small networks.
    """

    s: int = 3
    gamma: int = 1
    dynamic: int = DYNAMIC
    attention: bool = True
    residual: bool = True
    post: bool = False

    def join(self, features: nn.Sequential, channels: int, part: int) -> int:
        """Let the block read the features' C channels and join them; returns how many channels there are then.

        Args:
            features: Get the block as their last layer.
            channels: C.
            part: By which the paper's widths are divided.
        """
        dynamic, hidden = self.dynamic // part, HIDDEN // part
        if self.attention and self.residual:
            block: nn.Module = LSDFN(channels, dynamic, features=hidden, s=self.s, k=3, gamma=float(self.gamma))
        else:
            block = AblatedLSDFN(
                channels,
                dynamic,
                features=hidden,
                s=self.s,
                gamma=self.gamma,
                attention=self.attention,
                residual=self.residual,
            )
        layers = [nn.BatchNorm2d(channels), block, nn.BatchNorm2d(dynamic)]
        if self.post:
            layers.append(nn.Conv2d(dynamic, POST // part, 1))
        features.add_module("joined", Beside(nn.Identity(), nn.Sequential(*layers)))
        return channels + (POST // part if self.post else dynamic)


def small(num_classes: int, in_channels: int = 3, *, block: Block | None = None, reduced: int = 0) -> nn.Module:
    """Build R-FCN, or with `reduced` channels CoupleNet, on a small ResNet."""
    features, channels = small_features(in_channels), SMALL_CHANNELS
    if block:
        channels = block.join(features, channels, SMALL_PART)
    return Rfcn(num_classes, features, channels, SMALL_STRIDE, SMALL_HARD, reduced=reduced)


def large(
    num_classes: int, in_channels: int = 3, *, depth: int = 101, block: Block | None = None, reduced: int = 0
) -> nn.Module:
    """Build R-FCN, or with `reduced` channels CoupleNet, on ResNet-50 or ResNet-101."""
    features, channels = resnet_features(depth, in_channels), CHANNELS
    if block:
        channels = block.join(features, channels, 1)
    return Rfcn(num_classes, features, channels, STRIDE, HARD, reduced=reduced, quantised=True)


def rfcn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on a small ResNet."""
    return small(num_classes, in_channels)


def rfcn_lsdfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on a small ResNet with the block of Table 1."""
    return small(num_classes, in_channels, block=Block(post=True))


def rfcn_deform_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on a small ResNet whose last convolution is deformable (Table 1)."""
    features = small_features(in_channels)
    features.res5.conv2 = Deformable(SMALL_CHANNELS, SMALL_CHANNELS)  # type: ignore[union-attr]
    return Rfcn(num_classes, features, SMALL_CHANNELS, SMALL_STRIDE, SMALL_HARD)


def couplenet_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build CoupleNet on a small ResNet."""
    return small(num_classes, in_channels, reduced=SMALL_REDUCED)


def couplenet_lsdfn_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build CoupleNet on a small ResNet with the block of Table 1."""
    return small(num_classes, in_channels, block=Block(post=True), reduced=SMALL_REDUCED)


def rfcn_resnet50(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on ResNet-50."""
    return large(num_classes, in_channels, depth=50)


def rfcn_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on ResNet-101."""
    return large(num_classes, in_channels)


def rfcn_lsdfn_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on ResNet-101 with the block of Table 1."""
    return large(num_classes, in_channels, block=Block(post=True))


def rfcn_deform_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build R-FCN on ResNet-101 whose last three 3x3 convolutions are deformable, as Dai et al. have it (Table 1)."""
    features = resnet_features(101, in_channels)
    for bottleneck in features.layer4:  # type: ignore[union-attr]
        width = bottleneck.conv2.out_channels
        bottleneck.conv2 = Deformable(width, width)
    return Rfcn(num_classes, features, CHANNELS, STRIDE, HARD, quantised=True)


def couplenet_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build CoupleNet on ResNet-101."""
    return large(num_classes, in_channels, reduced=CHANNELS)


def couplenet_lsdfn_resnet101(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build CoupleNet on ResNet-101 with the block of Table 1."""
    return large(num_classes, in_channels, block=Block(post=True), reduced=CHANNELS)


_BLOCKS = {
    f"s{s}_gamma{gamma}_dynamic{dynamic}{'' if attention else '_unattended'}{'' if residual else '_plain'}": Block(
        s, gamma, dynamic, attention, residual
    )
    for s in (1, 3, 5)
    for gamma in (1, 2)
    for dynamic in (16, 24, 32)
    for attention in (True, False)
    for residual in (True, False)
}
# The networks of Tables 2 to 4 by their blocks, without a convolution behind: small, and on ResNet-50.
ABLATIONS: Mapping[str, Callable[..., nn.Module]] = {
    **{f"small_{name}": partial(small, block=block) for name, block in _BLOCKS.items()},
    **{f"resnet50_{name}": partial(large, depth=50, block=block) for name, block in _BLOCKS.items()},
}


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """Return one of ABLATIONS, so that a SPEC can name it: rfsearch.backbones.rfcn:small_s3_gamma1_dynamic24."""
    try:
        return ABLATIONS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
