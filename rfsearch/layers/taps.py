"""Place the taps of a kernel at a real dilation on an axis of a map.

See `rfsearch.layers.fractional_convolution` for the formula. Between two whole dilations each tap moves in a straight
line.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor

from rfsearch.errors import ModelError
from rfsearch.layers.one_call import Working

Pair = tuple[int, int]


# log delta is kept in single precision: a dilation that should be whole may miss it by this fraction.
_ROUNDING = 2.0**-21


@dataclass(frozen=True)
class Tap:
    """Describe one tap along an axis.

    d place / d delta is the lever of the rise that the place moves along: `after` for x(first + 1) - x(first), `before`
    for x(first) - x(first - 1). On a pixel both are half the lever, the mean of the two slopes.

    Attributes:
        first: The pixel at or before its place for output pixel 0.
        part: How far its place lies beyond that pixel, px, in [0, 1).
        after: Lever of the rise behind the pixel.
        before: Lever of the rise in front of it.

    Example:
        >>> Tap(3, 0.25, 1.0, 0.0).weights()
        [(3, 0.75), (4, 0.25)]
    """

    first: int
    part: float
    after: float
    before: float

    def weights(self, slopes: bool = False) -> list[tuple[int, float]]:
        """Return the whole pixels that are read, with their shares.

        Args:
            slopes: Whether to add the pixels that only the slope reads, at share 0.
        """
        read = {self.first: 1 - self.part} | ({self.first + 1: self.part} if self.part else {})
        return list(({pixel: 0.0 for pixel, _ in self.slopes()} | read if slopes else read).items())

    def slopes(self) -> list[tuple[int, float]]:
        """Return d shares / d delta, by pixel."""
        changes = [(self.first - 1, -self.before), (self.first, self.before - self.after), (self.first + 1, self.after)]
        return [(pixel, change) for pixel, change in changes if change]


@dataclass(frozen=True)
class TapAxis(Working):
    """Describe one axis of a map, with a kernel's taps on it.

    Attributes:
        size: Size of the map, px.
        stride: Distance between neighbouring outputs, px.
        count: Number of outputs.
        taps: The taps.

    Example:
        >>> axis = Frame.of(9, 3, 1, "same", 1).axis(1.5)
        >>> axis.low, axis.high
        (3, 2)
    """

    size: int
    stride: int
    count: int
    taps: tuple[Tap, ...]

    @property
    def work(self) -> Hashable:
        """Return what the cost of a pass depends on: which pixels are read, not their shares."""
        taps = tuple([(tap.first, tap.part == 0, tap.after == 0, tap.before == 0) for tap in self.taps])
        return self.size, self.stride, self.count, taps

    @property
    def span(self) -> int:
        """Return the number of pixels from the first to the last output."""
        return (self.count - 1) * self.stride

    @property
    def low(self) -> int:
        """Return the number of zeros that taps may read in front of the map."""
        return max(0, 1 - min(tap.first for tap in self.taps))

    @property
    def high(self) -> int:
        """Return the number of zeros that taps may read behind the map."""
        return max(0, max(tap.first for tap in self.taps) + self.span + 2 - self.size)

    def read(self, source: Tensor, dim: int, pixel: int, start: int = 0, count: int | None = None) -> Tensor:
        """Return what outputs `start` ... read `pixel` px from their own place.

        Args:
            source: The map, padded by `low` and `high` along `dim`.
            dim: Dimension of the axis.
            pixel: Distance from an output's place, px.
            start: First output.
            count: Number of outputs. Default: all.
        """
        count = self.count if count is None else count
        begin = self.low + pixel + start * self.stride
        index = [slice(None)] * source.dim()
        index[dim] = slice(begin, begin + (count - 1) * self.stride + 1, self.stride)
        return source[tuple(index)]

    def inside(self, source: Tensor, dim: int) -> Tensor:
        """View a padded map without its padding along `dim`."""
        return source.narrow(dim, self.low, self.size)


def _place(n: int, j: int, k: int) -> int:
    """Return t_j at a whole dilation n, without the offset."""
    return n * j - n * (k - 1) // 2


def _taps(k: int, delta: float, offset: int) -> Iterator[Tap]:
    n = math.floor(delta)
    for j in range(k):
        ahead = _place(n + 1, j, k) - _place(n, j, k)
        behind = ahead if delta > n else _place(n, j, k) - _place(n - 1, j, k)
        place = _place(n, j, k) + (delta - n) * ahead
        place = snapped(place)
        first = math.floor(place)
        if place > first:
            yield Tap(first + offset, place - first, float(ahead), 0.0)
        else:
            after, before = max(ahead, 0) + min(behind, 0), min(ahead, 0) + max(behind, 0)
            yield Tap(first + offset, 0.0, after / 2, before / 2)


@dataclass(frozen=True)
class Frame:
    """Describe how a kernel lies on one axis of a map, whatever its dilation.

    Attributes:
        size: Size of the map, px.
        taps: Number of taps, k.
        stride: Distance between neighbouring outputs, px.
        count: Number of outputs.
        offset: Place of the kernel's centre for output pixel 0, px.

    Example:
        >>> Frame.of(9, 3, 1, "same", 1).places(1.5)
        [-1.5, 0.0, 1.5]
    """

    size: int
    taps: int
    stride: int
    count: int
    offset: int

    @staticmethod
    def of(size: int, k: int, stride: int, padding: int | str, padded_for: int) -> Frame:
        """Lay a kernel on an axis as a convolution at a whole dilation does.

        Args:
            size: Size of the map, px.
            k: Number of taps.
            stride: Distance between neighbouring outputs, px.
            padding: Padding at the dilation `padded_for`, px on either side, or "same" or "valid".
            padded_for: The whole dilation that the padding is meant for, px.

        Raises:
            ModelError: The kernel is larger than its padded map.
        """
        extent, before = padded_for * (k - 1), padded_for * (k - 1) // 2
        if isinstance(padding, str):
            low, high = (before, extent - before) if padding == "same" else (0, 0)
        else:
            low = high = padding
        count = (size + low + high - extent - 1) // stride + 1
        if count < 1:
            raise ModelError(
                f"A kernel of {k} taps at dilation {padded_for} spans {extent + 1} px, its padded map is "
                f"{size + low + high} px: no output is left. Pad more."
            )
        return Frame(size, k, stride, count, before - low)

    def axis(self, delta: float) -> TapAxis:
        """Place the taps at a dilation. A tap that reads beyond the map is moved no farther than just beyond it."""
        nearest_out, furthest_out = -(self.count - 1) * self.stride - 2, self.size + 1
        taps = []
        for tap in _taps(self.taps, delta, self.offset):
            first = min(max(tap.first, nearest_out), furthest_out)
            taps.append(Tap(first, tap.part, tap.after, tap.before))
        return TapAxis(self.size, self.stride, self.count, tuple(taps))

    def places(self, delta: float) -> list[float]:
        """Return where output pixel 0 reads its taps at a dilation, px of the map."""
        return [tap.first + tap.part for tap in _taps(self.taps, delta, self.offset)]

    def reach(self, delta: float, slopes: bool) -> Pair:
        """Return how many pixels in front of the map and behind it the taps read.

        Args:
            delta: Dilation, px.
            slopes: Whether to count pixels that only the gradient in delta reads.
        """
        places = [place for tap in _taps(self.taps, delta, self.offset) for place, _ in tap.weights(slopes)]
        return max(0, -min(places)), max(0, max(places) + (self.count - 1) * self.stride - self.size + 1)

    def padded(self, low: int, high: int) -> Frame:
        """Return the frame on a map that was continued by `low` and `high` px."""
        return Frame(self.size + low + high, self.taps, self.stride, self.count, self.offset + low)

    def pad(self, n: int) -> Pair:
        """Return what a convolution at the whole dilation n pads in front and behind, negative to leave out pixels."""
        low = -(_place(n, 0, self.taps) + self.offset)
        return low, (self.count - 1) * self.stride + n * (self.taps - 1) - low - self.size + 1


def snapped(number: float) -> float:
    """Return a number, put back onto a whole one if it misses that by rounding only."""
    whole = round(number)
    return float(whole) if abs(number - whole) <= _ROUNDING * abs(number) else float(number)
