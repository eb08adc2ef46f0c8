"""Place the sampled regions of an LS-DFN block on an axis of a map, read maps there, and take gradients back."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rfsearch.layers.one_call import Working

# gamma is kept in single precision: an offset that should be whole may miss it by this fraction.
_ROUNDING = 2.0**-22


@dataclass(frozen=True)
class RegionPlace:
    """Describe where one of s samples reads along an axis that was padded with zeros.

    Attributes:
        first: The pixel at or before the place that the axis' pixel 0 samples.
        part: How far the place lies beyond that pixel, px, in [0, 1).
        lever: d place / d gamma.
    """

    first: int
    part: float
    lever: float


@dataclass(frozen=True)
class RegionAxis(Working):
    """Describe one axis of a map and the s places that are sampled along it.

    Attributes:
        size: Size of the map, px.
        pad: Zeros on either side, px.
        places: The sampled places.

    Example:
        >>> [place.first for place in RegionAxis.of(6, 3, 2.0, 1).places]
        [1, 3, 5]
    """

    size: int
    pad: int
    places: tuple[RegionPlace, ...]

    @staticmethod
    def of(size: int, s: int, gamma: float, reach: int) -> RegionAxis:
        """Place s samples gamma apart.

        Args:
            size: Size of the map, px.
            s: Number of samples.
            gamma: Sample stride, px.
            reach: Taps on either side of a place, (k-1)/2, px. An offset beyond the map and this reach reads zeros,
                however large it is.
        """
        return RegionAxis(size, *places_of(s, gamma, size + reach + 1))

    @property
    def work(self) -> Hashable:
        """Return what the cost of a pass depends on: the sizes, and which places lie between pixels."""
        return self.size, self.pad, tuple([(place.first, place.part == 0) for place in self.places])

    @property
    def whole(self) -> bool:
        """Return whether all places lie on pixels."""
        return not any(place.part for place in self.places)

    @property
    def adjacent(self) -> bool:
        """Return whether neighbouring places lie one pixel apart."""
        return self.whole and all(after.first - before.first == 1 for before, after in pairwise(self.places))


def places_of(s: int, gamma: float, furthest: float = math.inf) -> tuple[int, tuple[RegionPlace, ...]]:
    """Place s samples gamma apart on an axis.

    Args:
        s: Number of samples.
        gamma: Sample stride, px.
        furthest: Largest offset, px.

    Returns:
        The zeros that the axis needs on either side, px, and the places.
    """
    levers = [a - (s - 1) / 2 for a in range(s)]
    offsets = [max(-furthest, min(furthest, _snapped(gamma * lever))) for lever in levers]
    pad = math.ceil(offsets[-1]) + 1
    return pad, tuple(
        RegionPlace(pad + math.floor(offset), offset - math.floor(offset), lever)
        for offset, lever in zip(offsets, levers, strict=True)
    )


def blend(source: Tensor, dim: int, place: RegionPlace, start: int, length: int, out: Tensor | None = None) -> Tensor:
    """Read `length` pixels from `start` on at a place, bilinearly along `dim`. Returns a view if no blend is needed."""
    before = source.narrow(dim, place.first + start, length)
    if place.part:
        after = source.narrow(dim, place.first + start + 1, length)
        return torch.lerp(before, after, place.part) if out is None else torch.lerp(before, after, place.part, out=out)
    return before if out is None else out.copy_(before)


def spread_back(target: Tensor, dim: int, place: RegionPlace, start: int, grad: Tensor) -> None:
    """Apply the transpose of `blend`: add what was read back to where it came from."""
    length = grad.shape[dim]
    target.narrow(dim, place.first + start, length).add_(grad, alpha=1 - place.part)
    if place.part:
        target.narrow(dim, place.first + start + 1, length).add_(grad, alpha=place.part)


class GammaSlope:
    """Compute the part of dL/dgamma that comes from reading a map along one axis, given dL/d `blend`.

    Args:
        source: The map that was read, padded.
        dim: Dimension along which it was read.
        start: First pixel that was read, px.

    Example:
        >>> slope = GammaSlope(source, -1)
        >>> grad_gamma = slope(place, grad)
    """

    def __init__(self, source: Tensor, dim: int, start: int = 0) -> None:
        self._source, self._dim, self._start = source, dim, start
        self._rises: dict[int, Tensor] = {}

    def __call__(self, place: RegionPlace, grad: Tensor) -> Tensor:
        """Return the slope at a place; on a pixel, the mean of the slopes on both sides."""
        gap = 1 if place.part else 2
        if gap not in self._rises:
            rest = self._source.shape[self._dim] - gap
            self._rises[gap] = self._source.narrow(self._dim, gap, rest) - self._source.narrow(self._dim, 0, rest)
        rise = self._rises[gap].narrow(self._dim, place.first + self._start - (gap - 1), grad.shape[self._dim])
        return (grad * rise).sum() * (place.lever / gap)


def padded(planes: Tensor, axes: list[RegionAxis]) -> Tensor:
    """Surround maps ... x H x W by zeros."""
    (height, top), (width, left) = ((axis.size, axis.pad) for axis in axes)
    larger = planes.new_zeros(*planes.shape[:-2], height + 2 * top, width + 2 * left)
    inside(larger, axes).copy_(planes)
    return larger


def inside(larger: Tensor, axes: list[RegionAxis]) -> Tensor:
    """View padded maps without their padding."""
    rows, columns = axes
    return larger.narrow(-2, rows.pad, rows.size).narrow(-1, columns.pad, columns.size)


def padded_pixels(x: Tensor, axes: list[RegionAxis]) -> Tensor:
    """Copy B x C x H x W to B x H' x W' x C, surrounded by zeros."""
    rows, columns = axes
    pixels = x.new_zeros(x.shape[0], rows.size + 2 * rows.pad, columns.size + 2 * columns.pad, x.shape[1])
    inside(pixels.permute(0, 3, 1, 2), axes).copy_(x)
    return pixels


def _snapped(offset: float) -> float:
    """Return an offset, put back onto a whole pixel if it misses that by rounding only."""
    whole = round(offset)
    return float(whole) if abs(offset - whole) <= _ROUNDING * abs(offset) else offset
