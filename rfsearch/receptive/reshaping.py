"""Follow an axis of the image through a change of a tensor's shape."""

from __future__ import annotations

import math

import numpy as np

from rfsearch.receptive.axis import Axis, Reach, Shape, compact, nothing_seen


def view_axis(axis: Axis, source: Shape, target: Shape) -> Axis:
    """Follow an axis through a view, by the shortest runs of dimensions that hold equally many units on both sides."""
    if 0 in source:
        return Axis(np.broadcast_to(nothing_seen(len(target)), (3, *target)), axis.jump, None)
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
    reach = compact(np.broadcast_to(axis.reach, full).reshape(sizes), dim)
    return Axis(reach, axis.extent, _dimension_of(reach) if dim is None else dim)


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


def _dimension_of(reach: Reach) -> int | None:
    """Find the dimension along which an axis runs that was cut up and may be whole again.

    That is the one along which fields move farthest.
    """
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
