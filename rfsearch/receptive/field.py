"""Follow what every unit of a tensor sees of the image: one interval per image axis, unit by unit.

The field of a unit on an axis runs from the centre of the first pixel it depends on to the centre of the last one, in
px of the image, as if the image went on for ever: padding counts. Where several units are read, the hull of their
fields counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfsearch.receptive.axis import (
    ROUNDING,
    Axis,
    Index,
    Places,
    Shape,
    compact,
    equal_reach,
    nothing_seen,
    value_of_axis,
    varies_along,
)
from rfsearch.receptive.reshaping import view_axes


@dataclass(frozen=True)
class Field:
    """Follow the field of every unit of one tensor: each method returns that of what an operator makes of the tensor.

    Attributes:
        shape: Shape of the tensor.
        axes: One for each axis of the image.

    Example:
        >>> Field.of_image((1, 3, 32, 32)).windowed(5, stride=2).shape
        (1, 3, 16, 16)
    """

    shape: Shape
    axes: tuple[Axis, ...]

    @staticmethod
    def of_image(shape: Shape) -> Field:
        """Return the field of an image, B x C x its axes, in which every pixel sees itself."""
        rank = len(shape)
        axes = []
        for dim in range(2, rank):
            pixels = np.arange(shape[dim], dtype=np.float64).reshape(-1, *[1] * (rank - dim - 1))
            pixels = pixels.reshape([1] * dim + [shape[dim]] + [1] * (rank - dim - 1))
            axes.append(Axis(np.stack([-pixels, pixels, np.zeros_like(pixels)]), float(shape[dim]), dim))
        return Field(shape, tuple(axes))

    def each(self, shape: Shape, change: Callable[[Axis], Axis]) -> Field:
        """Return the field of a tensor of shape `shape` whose axes are `change` of these."""
        return Field(shape, tuple(change(axis) for axis in self.axes))

    def unseeing(self, shape: Shape) -> Field:
        """Return the field of a tensor of that shape that does not depend on the image."""
        return self.each(shape, lambda axis: Axis(nothing_seen(len(shape)), axis.extent, None))

    def read(self, dim: int, index: Index, valid: npt.NDArray[np.bool_] | None = None, stride: float = 1.0) -> Field:
        """Read units along one dimension: unit i of the result reads index[i, 0], index[i, 1], ... and sees their hull.

        Args:
            dim: Dimension of the tensor.
            index: Units x reads. Places before the first and behind the last unit are continued.
            valid: Units x reads; what is False is not read. None reads all.
            stride: Units of this tensor between neighbouring units of the result.
        """

        def read(axis: Axis) -> Axis:
            places = axis.places
            if places is not None and places.shape[dim] > 1:
                places = places.take(index[:, index.shape[1] // 2], axis=dim, mode="clip")
            if axis.dim != dim and axis.reach.shape[dim + 1] == 1:
                return Axis(axis.reach, axis.extent, axis.dim, places)
            reach = axis.beyond(dim, index)
            if valid is not None:
                mask = valid.reshape(valid.shape + (1,) * (reach.ndim - dim - 3))
                reach = np.where(mask, reach, nothing_seen(reach.ndim - 1))
            return Axis(reach.max(axis=dim + 2), axis.extent_of(dim, len(index), stride), axis.dim, places)

        return self.each(self._resized(dim, len(index)), read)

    def sampled(self, dim: int, positions: npt.NDArray[np.float64], stride: float = 1.0) -> Field:
        """Read one unit at each of some real positions along a dimension.

        Between two units the field lies between theirs. That both of them are read is not counted.

        Args:
            dim: Dimension of the tensor.
            positions: Position of each unit of the result, in units of this tensor.
            stride: Units of this tensor between neighbouring units of the result.
        """
        before = np.floor(positions + ROUNDING).astype(np.int64)
        part = positions - before
        part[np.abs(part) < ROUNDING] = 0.0

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
        """Move a kernel along one dimension.

        Args:
            dim: Dimension of the tensor.
            size: Units of the result along it.
            kernel: Number of taps.
            stride: Units between neighbouring positions of the kernel.
            dilation: Units between its taps.
            padding: Units in front of the first one.
        """
        return self.read(dim, window_index(size, kernel, stride, dilation, padding), stride=stride)

    def windowed(
        self,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] | None = None,
    ) -> Field:
        """Move a kernel over all axes of a map B x C x its axes.

        Args:
            kernel: Number of taps, one for all axes or one per axis. So are all arguments.
            stride: Units between neighbouring positions of the kernel.
            dilation: Units between its taps.
            padding: Units on either side. None keeps the map's size at stride 1.
        """
        field = self
        for i, dim in enumerate(range(2, len(self.shape))):
            k, s, d = (value_of_axis(value, i) for value in (kernel, stride, dilation))
            before = (k - 1) * d // 2 if padding is None else value_of_axis(padding, i)
            total = (k - 1) * d if padding is None else 2 * before
            field = field.window(dim, (self.shape[dim] + total - (k - 1) * d - 1) // s + 1, k, s, d, before)
        return field

    def unfolded(self, dim: int, size: int, step: int) -> Field:
        """Cut windows of `size` units every `step` along a dimension; the units of each get a new last dimension."""
        count = (self.shape[dim] - size) // step + 1
        return self.cut(dim, window_index(count, size, step, 1, 0), step)

    def cut(self, dim: int, index: Index, stride: float) -> Field:
        """Read units as `read` does, but keep the reads of each unit apart, in a new last dimension."""

        def cut(axis: Axis) -> Axis:
            reach = axis.reach[..., None]
            if axis.dim == dim or axis.reach.shape[dim + 1] > 1:
                reach = np.moveaxis(axis.beyond(dim, index), dim + 2, -1)
            return Axis(reach, axis.extent_of(dim, len(index), stride), axis.dim)

        return self.each((*self._resized(dim, len(index)), index.shape[1]), cut)

    def gathered(self, places: Sequence[Index], valid: npt.NDArray[np.bool_] | None = None) -> Field:
        """Read units at places that are given in the last dimensions together.

        Args:
            places: One array per dimension, all of the shape that replaces these dimensions.
            valid: An array of that shape; what is False is not read. None reads all.
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
                reach = np.where(valid, reach, nothing_seen(reach.ndim - 1))
            if axis.dim is None or axis.dim < kept:
                return Axis(compact(reach, axis.dim), axis.extent, axis.dim)
            moved = [_mean_step(places[axis.dim - kept], along) for along in range(len(sizes))]
            along = int(np.argmax(np.abs(moved)))  # a turned map's axis runs along another dimension
            step = moved[along] or self.shape[axis.dim] / max(1, sizes[along])
            dim = kept + along
            extent = axis.jump * step * max(1, sizes[along])
            return Axis(compact(reach, dim), extent, dim)

        return self.each((*self.shape[:kept], *sizes), gather)

    def accumulated(self, dim: int, backwards: bool = False) -> Field:
        """Let each unit along a dimension read itself and all before it, or, if `backwards`, all behind it."""
        way = slice(None, None, -1 if backwards else 1)

        def accumulate(axis: Axis) -> Axis:
            reach = np.moveaxis(axis.reach, dim + 1, 0)
            reach = np.maximum.accumulate(reach[way], axis=0)[way]
            return Axis(np.moveaxis(reach, 0, dim + 1), axis.extent, axis.dim, axis.places)

        return self.each(self.shape, accumulate)

    def mixed(self, dims: Sequence[int], keep: bool = True) -> Field:
        """Mix all units along some dimensions.

        Units that thereby see all that any unit saw see the whole axis, and nothing by themselves.

        Args:
            dims: Dimensions of the tensor.
            keep: Whether these remain, with size 1.
        """
        gone = sorted(dim % len(self.shape) for dim in dims)
        at = tuple(dim + 1 for dim in gone)

        def mix(axis: Axis) -> Axis:
            reach = axis.reach.max(axis=at, keepdims=True, initial=-np.inf)
            if any(axis.reach.shape[dim] > 1 for dim in at) and not equal_reach(axis.reach[:2], reach[:2]):
                everything = axis.reach[:2].max(axis=tuple(range(1, axis.reach.ndim)), keepdims=True, initial=-np.inf)
                if axis.dim in gone or equal_reach(reach[:2], everything):
                    reach = np.stack([np.full_like(reach[0], -np.inf)] * 2 + [np.ones_like(reach[0])])
            dim, places = axis.dim, axis.places
            if places is not None:
                places = np.fmin.reduce(places, axis=tuple(gone), keepdims=True)
                places = places if varies_along(places) else None
            if not keep:
                reach = reach.squeeze(at)
                places = None if places is None else places.squeeze(tuple(gone))
                if dim is not None:
                    dim = None if dim in gone else dim - sum(other < dim for other in gone)
            return Axis(reach, axis.extent, dim, places)

        shape = tuple(1 if dim in gone else size for dim, size in enumerate(self.shape) if keep or dim not in gone)
        return self.each(shape, mix)

    def merged(self) -> Field:
        """Return the field of a single number that depends on all units."""
        return self.mixed(range(len(self.shape)), keep=False)

    def spread(self, shape: Shape) -> Field:
        """Broadcast to a shape, as `expand` does."""
        grown = len(shape) - len(self.shape)

        def spread(axis: Axis) -> Axis:
            reach = axis.reach.reshape(3, *[1] * grown, *axis.reach.shape[1:])
            dim = None if axis.dim is None else axis.dim + grown
            if dim is not None and reach.shape[dim + 1] != shape[dim]:
                reach = np.repeat(reach, shape[dim], axis=dim + 1)
            places = None if axis.places is None else axis.places.reshape(*[1] * grown, *axis.places.shape)
            return Axis(reach, axis.extent, dim, places)

        return self.each(shape, spread)

    def viewed(self, shape: Shape) -> Field:
        """Arrange the units in another shape, in unchanged order."""
        return Field(shape, view_axes(self.axes, self.shape, shape))

    def permuted(self, order: Sequence[int]) -> Field:
        """Reorder the dimensions: dimension i of the result is dimension order[i] of this tensor."""
        before = [dim % len(self.shape) for dim in order]

        def permute(axis: Axis) -> Axis:
            dim = None if axis.dim is None else before.index(axis.dim)
            places = None if axis.places is None else axis.places.transpose(before)
            return Axis(axis.reach.transpose(0, *(i + 1 for i in before)), axis.extent, dim, places)

        return self.each(tuple(self.shape[i] for i in before), permute)

    def whole(self) -> Field:
        """Let every unit see the whole image in addition to its own field."""

        def see(axis: Axis) -> Axis:
            return Axis(np.stack([*axis.reach[:2], np.ones_like(axis.reach[2])]), axis.extent, axis.dim, axis.places)

        return self.each(self.shape, see)

    def _resized(self, dim: int, size: int) -> Shape:
        return (*self.shape[:dim], size, *self.shape[dim + 1 :])


def hull(fields: Sequence[Field], shape: Shape) -> Field:
    """Return the hull of tensors that meet element by element, broadcast to `shape`.

    Jump and position come from the tensor that keeps most of its places apart, the first of several alike.
    """

    def meet(axes: Sequence[Axis]) -> Axis:
        reach = axes[0].reach
        for axis in axes[1:]:
            reach = np.maximum(reach, axis.reach)
        longest = max(axes, key=lambda axis: axis.units)
        return Axis(reach, longest.extent, longest.dim, longest.places)

    aligned = [_aligned(field, len(shape)) for field in fields]
    return Field(shape, tuple(meet(axes) for axes in zip(*(field.axes for field in aligned), strict=True))).spread(
        shape
    )


def joined(fields: Sequence[Field], dim: int, shape: Shape) -> Field:
    """Place tensors one behind the other along a dimension, to a tensor of shape `shape`."""

    def join(axes: Sequence[Axis]) -> Axis:
        at = dim + 1
        apart = any(axis.dim == dim or axis.reach.shape[at] > 1 for axis in axes)
        if not apart and all(equal_reach(axis.reach, axes[0].reach) for axis in axes):
            return axes[0]
        others = np.broadcast_shapes(*((*a.reach.shape[:at], 1, *a.reach.shape[at + 1 :]) for a in axes))
        parts = [
            np.broadcast_to(axis.reach, (*others[:at], field.shape[dim], *others[at + 1 :]))
            for axis, field in zip(axes, fields, strict=True)
        ]
        first = next((axis for axis in axes if axis.dim is not None), axes[0])
        extent = first.extent_of(dim, shape[dim], 1)
        return Axis(np.concatenate(parts, axis=at), extent, first.dim, _joined_places(axes, fields, dim))

    return Field(shape, tuple(join(axes) for axes in zip(*(field.axes for field in fields), strict=True)))


def _joined_places(axes: Sequence[Axis], fields: Sequence[Field], dim: int) -> Places | None:
    """Join the places of tensors along a dimension. Units of a tensor without places have none."""
    if all(axis.places is None for axis in axes):
        return None
    none = np.full([1] * len(fields[0].shape), np.nan)
    given = [none if axis.places is None else axis.places for axis in axes]
    others = np.broadcast_shapes(*((*each.shape[:dim], 1, *each.shape[dim + 1 :]) for each in given))
    parts = [
        np.broadcast_to(each, (*others[:dim], field.shape[dim], *others[dim + 1 :]))
        for each, field in zip(given, fields, strict=True)
    ]
    return np.concatenate(parts, axis=dim)


def window_index(size: int, kernel: int, stride: float, dilation: int, padding: int) -> Index:
    """Return the units that each of `size` positions of a kernel reads: size x kernel."""
    return (np.arange(size)[:, None] * int(stride) - padding + np.arange(kernel)[None, :] * dilation).astype(np.int64)


def _mean_step(places: Index, along: int) -> float:
    """Return the source's units between neighbouring units of the result, averaged along one of its dimensions."""
    return float(np.diff(places, axis=along).mean()) if places.shape[along] > 1 else 0.0


def _aligned(field: Field, rank: int) -> Field:
    grown = rank - len(field.shape)
    return field.spread((*[1] * grown, *field.shape)) if grown else field
