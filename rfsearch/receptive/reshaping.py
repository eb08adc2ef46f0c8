"""Follow an axis of the image through a change of a tensor's shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rfsearch.receptive.axis import Axis, Shape, compact, nothing_seen, varies_along

Values = npt.NDArray[np.float64]


def view_axes(axes: Sequence[Axis], source: Shape, target: Shape) -> tuple[Axis, ...]:
    """Follow the axes through a view. One that has a dimension to itself afterwards runs along it."""
    if 0 in source:
        return tuple(Axis(np.broadcast_to(nothing_seen(len(target)), (3, *target)), axis.jump, None) for axis in axes)
    viewed = [_view_axis(axis, source, target) for axis in axes]
    occupied: list[set[int | None]] = [{*varies_along(axis.places)} or {axis.dim} for axis in viewed]
    for i, axis in enumerate(viewed):
        others = set[int | None]().union(*occupied[:i], *occupied[i + 1 :])
        if axis.places is not None and len(occupied[i]) == 1 and not occupied[i] & others:
            (dim,) = varies_along(axis.places)
            sizes = [target[dim] if at == dim + 1 else size for at, size in enumerate(axis.reach.shape)]
            viewed[i] = Axis(compact(np.broadcast_to(axis.reach, sizes), dim), axis.extent, dim)
    return tuple(viewed)


def _view_axis(axis: Axis, source: Shape, target: Shape) -> Axis:
    """Follow one axis, by the shortest runs of dimensions that hold equally many units on both sides."""
    runs, dim = segments(source, target), None
    for here, there in runs:
        if axis.dim in here:
            before = math.prod(source[i] for i in here if i < axis.dim)
            for j in there:
                same = target[j] == source[axis.dim] and math.prod(target[i] for i in there if i < j) == before
                dim = j if same and (dim is None or target[j] > 1) else dim
    places = axis.places
    if places is None and dim is None and axis.dim is not None:
        places = np.arange(source[axis.dim], dtype=np.float64)
        places = places.reshape([-1 if i == axis.dim else 1 for i in range(len(source))])
    changing = {i for i in range(len(source)) if axis.reach.shape[i + 1] > 1 or i == axis.dim}
    reach = _arranged(axis.reach, changing.union(varies_along(places)), runs, source, target)
    if places is not None:
        places = compact(_arranged(places[None], varies_along(places), runs, source, target), None)[0]
        places = places if varies_along(places) else None
    if dim is None:
        with np.errstate(invalid="ignore"):
            dim = _dimension_of((reach[1] - reach[0]) / 2)
    if dim is None and places is not None:
        dim = _dimension_of(places)
    return Axis(compact(reach, dim), axis.extent, dim, places)


def _arranged(
    values: Values, changing: Iterable[int], runs: Sequence[tuple[list[int], list[int]]], source: Shape, target: Shape
) -> Values:
    """Arrange values of a tensor's units in another shape.

    Args:
        values: Some values per unit, as a first dimension; behind it size 1 along what does not change.
        changing: Dimensions along which they change.
        runs: What `segments` finds.
        source: Shape of the tensor.
        target: Its shape after the view.
    """
    changing = set(changing)
    full, sizes = [len(values)], [len(values)]
    for here, there in runs:
        changes = not changing.isdisjoint(here)
        full += [source[i] if changes else 1 for i in here]
        sizes += [target[j] if changes else 1 for j in there]
    return np.broadcast_to(values, full).reshape(sizes)


def segments(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Split two shapes, in order, into the shortest runs of dimensions that hold equally many elements.

    Returns:
        For each run its dimensions in `source` and in `target`.
    """
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


def _dimension_of(centre: Values) -> int | None:
    """Find the dimension along which an axis runs that was cut up and may be whole again.

    Args:
        centre: Where each unit lies on the axis, in any measure; NaN for one that lies nowhere.

    Returns:
        The dimension along which units move farthest, None if they do not.
    """
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
