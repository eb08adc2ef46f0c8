"""Follow operators that view, reorder, cut, join, move or repeat units without mixing them."""

from __future__ import annotations

import numpy as np

from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field, joined


def _view(call: Call) -> Field:
    return call.field.viewed(call.output)


def _restride(call: Call) -> Field:
    if call.output != call.field.shape:
        raise call.cannot_follow("lays out a tensor in another order")
    return call.field


def _permute(call: Call) -> Field:
    return call.field.permuted(call.args[1])


def _transpose(call: Call) -> Field:
    rank = len(call.field.shape)
    one, other = (call.args[1] % rank, call.args[2] % rank) if len(call.args) > 2 else (0, rank - 1)
    order = list(range(rank))
    order[one], order[other] = order[other], order[one]
    return call.field.permuted(order)


def _slice(call: Call) -> Field:
    field, dim = call.field, call.argument(1, "dim", 0) % len(call.field.shape)
    size = field.shape[dim]
    begin, _, step = slice(call.argument(2, "start"), None, call.argument(4, "step", 1)).indices(size)
    index = begin + np.arange(call.output[dim])[:, None] * step
    return field.read(dim, index, stride=step)


def _select(call: Call) -> Field:
    field, dim = call.field, call.args[1] % len(call.field.shape)
    return field.read(dim, np.array([[call.args[2] % field.shape[dim]]])).mixed([dim], keep=False)


def _parts(call: Call) -> list[Field]:
    """Follow split, chunk and unbind: one field for each part."""
    field = call.field
    place = 2 if "split" in call.name or call.name == "chunk" else 1
    dim, found, begin = call.argument(place, "dim", 0) % len(field.shape), [], 0
    for shape in call.outputs:
        removed = len(shape) < len(field.shape)
        size = 1 if removed else shape[dim]
        part = field.read(dim, np.arange(begin, begin + size)[:, None])
        found.append(part.mixed([dim], keep=False) if removed else part)
        begin += size
    return found


def _concatenate(call: Call) -> Field:
    dim = call.argument(1, "dim", 0) % len(call.output)
    parts = [part for part in call.args[0] if 0 not in part.shape]  # empty tensors add no unit, whatever their rank
    fields = [part if isinstance(part, Field) else call.field.unseeing(tuple(part.shape)) for part in parts]
    return joined(fields, dim, call.output) if fields else call.field.unseeing(call.output)


def _stack(call: Call) -> Field:
    dim, like = call.argument(1, "dim", 0) % len(call.output), call.field
    shape = tuple(1 if i == dim else size for i, size in enumerate(call.output))
    fields = [part if isinstance(part, Field) else like.unseeing(tuple(part.shape)) for part in call.args[0]]
    return joined([field.viewed(shape) for field in fields], dim, call.output)


def _roll(call: Call) -> Field:
    field, shifts, dims = call.field, call.args[1], call.argument(2, "dims", [])
    if not dims:
        raise call.cannot_follow("rolls a flattened map")
    for shift, dim in zip(shifts, dims, strict=True):
        size = field.shape[dim]
        field = field.read(dim % len(field.shape), ((np.arange(size) - shift) % size)[:, None])
    return field


def _flip(call: Call) -> Field:
    field = call.field
    for dim in call.args[1]:
        field = field.read(dim % len(field.shape), np.arange(field.shape[dim])[::-1, None], stride=-1)
    return field


def _pad(call: Call) -> Field:
    """Follow padding of any kind as if the image went on."""
    field, pads = call.field, call.args[1]
    for i in range(len(pads) // 2):
        dim = len(field.shape) - 1 - i
        index = np.arange(-pads[2 * i], field.shape[dim] + pads[2 * i + 1])[:, None]
        inside = (index >= 0) & (index < field.shape[dim])
        along = any(axis.dim == dim for axis in field.axes)
        field = field.read(dim, index, valid=None if along else inside)
    return field


def _expand(call: Call) -> Field:
    return call.field.spread(call.output)


def _repeat(call: Call) -> Field:
    field = call.field.spread((*[1] * (len(call.output) - len(call.field.shape)), *call.field.shape))
    for dim, size in enumerate(call.output):
        if size != field.shape[dim]:
            field = field.read(dim, (np.arange(size) % field.shape[dim])[:, None])
    return field


def _shuffle(call: Call) -> Field:
    """Follow a pixel shuffle, which turns r x r channels into r x r units."""
    *batch, channels, height, width = call.field.shape
    r = call.args[1]
    rank = len(batch)
    cut = call.field.viewed((*batch, channels // r**2, r, r, height, width))
    order = (*range(rank + 1), rank + 3, rank + 1, rank + 4, rank + 2)
    return cut.permuted(order).viewed(call.output)


def _unshuffle(call: Call) -> Field:
    *batch, channels, height, width = call.field.shape
    r = call.args[1]
    rank = len(batch)
    cut = call.field.viewed((*batch, channels, height // r, r, width // r, r))
    return cut.permuted((*range(rank + 1), rank + 2, rank + 4, rank + 1, rank + 3)).viewed(call.output)


def _channel_shuffle(call: Call) -> Field:
    batch, channels, *axes = call.field.shape
    groups = call.args[1]
    cut = call.field.viewed((batch, groups, channels // groups, *axes))
    order = (0, 2, 1, *range(3, 3 + len(axes)))
    return cut.permuted(order).viewed(call.output)


def _as_real(call: Call) -> Field:
    return call.field.viewed((*call.field.shape, 1)).spread(call.output)


RULES: dict[Operator, Rule] = operator_table(
    (_view, "view _unsafe_view reshape _reshape_alias squeeze unsqueeze flatten unflatten"),
    (_restride, "as_strided"),
    (_permute, "permute"),
    (_transpose, "transpose t swapaxes"),
    (_slice, "slice"),
    (_select, "select"),
    (_parts, "split split_with_sizes chunk unbind unsafe_split unsafe_split_with_sizes unsafe_chunk"),
    (_concatenate, "cat"),
    (_stack, "stack"),
    (_roll, "roll"),
    (_flip, "flip"),
    (
        _pad,
        """constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
        replication_pad2d replication_pad3d""",
    ),
    (_expand, "expand"),
    (_repeat, "repeat"),
    (_as_real, "view_as_real"),
    (_shuffle, "pixel_shuffle"),
    (_unshuffle, "pixel_unshuffle"),
    (_channel_shuffle, "channel_shuffle native_channel_shuffle"),
)
