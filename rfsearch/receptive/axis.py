"""Hold what every unit of a tensor sees on one axis of the image, and continue it beyond the tensor's borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]


Reach = npt.NDArray[np.float64]


Places = npt.NDArray[np.float64]


Index = npt.NDArray[np.int64]


_LONGEST_PERIOD = 64


ROUNDING = 1e-6


@dataclass(frozen=True)
class Axis:
    """Describe one axis of the image, as the units of a tensor see it.

    Attributes:
        reach: 3 x the tensor's dimensions, with size 1 along every dimension in which nothing changes. The three values
            of a unit are minus its first pixel, its last pixel (px; both -inf for a unit that sees none by itself), and
            1 if it sees the whole axis, else 0. The hull of units is therefore the maximum of all three.
        extent: Distance between neighbouring units, px, times the number of units (times 1 where there are none, so
            that an empty map keeps its scale).
        dim: Dimension of the tensor along which the axis runs, or None once it was summed or cut up.
        places: Number of each unit along the axis, where one dimension holds the units of several axes (tokens) or
            several hold those of one (windows): as many dimensions as the tensor, with size 1 along those in which
            nothing changes, and NaN for a unit that has no place. None if `dim` says it all.

    Example:
        >>> Field.of_image((1, 3, 4, 4)).axes[0].jump
        1.0
    """

    reach: Reach
    extent: float
    dim: int | None
    places: Places | None = None

    @property
    def jump(self) -> float:
        """Return distance between neighbouring units, px."""
        return self.extent if self.dim is None else self.extent / max(1, self.reach.shape[self.dim + 1])

    @property
    def units(self) -> int:
        """Return the number of places along the axis that the tensor keeps apart."""
        if self.places is not None:
            return self.places.size
        return 0 if self.dim is None else self.reach.shape[self.dim + 1]

    def extent_of(self, dim: int, units: int, stride: float) -> float:
        """Return the extent of a result with `units` units along `dim`, each `stride` units of this tensor apart."""
        return self.jump * stride * max(1, units) if dim == self.dim else self.extent

    def beyond(self, dim: int, index: Index) -> Reach:
        """Return the reach at places of a dimension, which may lie before its first unit and behind its last one.

        Args:
            dim: Dimension of the tensor.
            index: Places along it, an array of any shape.

        Returns:
            3 x ... x places ..., the dimensions of `index` replacing `dim`.
        """
        at, size = dim + 1, self.reach.shape[dim + 1]
        if not size:
            shape = (*self.reach.shape[:at], *index.shape, *self.reach.shape[at + 1 :])
            return np.broadcast_to(nothing_seen(len(shape) - 1), shape).copy()
        if dim != self.dim:
            return np.take(self.reach, index if size > 1 else index * 0, axis=at, mode="clip")
        inside, shift = self._continued(dim, index)
        reach = np.take(self.reach, inside, axis=at)
        shift = shift.reshape(index.shape + (1,) * (self.reach.ndim - at - 1))
        reach[0] -= shift
        reach[1] += shift
        return reach

    def at(self, dims: Sequence[int], places: Sequence[Index]) -> Reach:
        """Return the reach at places that are given in the last dimensions together.

        Places beyond the tensor are continued as in `beyond` along the axis' own dimension, and clipped along others.

        Args:
            dims: The last dimensions of the tensor.
            places: One array per dimension, all of the shape that replaces these dimensions.
        """
        inside: list[Index] = []
        shift = np.zeros(places[0].shape)
        for dim, index in zip(dims, places, strict=True):
            within = np.clip(index, 0, self.reach.shape[dim + 1] - 1)
            if dim == self.dim:
                within, shift = self._continued(dim, index)
            inside.append(within)
        selector: Any = (..., *inside)
        reach: Reach = self.reach[selector]
        reach[0] -= shift
        reach[1] += shift
        return reach

    def _continued(self, dim: int, index: Index) -> tuple[Index, Reach]:
        """Map places to units within the tensor whose fields repeat there, and return how far these are moved, px."""
        size = self.reach.shape[dim + 1]
        outside = (index < 0) | (index >= size)
        if not outside.any():
            return index, np.zeros(index.shape)
        period = self._period(dim + 1)
        steps = np.where(index < 0, index // period, np.maximum(0, (index - size) // period + 1))
        # a period longer than a short axis would land outside again
        return np.clip(index - steps * period, 0, size - 1), steps * period * self.jump

    def _period(self, at: int) -> int:
        """Return after how many units the fields repeat, moved on. It is 1 except behind a resampling."""
        size = self.reach.shape[at]
        reach = np.moveaxis(self.reach[:2], at, 1)
        for period in range(1, min(size // 2, _LONGEST_PERIOD) + 1):
            with np.errstate(invalid="ignore"):
                step = reach[:, period:] - reach[:, :-period]
            moved = period * self.jump
            close = np.abs(step - np.array([-moved, moved]).reshape(2, *[1] * (step.ndim - 1))) < ROUNDING
            if (close | np.isnan(step)).all():
                return period
        return 1


def nothing_seen(rank: int) -> Reach:
    """Return the reach of a unit that sees nothing, for a tensor of `rank` dimensions."""
    return np.array([-np.inf, -np.inf, 0.0]).reshape(3, *[1] * rank)


def varies_along(places: Places | None) -> list[int]:
    """Return the dimensions of a tensor along which the places of its units change."""
    return [] if places is None else [dim for dim, size in enumerate(places.shape) if size > 1]


def compact(reach: Reach, dim: int | None) -> Reach:
    """Reduce to size 1 every dimension in which nothing changes, except the axis' own."""
    for at in range(1, reach.ndim):
        if reach.shape[at] > 1 and at - 1 != dim:
            first = reach.take([0], axis=at)
            if (reach == first).all():
                reach = first
    return reach


def equal_reach(one: Reach, other: Reach) -> bool:
    """Compare two reaches, broadcast to one another, up to rounding."""
    with np.errstate(invalid="ignore"):
        return bool(((one == other) | (np.abs(one - other) < ROUNDING)).all())


def value_of_axis(value: int | Sequence[int], i: int) -> int:
    """Return the value of the i-th axis where an operator takes one number for all axes or one for each."""
    return value if isinstance(value, int) else value[i if len(value) > 1 else 0]
