"""Follow operators that write in place into a slice of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfsearch.receptive.axis import Axis, Shape
from rfsearch.receptive.call import Call
from rfsearch.receptive.field import Field, hull


def written(cuts: Sequence[tuple[str, Any]], shape: Shape, call: Call) -> Field:
    """Return the field of a tensor after something was written into its slice.

    Args:
        cuts: The slices and selections that lead from the tensor to the slice, with their arguments.
        shape: Shape of the slice.
        call: The tensor, then what was written.
    """
    whole, *sources = call.args
    like = call.field
    base = whole if isinstance(whole, Field) else like.unseeing(tuple(whole.shape))
    places = [np.arange(size) for size in base.shape]
    dims = list(range(len(base.shape)))  # of the slice, in terms of the whole
    for cut, args in cuts:
        dim = (args[0] if args else 0) % len(dims)
        if cut == "select":
            places[dims[dim]] = places[dims[dim]][[args[1]]]
            del dims[dim]
        else:
            start, stop, step = (*args[1:], *[None] * 3)[:3]
            places[dims[dim]] = places[dims[dim]][slice(start, stop, step)]
    kept = tuple(len(part) for part in places)
    sources = [source for source in sources if isinstance(source, Field)]
    new = hull(sources, shape) if sources else like.unseeing(shape)
    new = new.viewed(kept)

    def put(old: Axis, fresh: Axis) -> Axis:
        cut = [dim for dim, part in enumerate(places) if len(part) < base.shape[dim]]
        sizes = [
            base.shape[dim] if dim in cut else max(old.reach.shape[dim + 1], fresh.reach.shape[dim + 1])
            for dim in range(len(places))
        ]
        reach = np.broadcast_to(old.reach, (3, *sizes)).copy()
        where = tuple(part if dim in cut else np.arange(sizes[dim]) for dim, part in enumerate(places))
        reach[np.ix_(np.arange(3), *where)] = np.broadcast_to(fresh.reach, (3, *map(len, where)))
        if old.dim is not None or fresh.dim is None:
            return Axis(reach, old.extent, old.dim)
        return Axis(reach, fresh.jump * sizes[fresh.dim], fresh.dim)

    return Field(base.shape, tuple(map(put, base.axes, new.axes)))
