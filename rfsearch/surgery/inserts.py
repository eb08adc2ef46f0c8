"""What `build` puts into a model in the place of a site's convolution. Each keeps the size of the site's output."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from rfsearch.copies import copy_module
from rfsearch.errors import SpaceError
from rfsearch.layers import LSDFN, Inflation, InflationFactor, Interpolation, WeightedGradient
from rfsearch.surgery.dilation import Convolution, is_plain, output_size, owns_weight, pads_of, set_dilation
from rfsearch.surgery.shapes import output_shape


class InflatedSite(nn.Module):
    """Put a convolution or span between an inflation and the interpolation that undoes it.

    Input and output keep their sizes: B x C x H x W, or of one or three axes, to what the bare `conv` gives for it. For
    a model that does not bring an inflation layer of its own, as the parsing networks of Wei do.

    Args:
        conv: A convolution, or any module that maps one map to one.
        factor: The inflation factor.
    """

    def __init__(self, conv: nn.Module, factor: InflationFactor) -> None:
        super().__init__()
        self.inflation = Inflation(factor)
        if isinstance(conv, Convolution) and is_plain(conv):
            self.inflation.padding = "replicate" if conv.padding_mode == "replicate" else "zeros"
            self.inflation.windows = tuple(zip(_lost(conv), conv.stride, strict=True))
        self.conv = conv
        self.interpolation = Interpolation(factor, stride=1)
        self._sizes: dict[tuple[object, ...], tuple[int, ...]] = {}

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.interpolation(self.conv(self.inflation(x)), self._plain_size(x))
        return result

    def _plain_size(self, x: Tensor) -> tuple[int, ...]:
        """The size of the output without inflation, px; that of a span is found once for each size of its input."""
        conv = self.conv
        if isinstance(conv, Convolution) and is_plain(conv):
            return output_size(conv, x.shape[2:])
        dilations = [part.dilation for part in conv.modules() if isinstance(part, Convolution)]
        key = (*x.shape[1:], *dilations)  # where nothing is padded, a dilation changes the size too
        if key not in self._sizes:
            self._sizes[key] = output_shape(conv, (1, *x.shape[1:]))[2:]
        return self._sizes[key]


class ParallelSite(nn.Module):
    """Put a convolution or span into several parallel paths, whose outputs are averaged.

    They are initialised alike, so that at first they give what the one gave: B x C x H x W to B x C' x H' x W', or of
    one or three axes, as the bare `conv` gives. Behind each path stands its loss guidance. For a model that cannot fork
    itself behind a site, as the parsing networks of Wei do.

    Args:
        conv: A convolution, or any module that maps one map to one.
        count: Number of paths.
    """

    def __init__(self, conv: nn.Module, count: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList([conv, *(copy_module(conv) for _ in range(count - 1))])
        self.guidance = nn.ModuleList(WeightedGradient() for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        outputs = [guidance(path(x)) for path, guidance in zip(self.paths, self.guidance, strict=True)]
        result: Tensor = reduce(add, outputs) / len(outputs)
        return result


class SampledSite(nn.Module):
    """An LS-DFN block behind a convolution, concatenated to its output and projected back to its channels.

    B x C x H x W to B x C' x H' x W', as the bare convolution gives; the projection starts as the convolution's output
    alone, so that trained weights keep what they do. The block multiplies maps by kernels made of the same maps, which
    diverges at the rates that convolutions take: it stands between two batch normalisations.
    """

    def __init__(self, conv: nn.Conv2d, block: LSDFN) -> None:
        super().__init__()
        self.conv = conv
        self.before = nn.BatchNorm2d(conv.out_channels)
        self.block = block
        self.after = nn.BatchNorm2d(block.out_channels)
        channels = conv.out_channels
        self.project = nn.Conv2d(channels + block.out_channels, channels, 1, bias=False)
        with torch.no_grad():
            self.project.weight.zero_()
            self.project.weight[:, :channels, 0, 0] = torch.eye(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        result: Tensor = self.project(torch.cat([x, self.after(self.block(self.before(x)))], dim=1))
        return result


class SplitSite(nn.Module):
    """A convolution whose last output channels have another dilation: whole numbers in the place of a real one between.

    Maps of any axes to what the bare `conv` gives for them, whose weights it takes: the last `channels` output channels
    at `dilation` px between taps, the others at the convolution's own. Raises SpaceError for a convolution that cannot
    be taken apart so: with groups, with a forward pass of its own, or with maps of two sizes from two dilations.
    """

    def __init__(self, conv: nn.Module, dilation: int, channels: int) -> None:
        super().__init__()
        if not isinstance(conv, Convolution) or not is_plain(conv) or conv.groups > 1 or not owns_weight(conv):
            raise SpaceError(
                "Only a plain convolution of one group, whose weight is its own, can be split between two dilations. "
                f"Got {conv}."
            )
        if not 0 < channels < conv.out_channels:
            raise SpaceError(
                f"A split leaves output channels on both sides: 1 to {conv.out_channels - 1}. Got {channels=}."
            )
        near = conv.out_channels - channels
        self.near = _some_channels(conv, slice(0, near))
        self.far = _some_channels(conv, slice(near, None))
        set_dilation(self.far, dilation)
        if _lost(self.near) != _lost(self.far):
            raise SpaceError(
                "A convolution that does not pad gives maps of two sizes at two dilations: it cannot be split."
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.near(x), self.far(x)], dim=1)


def _some_channels(conv: Convolution, which: slice) -> Convolution:
    """A copy of a convolution with some of its output channels."""
    part = copy_module(conv)
    for name in ("weight", "bias"):
        whole = getattr(conv, name)
        if whole is not None:
            setattr(part, name, nn.Parameter(whole.detach()[which].clone(), whole.requires_grad))
    part.out_channels = part.weight.shape[0]
    return part


def _lost(conv: Convolution) -> tuple[int, ...]:
    """By how much its kernel's span exceeds its padding, px an axis."""
    pads = pads_of(conv)
    axes = zip(conv.dilation, conv.kernel_size, pads[-2::-2], pads[-1::-2], strict=True)
    return tuple(d * (k - 1) - before - after for d, k, before, after in axes)
