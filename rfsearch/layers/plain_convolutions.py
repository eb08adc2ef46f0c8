"""Write a convolution at a real dilation as plain convolutions, which any runtime that a network is exported to has.

See `rfsearch.layers.fractional_convolution` for the formula. There are three ways:

- "one": the taps' weights are spread bilinearly onto the whole pixels around their places: a larger kernel.
- "four": kernels of at most three taps per axis are the sum of convolutions with the same weights at the whole
  dilations on either side. With n = floor(delta) and a = delta - n these are at most four, at shares (1-a)(1-a),
  (1-a)a, a(1-a) and aa.
- "read": the map is read at every tap, rows and then columns, as weighted sums of parts of it; a 1 x 1 convolution
  with the layer's own weights follows.

The first two multiply more, the last moves more. The one that takes the least time is made. None depends on the size
of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise, product
from operator import add
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rfsearch.layers.taps import Frame, Pair

Way = Literal["auto", "one", "four", "read"]

# With at most this many taps each moves by at most 1 px between two whole dilations, as bilinear reading needs.
_MOST_TAPS = 3
_ANY_SIZE = 2**30  # px: how a kernel lies on a map does not depend on the map's size
# What reading a map costs for each tap, in multiplications of its values (ONNX Runtime and OpenVINO on a CPU).
_READING = 100.0


@dataclass(frozen=True, eq=False)
class Convolved:
    """Describe one plain convolution.

    Attributes:
        weight: O x C/groups x k_h x k_w.
        pads: Left, right, top and bottom padding, px, as for F.pad. Negative where pixels are left out.
        dilation: Whole dilation of both axes, px.
        stride: Distance between outputs, px.
        groups: As for `nn.Conv2d`.
    """

    weight: Tensor
    pads: tuple[int, int, int, int]
    dilation: Pair
    stride: Pair
    groups: int

    def __call__(self, x: Tensor, bias: Tensor | None = None, padding_mode: str = "zeros") -> Tensor:
        """Convolve B x C x H x W."""
        left, right, top, bottom = self.pads
        if padding_mode == "zeros" and left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, self.weight, bias, self.stride, (top, left), self.dilation, self.groups)
        x = _padded(x, self.pads, padding_mode)
        return F.conv2d(x, self.weight, bias, self.stride, 0, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class PlainForm:
    """Hold the plain convolutions that make up one at a real dilation.

    Attributes:
        way: Which of the ways it is.
        summed: Convolutions whose outputs are added.
        padding_mode: As for `nn.Conv2d`.
        read: How the map is read in front of them, along rows and along columns; empty if they read it themselves.
    """

    way: Way
    summed: Sequence[Convolved]
    padding_mode: str = "zeros"
    read: Sequence[Spread] = ()

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve B x C x H x W to B x O x H_out x W_out, of any size."""
        if self.read:
            rows, columns = self.read
            maps = rows.read(x, -2, self.padding_mode)
            maps = [part for each in maps for part in columns.read(each, -1, self.padding_mode)]
            x = torch.stack(maps, dim=2).flatten(1, 2)
        first, *rest = self.summed
        total = first(x, bias, self.padding_mode)
        for part in rest:
            total = total + part(x, None, self.padding_mode)
        return total


@dataclass(frozen=True, eq=False)
class Spread:
    """Describe which whole pixels the taps of one axis read.

    Attributes:
        shares: Of every tap in every pixel of the kernel's span, taps x cells.
        pads: Padding in front and behind, px; negative where pixels are left out.
        stride: Distance between outputs, px.
    """

    shares: Sequence[Sequence[float]]
    pads: Pair
    stride: int

    def read(self, x: Tensor, dim: int, padding_mode: str) -> list[Tensor]:
        """Return what each tap reads along one of the last two dimensions of a map."""
        pads = [0, 0, *self.pads] if dim == -2 else [*self.pads, 0, 0]
        x = _padded(x, pads, padding_mode)
        found = []
        for shares in self.shares:
            parts = []
            for cell, share in enumerate(shares):
                if share:
                    whole = slice(cell, cell + 1 - len(shares) or None, self.stride)
                    part = x[..., whole, :] if dim == -2 else x[..., whole]
                    parts.append(part if share == 1 else part * share)
            found.append(reduce(add, parts))
        return found


def _padded(x: Tensor, pads: Sequence[int], padding_mode: str) -> Tensor:
    """Pad a map, and leave out pixels where a padding is negative."""
    if max(pads) > 0:
        x = F.pad(x, [max(0, pad) for pad in pads], "constant" if padding_mode == "zeros" else padding_mode)
    return F.pad(x, [min(0, pad) for pad in pads]) if min(pads) < 0 else x


def plain_form(
    weight: Tensor,
    values: Sequence[float],
    stride: Pair,
    paddings: Sequence[str | int],
    padded_for: Pair,
    groups: int = 1,
    padding_mode: str = "zeros",
    way: Way = "auto",
) -> PlainForm:
    """Return the plain convolutions that are one at a real dilation, on maps of any size.

    Args:
        weight: O x C/groups x k_h x k_w.
        values: Dilation of both axes, px.
        stride: As for `nn.Conv2d`.
        paddings: Of both axes, px or "same" or "valid", meant for the whole dilation `padded_for`.
        padded_for: The whole dilation that the padding is meant for, px.
        groups: As for `nn.Conv2d`.
        padding_mode: As for `nn.Conv2d`.
        way: "auto" for the fastest that there is.
    """
    frames = [_frame(weight.shape[2 + a], stride[a], paddings[a], padded_for[a]) for a in range(2)]
    rows, columns = spread = [_spread(frame, value) for frame, value in zip(frames, values, strict=True)]
    costs = _costs(weight, frames, values, [len(each.shares[0]) for each in spread], groups)
    if way == "auto":
        way = min(costs, key=lambda name: costs[name])
    if way == "one":
        down, across = (torch.tensor(each.shares).to(weight) for each in spread)
        dense = torch.einsum("ay,ocab,bx->ocyx", down, weight, across)
        return PlainForm(way, [Convolved(dense, (*columns.pads, *rows.pads), (1, 1), stride, groups)], padding_mode)
    if way == "four":
        beside = [_beside(frame, value) for frame, value in zip(frames, values, strict=True)]
        parts = [
            Convolved(weight * (row.share * column.share), (*column.pads, *row.pads), (row.n, column.n), stride, groups)
            for row, column in product(*beside)
        ]
        return PlainForm(way, parts, padding_mode)
    mixed = Convolved(weight.flatten(1)[..., None, None], (0, 0, 0, 0), (1, 1), (1, 1), groups)
    return PlainForm(way, [mixed], padding_mode, spread)


def _costs(
    weight: Tensor,
    frames: Sequence[Frame],
    values: Sequence[float],
    cells: Sequence[int],
    groups: int,
) -> dict[Way, float]:
    """Return the ways that there are, each with its cost: multiplications for one value of the map."""
    taps, outputs = weight.shape[2] * weight.shape[3], weight.shape[0] / groups
    costs: dict[Way, float] = {"one": math.prod(cells) * outputs, "read": taps * (outputs + _READING)}
    if max(frame.taps for frame in frames) <= _MOST_TAPS and min(values) >= 1:
        costs["four"] = math.prod(1 if value.is_integer() else 2 for value in values) * taps * outputs
    return costs


@dataclass(frozen=True)
class _Beside:
    """Describe one axis at a whole dilation n: its share of the sum, and what it pads in front and behind, px."""

    n: int
    share: float
    pads: Pair


def _beside(frame: Frame, value: float) -> list[_Beside]:
    """Return the whole dilations on either side of a real one; only itself for a whole one."""
    n, part = math.floor(value), value - math.floor(value)
    found = [_Beside(n, 1 - part, frame.pad(n))]
    return [*found, replace(found[0], n=n + 1, share=part, pads=frame.pad(n + 1))] if part else found


def _frame(taps: int, stride: int, padding: str | int, padded_for: int) -> Frame:
    """Lay a kernel on a map of a size at which the last output needs every padded pixel: so it does on all others."""
    frames = [Frame.of(_ANY_SIZE + more, taps, stride, padding, padded_for) for more in range(stride + 1)]
    return next(after for before, after in pairwise(frames) if after.count > before.count)


def _spread(frame: Frame, value: float) -> Spread:
    """Spread the taps of one axis bilinearly onto whole pixels."""
    taps = frame.axis(value).taps
    places = [place for tap in taps for place, _ in tap.weights()]
    low, cells = min(places), max(places) - min(places) + 1
    shares = [[0.0] * cells for _ in taps]
    for row, tap in zip(shares, taps, strict=True):
        for place, share in tap.weights():
            row[place - low] += share
    pads = -low, low + cells + (frame.count - 1) * frame.stride - frame.size
    return Spread(shares, pads, frame.stride)
