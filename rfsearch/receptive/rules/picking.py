"""Follow operators that read or write units at places, which are known beforehand or depend on the image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field, hull, joined

# These read units at places that a tensor holds. Which ones they are is known with real numbers only.
PICKING = frozenset({"index", "index_select", "_unsafe_index", "grid_sampler_2d", "grid_sampler_3d"})


def _index(call: Call) -> Field:
    """Follow x[..., places, ...] with one list of places that is known beforehand."""
    field = call.field
    if call.name == "index_select":
        dim, places = call.args[1], call.args[2]
    else:
        given = [(dim, places) for dim, places in enumerate(call.args[1]) if places is not None]
        if len(given) != 1:
            raise call.cannot_follow("picks units by several lists at once")
        dim, places = given[0]
    if isinstance(places, Field) or places.dim() != 1 or not len(places):
        raise call.cannot_follow("picks units by a tensor")
    if places.is_meta:
        raise call.cannot_follow("picks units by a tensor without values (of the meta device)")
    index = places.numpy().astype(np.int64)
    stride = (index[-1] - index[0]) / (len(index) - 1) if len(index) > 1 else 1.0
    return field.read(dim % len(field.shape), index[:, None], stride=float(stride))


def _sampled_at(call: Call) -> Field:
    """Follow grid_sample, which reads the units around each place of a grid that have a weight.

    If the grid depends on the image, any unit may be read.
    """
    image, grid, mode, _, corners = call.args[:5]
    axes = len(call.output) - 2
    if isinstance(grid, Field):
        by_place = grid.mixed([-1]).permuted((0, axes + 1, *range(1, axes + 1)))
        seen = [image.mixed(range(2, 2 + axes))] if isinstance(image, Field) else []
        return hull([by_place, *seen], call.output)
    if grid.is_meta:
        raise call.cannot_follow("samples at places without values (of the meta device)")
    places = grid[0].double().cpu().numpy()
    taps = {0: (0, 1), 1: (0,), 2: (-1, 0, 1, 2)}[mode]
    first, weighted = [], []
    for i, size in enumerate(image.shape[2:]):
        at = places[..., axes - 1 - i]  # a grid has x first
        at = (at + 1) / 2 * (size - 1) if corners else ((at + 1) * size - 1) / 2
        at = np.round(at) if mode == 1 else at
        before = np.floor(at + 1e-6).astype(np.int64)
        first.append(before)
        weighted.append(np.abs(at - before) > 1e-6)
    fields = []
    for combination in itertools.product(taps, repeat=axes):
        index = [before + tap for before, tap in zip(first, combination, strict=True)]
        valid = np.logical_and.reduce(
            [between | (tap == 0) for between, tap in zip(weighted, combination, strict=True)]
        )
        fields.append(image.gathered(index, valid))
    return hull(fields, call.output)


def _order(call: Call) -> Field:
    """Follow sort and topk: each place may get any unit along the dimension."""
    dim = call.argument(2 if call.name == "topk" else 1, "dim", -1)
    return call.field.mixed([dim]).spread(call.output)


def _anywhere(call: Call, dims: Sequence[int], value: Any) -> list[Field]:
    """Return what may come from any unit along some dimensions.

    Those in which the result has another size are added.
    """
    if not isinstance(value, Field):
        return []
    rank = len(call.output)
    sizes = {dim for dim in range(rank) if value.shape[dim] not in (1, call.output[dim])}
    return [value.mixed(sorted(sizes | {dim % rank for dim in dims}))]


def _gather(call: Call) -> Field:
    source, dim, index = call.args[:3]
    return hull(_anywhere(call, [dim], source) + ([index] if isinstance(index, Field) else []), call.output)


def _scatter(call: Call) -> Field:
    """Follow scatter_add, index_add and the like: the tensor, and any unit of what is put into it."""
    target, dim, index, *values = call.args
    fields = [target] if isinstance(target, Field) else []
    for value in (index, *values):
        if isinstance(value, Field) and len(value.shape) == len(call.output):
            fields += _anywhere(call, [dim], value)
        elif isinstance(value, Field):
            fields.append(value.merged())
    return hull(fields, call.output)


def _put(call: Call) -> Field:
    """Follow index_put and masked_scatter: any unit of what is put may land in any place."""
    target, *others = call.args[:3]
    fields = [target] if isinstance(target, Field) else []
    for other in others:
        parts = other if isinstance(other, list | tuple) else [other]
        fields += [part.merged() for part in parts if isinstance(part, Field)]
    return hull(fields, call.output)


def _embedding(call: Call) -> Field:
    """Follow an embedding, which picks rows of a table by units of a map: each row sees what its unit saw."""
    rows, index = call.args[:2]
    fields = [rows.merged()] if isinstance(rows, Field) else []
    if isinstance(index, Field):
        fields.append(index.viewed((*index.shape, 1)))
    return hull(fields, call.output)


def _slice_scatter(call: Call) -> Field:
    """Follow a tensor in which another one replaces a slice."""
    target, source = (
        value if isinstance(value, Field) else call.field.unseeing(tuple(value.shape)) for value in call.args[:2]
    )
    dim, places = call.argument(2, "dim", 0) % len(call.output), np.arange(call.output[call.argument(2, "dim", 0)])
    if call.name == "select_scatter":
        source = source.viewed((*source.shape[:dim], 1, *source.shape[dim:]))
        cut: Any = [call.argument(3, "index")]
    else:
        cut = slice(call.argument(3, "start"), call.argument(4, "end"), call.argument(5, "step", 1))
    places[cut] = len(places) + np.arange(source.shape[dim])
    both = joined([target, source], dim, (*call.output[:dim], 2 * len(places), *call.output[dim + 1 :]))
    return both.read(dim, places[:, None])


def _diagonal(call: Call) -> Field:
    offset = call.argument(1, "offset", 0)
    one, other = call.argument(2, "dim1", 0), call.argument(3, "dim2", 1)
    rank = len(call.field.shape)
    rest = [dim for dim in range(rank) if dim not in (one % rank, other % rank)]
    places = np.arange(call.output[-1])
    return call.field.permuted([*rest, one, other]).gathered([places + max(0, -offset), places + max(0, offset)])


def _unpooled(call: Call) -> Field:
    """Follow a max unpooling: unit i of m reads the one of n windows side by side in which it lies, i n / m."""
    field = call.field
    for dim in range(len(call.output) - len(call.args[2]), len(call.output)):
        n, m = field.shape[dim], call.output[dim]
        field = field.read(dim, (np.arange(m) * n // m)[:, None], stride=n / m)
    return field


RULES: dict[Operator, Rule] = operator_table(
    (_index, "index index_select _unsafe_index"),
    (_order, "sort topk"),
    (_gather, "gather"),
    (_scatter, "scatter scatter_add scatter_reduce index_add index_copy index_reduce"),
    (_put, "index_put masked_scatter"),
    (_embedding, "embedding"),
    (_slice_scatter, "slice_scatter select_scatter"),
    (_diagonal, "diagonal"),
    (_sampled_at, "grid_sampler_2d grid_sampler_3d"),
    (_unpooled, "max_unpool2d max_unpool3d"),
)
