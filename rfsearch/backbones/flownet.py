"""Build FlowNetS and FlowNetC, and LS-DFN behind their third convolution.

FlowNet: Dosovitskiy et al., "FlowNet: Learning optical flow with convolutional networks", ICCV 2015 (sec. 3, Fig. 2 and
3); the networks that were released have a conv6_1 besides, and so do these.
FlowNet 2: Ilg et al., "FlowNet 2.0: Evolution of optical flow estimation with deep networks", CVPR 2017, whose slim
networks have 3/8 of the channels. LS-DFN: Wu et al., "Dynamic filtering with large sampling field for ConvNets", ECCV
2018, sec. 4.3: a block behind the third convolution, in FlowNetC where the images are merged, with s = 7 or 9 and a
sample stride of 2, and a skip to the upsampling layer of its size.

They read two images stacked, B x 6 x H x W, and return a tuple of fields, B x 2 x h x w, px of the image, finest first:
at 1/4 to 1/64 of the image, five scales, in the networks of the papers; at 1/4 and 1/8 in the small ones.

Choices of ours:
- Wu et al. print neither the channels of their block nor how the convolutions behind it read it. It filters C = 128
  channels to C' = 24, as their best detector and segmenter do, between two batch normalisations, as in our DeepLab.
  What it gives is joined to the output of conv3_1, so that both conv4 and the upsampling layer read it.
- Fields leave the network 20 times as large as its last layers give them: FlowNet is trained on flow divided by 20.
- Deconvolutions have kernels of 4 px, which doubles the size of a map; what exceeds the map that is joined is cut off.
- The correlation is of single units, FlowNet's k = 0, and divides by the number of channels, as its released layer
  does.
- The small networks, for images of about 96 px, have three levels, batch normalisation and fewer channels. Their third
  convolution does not stride, so that blocks of s = 9 fit, and the last one, conv4_1, has room for dilations. What they
  correlate is normalised and not yet bent, to as far as 16 px of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rfsearch.backbones.parsing_path import initialise_he
from rfsearch.errors import ModelError
from rfsearch.layers import LSDFN, Correlation

_UNIT = 20.0  # px of displacement that the last layers give as 1
_SLOPE = 0.1  # of leaky ReLU below 0
_TAPS = 3  # of an LS-DFN block
_GAMMA = 2.0
_MERGING = "conv3_1"  # the convolution behind the features, or behind the correlation of both images


@dataclass(frozen=True)
class Architecture:
    """Describe a FlowNet.

    Attributes:
        features: Channels, kernel and stride of conv1, conv2 and conv3, which FlowNetC applies to each image.
        deeper: Name, channels and stride of the 3 x 3 convolutions behind conv3, or behind the correlation; the first
            is conv3_1.
        skips: Convolutions whose maps are joined on the way up, coarsest first.
        widths: Channels of the deconvolutions, one per skip.
        redirected: Channels of the first image's map that are joined to the correlation.
        correlation: Reach and stride of the correlation, px of its map.
        block: Channels C that an LS-DFN block filters, and its output's, C'.
        normalised: Whether convolutions are followed by batch normalisation.
    """

    features: tuple[tuple[int, int, int], ...]
    deeper: tuple[tuple[str, int, int], ...]
    skips: tuple[str, ...]
    widths: tuple[int, ...]
    redirected: int
    correlation: tuple[int, int]
    block: tuple[int, int]
    normalised: bool = False

    def slim(self) -> Architecture:
        """Return the network with 3/8 of the channels (FlowNet 2, sec. 3.3)."""

        def thin(channels: int) -> int:
            return max(1, channels * 3 // 8)

        return replace(
            self,
            features=tuple((thin(channels), kernel, stride) for channels, kernel, stride in self.features),
            deeper=tuple((name, thin(channels), stride) for name, channels, stride in self.deeper),
            widths=tuple(map(thin, self.widths)),
            redirected=thin(self.redirected),
        )


FLOWNET = Architecture(
    features=((64, 7, 2), (128, 5, 2), (256, 5, 2)),
    deeper=(
        ("conv3_1", 256, 1),
        ("conv4", 512, 2),
        ("conv4_1", 512, 1),
        ("conv5", 512, 2),
        ("conv5_1", 512, 1),
        ("conv6", 1024, 2),
        ("conv6_1", 1024, 1),
    ),
    skips=("conv5_1", "conv4_1", "conv3_1", "conv2"),
    widths=(512, 256, 128, 64),
    redirected=32,
    correlation=(20, 2),
    block=(128, 24),
)
SMALL = Architecture(
    features=((16, 5, 2), (32, 3, 2), (32, 3, 1)),
    deeper=(("conv3_1", 48, 1), ("conv4", 64, 2), ("conv4_1", 64, 1)),
    skips=("conv3_1",),
    widths=(32,),
    redirected=8,
    correlation=(4, 1),
    block=(32, 8),
    normalised=True,
)


class FlowNet(nn.Module):
    """Estimate flow: features, deeper convolutions, and a way up on which each level gives a field.

    Maps B x 2C x H x W to a tuple of fields, finest first. `conv1`, `conv2` ... are convolutions with what follows
    them; a site is the convolution itself, such as `conv4_1.conv`.

    Args:
        table: The network's table.
        out_channels: Channels of a field: 2.
        in_channels: Those of both images together.
        correlated: Whether each image has features of its own, which are correlated (FlowNetC). Otherwise both are read
            as one image (FlowNetS).
        regions: s of an LS-DFN block behind conv3_1; None for none.

    Raises:
        ModelError: Images to be correlated have an odd number of channels together.

    Example:
        >>> [tuple(field.shape) for field in flownet_s_small(2, 6)(torch.randn(1, 6, 32, 32))]
        [(1, 2, 8, 8), (1, 2, 4, 4)]
    """

    def __init__(
        self, table: Architecture, out_channels: int, in_channels: int, correlated: bool, regions: int | None = None
    ) -> None:
        super().__init__()
        if correlated and in_channels % 2:
            raise ModelError(
                "FlowNetC reads two images stacked: an even number of channels, 6 for RGB, as --input 6x96x96. Got "
                f"{in_channels}."
            )
        self.correlated = correlated
        self._deeper, self._skips = tuple(name for name, *_ in table.deeper), table.skips
        channels = in_channels // 2 if correlated else in_channels
        sizes: dict[str, int] = {}
        for number, (width, kernel, stride) in enumerate(table.features, start=1):
            name = f"conv{number}"
            # Normalised features are compared before they are bent, or all would be alike in their positive mean.
            compared = correlated and table.normalised and number == len(table.features)
            self.add_module(name, _Conv(channels, width, kernel, stride, table.normalised, bent=not compared))
            channels = sizes[name] = width
        if correlated:
            self.correlation = Correlation(*table.correlation)
            self.conv_redir = _Conv(channels, table.redirected, 1, 1, table.normalised)
            channels = self.correlation.side**2 + table.redirected
        for name, width, stride in table.deeper:
            self.add_module(name, _Conv(channels, width, 3, stride, table.normalised))
            channels = width
            if name == _MERGING and regions is not None:
                channels += table.block[1]
            sizes[name] = channels
        self.predict = nn.ModuleList([_predict(channels, out_channels)])
        self.deconv, self.enlarge = nn.ModuleList(), nn.ModuleList()
        for skip, width in zip(table.skips, table.widths, strict=True):
            self.deconv.append(_Deconv(channels, width, table.normalised))
            self.enlarge.append(nn.ConvTranspose2d(out_channels, out_channels, 4, 2, 1))
            channels = sizes[skip] + width + out_channels
            self.predict.append(_predict(channels, out_channels))
        initialise_he(self)
        for predict in self.predict:
            nn.init.normal_(predict.weight, std=0.01)  # type: ignore[arg-type]
        # Behind the others: it has an initialisation of its own.
        self.block = None if regions is None else _block(table.deeper[0][1], table.block, regions)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map B x 2C x H x W to fields, each B x out_channels x h x w, finest first."""
        maps: dict[str, Tensor] = {}
        x = self._merged(images, maps)
        for name in self._deeper:
            x = self.get_submodule(name)(x)
            if name == _MERGING and self.block is not None:
                x = torch.cat([x, self.block(x)], dim=1)
            maps[name] = x
        fields = [self.predict[0](x)]
        for skip, deconv, enlarge, predict in zip(
            self._skips, self.deconv, self.enlarge, self.predict[1:], strict=True
        ):
            beside = maps[skip]
            grown = [part[..., : beside.shape[2], : beside.shape[3]] for part in (deconv(x), enlarge(fields[-1]))]
            x = torch.cat([beside, *grown], dim=1)
            fields.append(predict(x))
        return tuple(_UNIT * field for field in reversed(fields))

    def _merged(self, images: Tensor, maps: dict[str, Tensor]) -> Tensor:
        """Return the map that conv3_1 reads; the first image's maps before it are noted."""
        read = images.chunk(2, dim=1) if self.correlated else (images,)
        found: list[Tensor] = []
        for image in reversed(read):  # the first image last, so that its maps are those that stay noted
            x = image
            for name in ("conv1", "conv2", "conv3"):
                x = maps[name] = self.get_submodule(name)(x)
            found.insert(0, x)
        if not self.correlated:
            return found[0]
        near = nn.functional.leaky_relu(self.correlation(*found), _SLOPE)
        merged: Tensor = torch.cat([self.conv_redir(found[0]), near], dim=1)
        return merged


class _Conv(nn.Module):
    """Convolve, normalise if asked to, and bend: B x C x H x W to B x C' x ceil(H / stride) x ceil(W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, normalised: bool, bent: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not normalised)
        self.norm = nn.BatchNorm2d(out_channels) if normalised else nn.Identity()
        self.bend = nn.LeakyReLU(_SLOPE) if bent else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.bend(self.norm(self.conv(x)))
        return result


class _Deconv(_Conv):
    """Double the size of a map: B x C x H x W to B x C' x 2H x 2W."""

    def __init__(self, in_channels: int, out_channels: int, normalised: bool) -> None:
        super().__init__(in_channels, out_channels, 1, 1, normalised)
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=not normalised)  # type: ignore[assignment]


def _predict(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1)


def _block(channels: int, sizes: Sequence[int], regions: int) -> nn.Module:
    features, out_channels = sizes
    block = LSDFN(channels, out_channels, features=features, s=regions, k=_TAPS, gamma=_GAMMA)
    return nn.Sequential(nn.BatchNorm2d(channels), block, nn.BatchNorm2d(out_channels))


def flownet_s(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build FlowNetS: two images stacked, B x in_channels x H x W, to fields at five scales."""
    return FlowNet(FLOWNET, out_channels, in_channels, correlated=False)


def flownet_s_lsdfn(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build FlowNetS with LS-DFN of 7 x 7 regions behind its third convolution."""
    return FlowNet(FLOWNET, out_channels, in_channels, correlated=False, regions=7)


def flownet_slim(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build FlowNet 2's slim FlowNetS, "FlowNets", with 3/8 of the channels."""
    return FlowNet(FLOWNET.slim(), out_channels, in_channels, correlated=False)


def flownet_slim_lsdfn(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build FlowNet 2's slim FlowNetS with LS-DFN of 7 x 7 regions behind its third convolution."""
    return FlowNet(FLOWNET.slim(), out_channels, in_channels, correlated=False, regions=7)


def flownet_c(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build FlowNetC: features of each of two stacked images, correlated, to fields at five scales."""
    return FlowNet(FLOWNET, out_channels, in_channels, correlated=True)


def flownet_c_lsdfn(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build FlowNetC with LS-DFN of 7 x 7 regions behind the convolution that merges the images."""
    return FlowNet(FLOWNET, out_channels, in_channels, correlated=True, regions=7)


def flownet_c_lsdfn9(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build FlowNetC with LS-DFN of 9 x 9 regions behind the convolution that merges the images."""
    return FlowNet(FLOWNET, out_channels, in_channels, correlated=True, regions=9)


def flownet_s_small(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build a small FlowNetS: two images stacked, B x in_channels x H x W, to fields at 1/4 and 1/8."""
    return FlowNet(SMALL, out_channels, in_channels, correlated=False)


def flownet_s_lsdfn_small(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build a small FlowNetS with LS-DFN of 7 x 7 regions behind its third convolution."""
    return FlowNet(SMALL, out_channels, in_channels, correlated=False, regions=7)


def flownet_slim_small(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build a small FlowNetS with 3/8 of the channels."""
    return FlowNet(SMALL.slim(), out_channels, in_channels, correlated=False)


def flownet_slim_lsdfn_small(out_channels: int, in_channels: int = 3) -> nn.Module:
    """Build a small FlowNetS with 3/8 of the channels, and LS-DFN of 7 x 7 regions behind its third convolution."""
    return FlowNet(SMALL.slim(), out_channels, in_channels, correlated=False, regions=7)


def flownet_c_small(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build a small FlowNetC: features of each of two stacked images, correlated, to fields at 1/4 and 1/8."""
    return FlowNet(SMALL, out_channels, in_channels, correlated=True)


def flownet_c_lsdfn_small(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build a small FlowNetC with LS-DFN of 7 x 7 regions behind the convolution that merges the images."""
    return FlowNet(SMALL, out_channels, in_channels, correlated=True, regions=7)


def flownet_c_lsdfn9_small(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build a small FlowNetC with LS-DFN of 9 x 9 regions behind the convolution that merges the images."""
    return FlowNet(SMALL, out_channels, in_channels, correlated=True, regions=9)


def flownet_c_near_small(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build a small FlowNetC whose correlation reaches half as far, to 8 px of the image."""
    return FlowNet(replace(SMALL, correlation=(2, 1)), out_channels, in_channels, correlated=True)


def flownet_c_wide_small(out_channels: int, in_channels: int = 6) -> nn.Module:
    """Build a small FlowNetC whose correlation reaches twice as far, to 32 px of the image, in steps of 8."""
    return FlowNet(replace(SMALL, correlation=(8, 2)), out_channels, in_channels, correlated=True)
