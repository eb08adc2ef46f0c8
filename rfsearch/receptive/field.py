"""What every unit of a tensor sees of the image: one interval an image axis, followed unit by unit.

A unit's field on an axis runs from the centre of the first pixel it depends on to that of the last one, in px of the
image, as if the image went on for ever: padding counts. Where several units are read, the hull of their fields counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
Reach = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_LONGEST_PERIOD = 64
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Axis:
    """One axis of the image, as the units of a tensor see it.

    reach: 3 x the tensor's dimensions, of size 1 where nothing changes along one: minus the first pixel, the last
    pixel (px; both -inf for a unit that sees none by itself), and 1 for a unit that sees the whole axis. The hull of
    units is the maximum of all three. extent: px between neighbouring units times the number of units (times 1 where
    there are none, so that an empty map keeps its scale). dim: the dimension of the tensor along which the axis runs;
    None once it was summed or cut up.
    """

    reach: Reach
    extent: float
    dim: int | None

    @property
    def jump(self) -> float:
        """Px between neighbouring units."""
        return self.extent if self.dim is None else self.extent / max(1, self.reach.shape[self.dim + 1])

    def extent_of(self, dim: int, units: int, stride: float) -> float:
        """The extent of a result with that many units along `dim`, each `stride` units of this one apart."""
        return self.jump * stride * max(1, units) if dim == self.dim else self.extent

    def beyond(self, dim: int, index: Index) -> Reach:
        """The reach at places of a dimension, before its first and behind its last unit too: 3 x ... x places ...,
        where the places have the dimensions of `index`."""
        at, size = dim + 1, self.reach.shape[dim + 1]
        if not size:
            shape = (*self.reach.shape[:at], *index.shape, *self.reach.shape[at + 1 :])
            return np.broadcast_to(_nothing(len(shape) - 1), shape).copy()
        if dim != self.dim:
            return np.take(self.reach, index if size > 1 else index * 0, axis=at, mode="clip")
        inside, shift = self._continued(dim, index)
        reach = np.take(self.reach, inside, axis=at)
        shift = shift.reshape(index.shape + (1,) * (self.reach.ndim - at - 1))
        reach[0] -= shift
        reach[1] += shift
        return reach

    def at(self, dims: Sequence[int], places: Sequence[Index]) -> Reach:
        """The reach at places that are given in the last dimensions together, as `beyond` along the axis' own.

        dims: the last ones of the tensor. places: an array for each, all of one shape, which is that of the new last
        dimensions.
        """
        inside: list[Index] = []
        shift = np.zeros(places[0].shape)
        for dim, index in zip(dims, places, strict=True):
            within = np.clip(index, 0, self.reach.shape[dim + 1] - 1)
            if dim == self.dim:
                within, shift = self._continued(dim, index)
            inside.append(within)
        selector: Any = (..., *inside)
        reach = self.reach[selector]
        reach[0] -= shift
        reach[1] += shift
        return reach

    def _continued(self, dim: int, index: Index) -> tuple[Index, Reach]:
        """Places within the map whose fields repeat at places beyond it, and px by which these are moved."""
        size = self.reach.shape[dim + 1]
        outside = (index < 0) | (index >= size)
        if not outside.any():
            return index, np.zeros(index.shape)
        period = self._period(dim + 1)
        steps = np.where(index < 0, index // period, np.maximum(0, (index - size) // period + 1))
        # a period longer than what is left of a short axis would land outside again
        return np.clip(index - steps * period, 0, size - 1), steps * period * self.jump

    def _period(self, at: int) -> int:
        """After how many units the fields repeat, moved on: 1 but behind a resampling."""
        size = self.reach.shape[at]
        reach = np.moveaxis(self.reach[:2], at, 1)
        for period in range(1, min(size // 2, _LONGEST_PERIOD) + 1):
            with np.errstate(invalid="ignore"):
                step = reach[:, period:] - reach[:, :-period]
            moved = period * self.jump
            close = np.abs(step - np.array([-moved, moved]).reshape(2, *[1] * (step.ndim - 1))) < _ROUNDING
            if (close | np.isnan(step)).all():
                return period
        return 1


@dataclass(frozen=True)
class Field:
    """The field of every unit of one tensor. shape: of the tensor. axes: one for each axis of the image."""

    shape: Shape
    axes: tuple[Axis, ...]

    @staticmethod
    def of_image(shape: Shape) -> Field:
        """Of an image B x C x its axes: every pixel sees itself."""
        rank = len(shape)
        axes = []
        for dim in range(2, rank):
            pixels = np.arange(shape[dim], dtype=np.float64).reshape(-1, *[1] * (rank - dim - 1))
            pixels = pixels.reshape([1] * dim + [shape[dim]] + [1] * (rank - dim - 1))
            axes.append(Axis(np.stack([-pixels, pixels, np.zeros_like(pixels)]), float(shape[dim]), dim))
        return Field(shape, tuple(axes))

    def each(self, shape: Shape, change: Callable[[Axis], Axis]) -> Field:
        """Of a tensor of another shape: `change` of every axis."""
        return Field(shape, tuple(change(axis) for axis in self.axes))

    def unseeing(self, shape: Shape) -> Field:
        """Of a tensor of that shape that does not depend on the image."""
        return self.each(shape, lambda axis: Axis(_nothing(len(shape)), axis.extent, None))

    def read(self, dim: int, index: Index, valid: npt.NDArray[np.bool_] | None = None, stride: float = 1.0) -> Field:
        """Unit i along `dim` reads the units index[i, 0], index[i, 1] ...; where not `valid`, none.

        index: units x reads, also before the first and behind the last unit. stride: units of the input between
        neighbouring units of the result.
        """

        def read(axis: Axis) -> Axis:
            if axis.dim != dim and axis.reach.shape[dim + 1] == 1:
                return axis
            reach = axis.beyond(dim, index)
            if valid is not None:
                mask = valid.reshape(valid.shape + (1,) * (reach.ndim - dim - 3))
                reach = np.where(mask, reach, _nothing(reach.ndim - 1))
            return Axis(reach.max(axis=dim + 2), axis.extent_of(dim, len(index), stride), axis.dim)

        return self.each(self._resized(dim, len(index)), read)

    def sampled(self, dim: int, positions: npt.NDArray[np.float64], stride: float = 1.0) -> Field:
        """Unit i along `dim` stands at a real position, px of this map: between two units its field lies in between
        theirs. That both of them are read, where the position is no whole number, is not counted."""
        before = np.floor(positions + _ROUNDING).astype(np.int64)
        part = positions - before
        part[np.abs(part) < _ROUNDING] = 0.0

        def sample(axis: Axis) -> Axis:
            if axis.dim != dim and axis.reach.shape[dim + 1] == 1:
                return axis
            share = part.reshape(-1, *[1] * (axis.reach.ndim - dim - 2))
            low, high = axis.beyond(dim, before), axis.beyond(dim, before + 1)
            with np.errstate(invalid="ignore"):
                between = np.where(share > 0, (1 - share) * low + share * high, low)
            return Axis(between, axis.extent_of(dim, len(positions), stride), axis.dim)

        return self.each(self._resized(dim, len(positions)), sample)

    def window(self, dim: int, size: int, kernel: int, stride: float = 1, dilation: int = 1, padding: int = 0) -> Field:
        """Behind a kernel of `kernel` taps at `dilation`, moved by `stride`, along one dimension. size: of the result.
        padding: units in front."""
        return self.read(dim, window_index(size, kernel, stride, dilation, padding), stride=stride)

    def windowed(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] | None = None,
    ) -> Field:
        """Behind a kernel over all axes of a map B x C x its axes; padding: by default what keeps a map at stride 1."""
        field = self
        for i, dim in enumerate(range(2, len(self.shape))):
            k, s, d = (_of_axis(value, i) for value in (kernel, stride, dilation))
            before = (k - 1) * d // 2 if padding is None else _of_axis(padding, i)
            total = (k - 1) * d if padding is None else 2 * before
            field = field.window(dim, (self.shape[dim] + total - (k - 1) * d - 1) // s + 1, k, s, d, before)
        return field

    def unfolded(self, dim: int, size: int, step: int) -> Field:
        """Windows of `size` units every `step` along a dimension, the units of each in a new last dimension."""
        count = (self.shape[dim] - size) // step + 1
        return self.cut(dim, window_index(count, size, step, 1, 0), step)

    def cut(self, dim: int, index: Index, stride: float) -> Field:
        """As `read`, but what unit i along `dim` reads is not met: its reads stand in a new last dimension."""

        def cut(axis: Axis) -> Axis:
            reach = axis.reach[..., None]
            if axis.dim == dim or axis.reach.shape[dim + 1] > 1:
                reach = np.moveaxis(axis.beyond(dim, index), dim + 2, -1)
            return Axis(reach, axis.extent_of(dim, len(index), stride), axis.dim)

        return self.each((*self._resized(dim, len(index)), index.shape[1]), cut)

    def gathered(self, places: Sequence[Index], valid: npt.NDArray[np.bool_] | None = None) -> Field:
        """Units of the last dimensions at places given in all of them together; where not `valid`, none.

        places: an array for each of these dimensions, all of the shape that they get in the result.
        """
        kept = len(self.shape) - len(places)
        dims = range(kept, len(self.shape))
        sizes = places[0].shape

        def gather(axis: Axis) -> Axis:
            if axis.dim not in dims and all(axis.reach.shape[dim + 1] == 1 for dim in dims) and valid is None:
                reach = axis.reach.reshape(*axis.reach.shape[: kept + 1], *[1] * len(sizes))
                return Axis(reach, axis.extent, axis.dim)
            reach = axis.at(dims, places)
            if valid is not None:
                reach = np.where(valid, reach, _nothing(reach.ndim - 1))
            if axis.dim is None or axis.dim < kept:
                return Axis(_compact(reach, axis.dim), axis.extent, axis.dim)
            moved = [_mean_step(places[axis.dim - kept], along) for along in range(len(sizes))]
            along = int(np.argmax(np.abs(moved)))  # a turned map's axis runs along another dimension
            step = moved[along] or self.shape[axis.dim] / max(1, sizes[along])
            dim = kept + along
            extent = axis.jump * step * max(1, sizes[along])
            return Axis(_compact(reach, dim), extent, dim)

        return self.each((*self.shape[:kept], *sizes), gather)

    def accumulated(self, dim: int, backwards: bool = False) -> Field:
        """Each unit along a dimension reads all before it and itself; backwards: all behind it."""
        way = slice(None, None, -1 if backwards else 1)

        def accumulate(axis: Axis) -> Axis:
            reach = np.moveaxis(axis.reach, dim + 1, 0)
            reach = np.maximum.accumulate(reach[way], axis=0)[way]
            return Axis(np.moveaxis(reach, 0, dim + 1), axis.extent, axis.dim)

        return self.each(self.shape, accumulate)

    def mixed(self, dims: Sequence[int], keep: bool = True) -> Field:
        """Behind an operator that mixes all units along some dimensions. keep: leave these with size 1.

        Units that thereby see all that any unit saw see the whole axis, and nothing by themselves.
        """
        gone = sorted(dim % len(self.shape) for dim in dims)
        at = tuple(dim + 1 for dim in gone)

        def mix(axis: Axis) -> Axis:
            reach = axis.reach.max(axis=at, keepdims=True, initial=-np.inf)
            if any(axis.reach.shape[dim] > 1 for dim in at) and not _same(axis.reach[:2], reach[:2]):
                everything = axis.reach[:2].max(axis=tuple(range(1, axis.reach.ndim)), keepdims=True, initial=-np.inf)
                if axis.dim in gone or _same(reach[:2], everything):
                    reach = np.stack([np.full_like(reach[0], -np.inf)] * 2 + [np.ones_like(reach[0])])
            dim = axis.dim
            if not keep:
                reach = reach.squeeze(at)
                if dim is not None:
                    dim = None if dim in gone else dim - sum(other < dim for other in gone)
            return Axis(reach, axis.extent, dim)

        shape = tuple(1 if dim in gone else size for dim, size in enumerate(self.shape) if keep or dim not in gone)
        return self.each(shape, mix)

    def spread(self, shape: Shape) -> Field:
        """Broadcast to a shape, as `expand`."""
        grown = len(shape) - len(self.shape)

        def spread(axis: Axis) -> Axis:
            reach = axis.reach.reshape(3, *[1] * grown, *axis.reach.shape[1:])
            dim = None if axis.dim is None else axis.dim + grown
            if dim is not None and reach.shape[dim + 1] != shape[dim]:
                reach = np.repeat(reach, shape[dim], axis=dim + 1)
            return Axis(reach, axis.extent, dim)

        return self.each(shape, spread)

    def viewed(self, shape: Shape) -> Field:
        """The same units in the same order in another shape."""
        return self.each(shape, lambda axis: _viewed(axis, self.shape, shape))

    def permuted(self, order: Sequence[int]) -> Field:
        places = [dim % len(self.shape) for dim in order]

        def permute(axis: Axis) -> Axis:
            dim = None if axis.dim is None else places.index(axis.dim)
            return Axis(axis.reach.transpose(0, *(place + 1 for place in places)), axis.extent, dim)

        return self.each(tuple(self.shape[place] for place in places), permute)

    def whole(self) -> Field:
        """The same, with every unit seeing the whole image besides."""

        def see(axis: Axis) -> Axis:
            return Axis(np.stack([*axis.reach[:2], np.ones_like(axis.reach[2])]), axis.extent, axis.dim)

        return self.each(self.shape, see)

    def _resized(self, dim: int, size: int) -> Shape:
        return (*self.shape[:dim], size, *self.shape[dim + 1 :])


def hull(fields: Sequence[Field], shape: Shape) -> Field:
    """Where tensors meet element by element: the hull of their fields. The longest map gives jump and place."""

    def meet(axes: Sequence[Axis]) -> Axis:
        reach = axes[0].reach
        for axis in axes[1:]:
            reach = np.maximum(reach, axis.reach)
        sizes = [axis.reach.shape[axis.dim + 1] if axis.dim is not None else 0 for axis in axes]
        longest = axes[sizes.index(max(sizes))]
        return Axis(reach, longest.extent, longest.dim)

    aligned = [_aligned(field, len(shape)) for field in fields]
    return Field(shape, tuple(meet(axes) for axes in zip(*(field.axes for field in aligned), strict=True))).spread(
        shape
    )


def joined(fields: Sequence[Field], dim: int, shape: Shape) -> Field:
    """Tensors one behind the other along a dimension."""

    def join(axes: Sequence[Axis]) -> Axis:
        at = dim + 1
        apart = any(axis.dim == dim or axis.reach.shape[at] > 1 for axis in axes)
        if not apart and all(_same(axis.reach, axes[0].reach) for axis in axes):
            return axes[0]
        others = np.broadcast_shapes(*((*a.reach.shape[:at], 1, *a.reach.shape[at + 1 :]) for a in axes))
        parts = [
            np.broadcast_to(axis.reach, (*others[:at], field.shape[dim], *others[at + 1 :]))
            for axis, field in zip(axes, fields, strict=True)
        ]
        first = next((axis for axis in axes if axis.dim is not None), axes[0])
        extent = first.extent_of(dim, shape[dim], 1)
        return Axis(np.concatenate(parts, axis=at), extent, first.dim)

    return Field(shape, tuple(join(axes) for axes in zip(*(field.axes for field in fields), strict=True)))


def window_index(size: int, kernel: int, stride: float, dilation: int, padding: int) -> Index:
    """The units that each of `size` positions of a kernel reads: size x kernel."""
    return (np.arange(size)[:, None] * int(stride) - padding + np.arange(kernel)[None, :] * dilation).astype(np.int64)


def _nothing(rank: int) -> Reach:
    """The reach of a unit that sees nothing, for a tensor of that many dimensions."""
    return np.array([-np.inf, -np.inf, 0.0]).reshape(3, *[1] * rank)


def _mean_step(places: Index, along: int) -> float:
    """Units of the source between neighbouring units of the result along one of its dimensions."""
    return float(np.diff(places, axis=along).mean()) if places.shape[along] > 1 else 0.0


def _aligned(field: Field, rank: int) -> Field:
    grown = rank - len(field.shape)
    return field.spread((*[1] * grown, *field.shape)) if grown else field


def _same(one: Reach, other: Reach) -> bool:
    """Equal where broadcast to one another."""
    with np.errstate(invalid="ignore"):
        return bool(((one == other) | (np.abs(one - other) < _ROUNDING)).all())


def _viewed(axis: Axis, source: Shape, target: Shape) -> Axis:
    """Segment by segment: the shortest runs of dimensions, here and there, that hold equally many units."""
    if 0 in source:
        return Axis(np.broadcast_to(_nothing(len(target)), (3, *target)), axis.jump, None)
    sizes: list[int] = [3]
    full: list[int] = [3]
    dim = None
    for here, there in segments(source, target):
        changing = [axis.reach.shape[i + 1] > 1 or i == axis.dim for i in here]
        full += [source[i] if any(changing) else 1 for i in here]
        sizes += [target[j] if any(changing) else 1 for j in there]
        if axis.dim in here:
            before = math.prod(source[i] for i in here if i < axis.dim)
            for j in there:
                same = target[j] == source[axis.dim] and math.prod(target[i] for i in there if i < j) == before
                dim = j if same and (dim is None or target[j] > 1) else dim
    reach = _compact(np.broadcast_to(axis.reach, full).reshape(sizes), dim)
    return Axis(reach, axis.extent, _place(reach) if dim is None else dim)


def segments(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions of two shapes that hold equally many elements, in order."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        here: list[int] = []
        there: list[int] = []
        held = wanted = 1
        while True:
            if i < len(source) and (held < wanted or not here):
                here.append(i)
                held *= source[i]
                i += 1
            elif j < len(target) and (wanted < held or not there):
                there.append(j)
                wanted *= target[j]
                j += 1
            else:
                break
        while i < len(source) and source[i] == 1 and (j >= len(target) or target[j] != 1):
            here.append(i)
            i += 1
        while j < len(target) and target[j] == 1 and (i >= len(source) or source[i] != 1):
            there.append(j)
            j += 1
        found.append((here, there))
    return found


def _compact(reach: Reach, dim: int | None) -> Reach:
    """Size 1 along every dimension in which nothing changes, but for the axis' own."""
    for at in range(1, reach.ndim):
        if reach.shape[at] > 1 and at - 1 != dim:
            first = reach.take([0], axis=at)
            if (reach == first).all():
                reach = first
    return reach


def _place(reach: Reach) -> int | None:
    """Where an axis runs that was cut up and may be whole again: along the dimension in which fields move farthest."""
    with np.errstate(invalid="ignore"):
        centre = (reach[1] - reach[0]) / 2
    seen = np.isfinite(centre)
    best, farthest = None, 0.0
    for dim, size in enumerate(centre.shape):
        if size > 1:
            highest = np.where(seen, centre, -np.inf).max(axis=dim)
            steps = highest - np.where(seen, centre, np.inf).min(axis=dim)
            moved = steps[np.isfinite(steps)].max(initial=0.0)
            if moved > farthest:
                best, farthest = dim, moved
    return best


def _of_axis(value: int | Sequence[int], i: int) -> int:
    return value if isinstance(value, int) else value[i if len(value) > 1 else 0]
