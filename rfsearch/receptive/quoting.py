"""Quote the receptive field of a map's units to users: one size and one window per unit on each axis of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rfsearch.receptive.axis import ROUNDING, Axis, Shape
from rfsearch.receptive.field import Field

_DIGITS = 6  # of an offset in px; what is beyond is rounding, as ROUNDING says


@dataclass(frozen=True)
class AxisField:
    """Quote the receptive field on one axis of the image.

    Attributes:
        local_px: Extent of what a unit reads by itself, px. It is a real number behind an inflation, and 0 for a unit
            that reads nothing but the whole axis.
        jump: Distance between neighbouring units, px.
        offset: Distance of the first unit's centre from the centre of the image's first pixel, px.
        whole: Whether a unit also sees the whole axis, through pooling or attention.
        image_px: Extent of the image, px.
        windows: Units x 2: the first and the last pixel that each unit along the axis reads, outside the image where it
            reaches into padding; NaN for a unit that reads none. Tokens have one window for each row or column of
            their grid.

    Example:
        >>> receptive_field(torch.nn.Conv2d(3, 8, 5), (1, 3, 32, 32)).axes[0].local_px
        5.0
    """

    local_px: float
    jump: float
    offset: float
    whole: bool
    image_px: int
    windows: npt.NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def px(self) -> float:
        """Return what a unit sees, px: the image's extent, or more where padding counts, if it sees the whole axis."""
        return max(self.local_px, float(self.image_px)) if self.whole else self.local_px


@dataclass(frozen=True)
class ReceptiveField:
    """Quote the theoretical receptive field of the units of a map, for each axis of the image.

    Fields of units may differ, behind a resampling. The largest in the middle half of each axis is quoted.

    Attributes:
        axes: One `AxisField` for each axis of the image.

    Example:
        >>> receptive_field(torch.nn.Conv2d(3, 8, 5), (1, 3, 32, 32)).px
        5
    """

    axes: tuple[AxisField, ...]

    @property
    def px(self) -> int:
        """Return the longest axis in whole pixels, half rounded up."""
        return math.floor(max(axis.px for axis in self.axes) + 0.5)

    @property
    def local_px(self) -> int:
        """Return what units read by themselves, without global pooling and attention: the longest axis, whole px."""
        return math.floor(max(axis.local_px for axis in self.axes) + 0.5)

    @property
    def whole(self) -> bool:
        """Return whether a unit sees the whole image on some axis."""
        return any(axis.whole for axis in self.axes)

    @property
    def height_px(self) -> float:
        """Return extent on the last axis but one, px."""
        return self.axes[-2].px

    @property
    def width_px(self) -> float:
        """Return extent on the last axis, px."""
        return self.axes[-1].px

    @property
    def jump_h(self) -> float:
        """Return distance between neighbouring units on the last axis but one, px."""
        return self.axes[-2].jump

    @property
    def jump_w(self) -> float:
        """Return distance between neighbouring units on the last axis, px."""
        return self.axes[-1].jump


def quote(field_of_units: Field, image: Shape) -> ReceptiveField:
    """Quote the field of a tensor's units on an image of shape `image`, B x C x its axes.

    Of tokens, those that read no pixel by themselves, such as a class token, are left out.
    """
    tokens, axes = len(field_of_units.shape) < len(image), field_of_units.axes
    dims = [axis.dim for axis in axes]
    # An axis with a dimension to itself has that dimension's units, even if channels hold finer ones (pixel unshuffle).
    shown = [axis if dims.count(axis.dim) > 1 else Axis(axis.reach, axis.extent, axis.dim) for axis in axes]
    return ReceptiveField(tuple(_quote_axis(axis, tokens, size) for axis, size in zip(shown, image[2:], strict=True)))


def _windows(axis: Axis) -> tuple[npt.NDArray[np.float64], float]:
    """Return what each unit along an axis reads, channels and all other dimensions together, and the units' jump."""
    if axis.places is None:
        others = tuple(i for i in range(1, axis.reach.ndim) if axis.dim is None or i != axis.dim + 1)
        reach, jump = axis.reach[:2].max(axis=others, initial=-np.inf).reshape(2, -1), axis.jump
    else:
        shape = np.broadcast_shapes(axis.places.shape, axis.reach.shape[1:])
        places, each = np.broadcast_to(axis.places, shape), np.broadcast_to(axis.reach[:2], (2, *shape))
        placed = ~np.isnan(places)
        numbers, unit = np.unique(places[placed], return_inverse=True)
        reach = np.full((2, len(numbers)), -np.inf)
        jump = float(axis.extent * placed.sum() / (placed.size * max(1, len(numbers))))
        jump = round(jump) if abs(jump - round(jump)) < ROUNDING else jump
        for end, of_units in zip(reach, each, strict=True):
            np.maximum.at(end, unit, of_units[placed])
    windows = np.stack([-reach[0], reach[1]], axis=1)
    windows[~np.isfinite(windows)] = np.nan
    return windows, jump


def _quote_axis(axis: Axis, tokens: bool, image_px: int) -> AxisField:
    """Quote one axis: of its units the middle half."""
    windows, jump = _windows(axis)
    sees = ~np.isnan(windows[:, 0])
    if tokens and sees.any():
        windows = windows[sees]
    units = len(windows)
    middle = slice(units // 4, max(units // 4 + 1, units - units // 4))
    if np.isnan(windows[middle]).all():
        middle = slice(0, units)
    sees = windows[middle][~np.isnan(windows[middle, 0])]
    local = float((sees[:, 1] - sees[:, 0]).max() + 1) if len(sees) else 0.0
    places = np.arange(units)[middle][~np.isnan(windows[middle, 0])]
    offset = float((sees.mean(axis=1) - places * jump).mean()) if len(sees) else (image_px - 1) / 2
    offset = round(offset, _DIGITS) + 0.0  # 0 where rounding had left next to nothing of either sign
    return AxisField(local, abs(jump), offset, bool((axis.reach[2] > 0).any()), image_px, windows)
