"""What each operator does to the fields of the tensors that it reads.

Conventions:
- The field of a unit is the hull of all it depends on: the support of its gradient in a model whose weights are all
  positive. Padding counts as if the image went on.
- Axes are followed apart: a unit that sees nothing along one axis, on the zeros that a transposed convolution with a
  stride longer than its kernel leaves, still counts along the other.
- A unit that mixes every unit of an axis (global pooling, attention over all tokens, a linear layer over a flattened
  map) sees that axis whole, and nothing by itself: what it gates or is added to keeps the field of its own.
- Statistics of normalisation layers are not counted; batch norm is in evaluation mode.
- `Inflation`, `Interpolation`, `LSDFN` and `FractionalConv2d` sample at real positions. Between two units a sample's
  field lies between theirs: (k - 1) d j / f px for a kernel behind an inflation (Wei sec. 3.3 without its rounding),
  although bilinear weights touch both. A resampling without such a learned scale reads every unit that has a weight.
- A deformable convolution is quoted at its regular grid, all offsets zero: where its taps really fall, the image says.
- Whatever else picks units at places that the image says (sampling by a flow, a gather, a sort) may pick any of them:
  it sees the axes it picks along whole, and by itself what says the places. At places known beforehand it reads those.
- A recurrent layer reads all units of its sequence before its own; one that goes both ways sees the sequence whole.
- A max unpooling puts a value back into the window it came from, which is taken to be one of windows side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from rfsearch.layers import LSDFN, FractionalConv2d, Inflation, Interpolation, WeightedGradient
from rfsearch.receptive import picking, sequences
from rfsearch.receptive.call import Call, Operator, Rule
from rfsearch.receptive.field import Field, hull, joined, window_index
from rfsearch.receptive.picking import everywhere


def register(operator: Operator, rule: Rule) -> None:
    """Teach the arithmetic an operator; the newest rule for it counts.

    operator: a module class (from then on its inside is not looked at), or the name of a dispatched operator: "roll"
    for aten::roll, "namespace::name" for any other. rule: from a `Call` to the `Field` of its result, or one a result.
    For a module that keeps it: `lambda call: call.field`; for one that reads 5 x 5 units at stride 2:
    `lambda call: call.field.windowed(5, stride=2)`; for one that sees everything: `lambda call: call.field.whole()`.
    """
    _RULES[operator.removeprefix("aten::") if isinstance(operator, str) else operator] = rule


def rule_of_module(module: nn.Module) -> Rule | None:
    """The rule of a module's class, or of the nearest parent class whose forward it keeps."""
    for parent in type(module).__mro__:
        rule = _RULES.get(parent)
        if rule is not None:
            return rule if type(module).forward is getattr(parent, "forward", None) else None
    return None


def rule_of_operator(name: str) -> Rule | None:
    """The rule of a dispatched operator; in place it does what it does out of place."""
    return _RULES.get(name) or _RULES.get(name.removesuffix("_"))


def elementwise(call: Call) -> Field:
    """Where tensors meet element by element, the hull of their fields."""
    return hull(call.fields, call.output)


def _first(call: Call) -> Field:
    return call.field


def _convolution(call: Call) -> Field:
    field, weight = call.args[0], call.args[1]
    if not isinstance(field, Field) or isinstance(weight, Field):
        raise call.lost("has a kernel that depends on the image")
    stride, padding, dilation = call.args[3:6]
    transposed, groups = call.args[6], call.args[8]
    kernel = weight.shape[2:]
    for i, taps in enumerate(kernel):
        s, p, d = (_of_axis(value, i) for value in (stride, padding, dilation))
        size = call.output[2 + i]
        if transposed:
            field = _transposed(field, 2 + i, size, taps, s, p, d)
        else:
            if call.dilation is not None and taps > 1:
                p, d = p + (taps - 1) * (call.dilation - d) // 2, call.dilation
            field = field.window(2 + i, size, taps, s, d, p)
    return _over_channels(field, groups, call.output[1])


def _transposed(field: Field, dim: int, size: int, taps: int, stride: int, padding: int, dilation: int) -> Field:
    """Output unit o reads the inputs (o + p - m d) / s over the taps m for which that is whole."""
    source = np.arange(size)[:, None] + padding - np.arange(taps)[None, :] * dilation
    return field.read(dim, source // stride, valid=source % stride == 0, stride=1 / stride)


def _over_channels(field: Field, groups: int, channels: int) -> Field:
    """Each output channel reads the channels of its group."""
    index = np.arange(field.shape[1]).reshape(groups, -1)
    if groups > 1:
        return field.read(1, index[np.arange(channels) // (channels // groups)])
    return field.read(1, index).spread((field.shape[0], channels, *field.shape[2:]))


def _deformable(call: Call) -> Field:
    """Its regular grid, or the field of its offsets (and its mask) where that is larger."""
    field, weight, *others = call.args[:4]
    strides, paddings, dilations = call.args[5:7], call.args[7:9], call.args[9:11]
    for i in range(2):
        field = field.window(2 + i, call.output[2 + i], weight.shape[2 + i], strides[i], dilations[i], paddings[i])
    spread = field.mixed([1]).spread((*field.shape[:1], call.output[1], *field.shape[2:]))
    return hull([spread, *(other.mixed([1]) for other in others if isinstance(other, Field))], call.output)


def _pool(call: Call) -> Field:
    field, axes = call.field, len(call.outputs[0]) - (1 if "1d" in call.name else 2 if "2d" in call.name else 3)
    kernel, stride = call.argument(1, "kernel_size"), call.argument(2, "stride")
    padding = call.argument(3, "padding", 0)
    dilation = call.argument(4, "dilation", 1) if "max" in call.name else 1
    for i, dim in enumerate(range(axes, len(call.output))):
        k, s, p, d = (_of_axis(value, i) for value in (kernel, stride or kernel, padding, dilation))
        field = field.window(dim, call.output[dim], k, s, d, p)
    return field


def _adaptive_pool(call: Call) -> Field:
    """n units to m: output i covers floor(i n / m) to ceil((i + 1) n / m); m = 1 is global pooling."""
    field = call.field
    for dim in range(len(call.output) - int(call.name.partition("pool")[2][0]), len(call.output)):
        n, m = field.shape[dim], call.output[dim]
        if m == 1:
            field = field.mixed([dim])
            continue
        starts = np.array([o * n // m for o in range(m)])
        ends = np.array([-(-(o + 1) * n // m) for o in range(m)])
        index = starts[:, None] + np.arange((ends - starts).max())[None, :]
        field = field.read(dim, np.minimum(index, ends[:, None] - 1), stride=n / m)
    return field


def _upsample(call: Call) -> Field:
    """Every unit that has a weight, as torch places them; beyond the border as if the map went on."""
    kind = call.name.removeprefix("_").removeprefix("upsample_").removesuffix("_aa")
    axes = int(kind[-2])
    first = len(call.output) - axes
    flags = call.args[2:]
    corners = bool(flags[0]) if "nearest" not in kind and flags else False
    scales = (*([None] * axes), *(flags if "nearest" in kind else flags[1:]))[-axes:]
    field = call.field
    for i, dim in enumerate(range(first, len(call.output))):
        n, m = field.shape[dim], call.output[dim]
        given = scales[i] if len(flags) else None
        step = 1 / given if given else n / m
        if corners:
            step = (n - 1) / (m - 1) if m > 1 else 0.0
        places = np.arange(m)
        if "nearest" in kind:
            offset = 0.5 if "exact" in kind else 0.0
            index = np.floor((places + offset) * step + 1e-9).astype(np.int64)[:, None]
            field = field.read(dim, np.minimum(index, n - 1), stride=n / m)
            continue
        width = 2 if "cubic" in kind else 1
        if call.name.endswith("_aa"):
            support = width * max(1.0, step)
            centre = step * (places + 0.5)
            low = np.maximum(0, np.floor(centre - support + 0.5)).astype(np.int64)
            high = np.minimum(n, np.floor(centre + support + 0.5)).astype(np.int64)
            index = np.minimum(low[:, None] + np.arange((high - low).max())[None, :], high[:, None] - 1)
            field = field.read(dim, index, stride=n / m)
            continue
        position = places * step if corners else (places + 0.5) * step - 0.5
        before = np.floor(position + 1e-6).astype(np.int64)
        between = np.abs(position - before) > 1e-6
        taps = np.arange(1 - width, 1 + width)
        index = before[:, None] + taps[None, :]
        stride = step if corners else n / m
        field = field.read(dim, index, valid=between[:, None] | (taps == 0)[None, :], stride=stride)
    return field


def _view(call: Call) -> Field:
    return call.field.viewed(call.output)


def _restride(call: Call) -> Field:
    if call.output != call.field.shape:
        raise call.lost("lays out a tensor in an order of its own")
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
    """split, chunk and unbind: a field each."""
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
    parts = [part for part in call.args[0] if 0 not in part.shape]  # what is empty adds no unit, whatever its rank
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
        raise call.lost("rolls a flattened map")
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
    """Of any kind: as if the image went on."""
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


def _index(call: Call) -> Field:
    """x[..., places, ...] with one list of places that is known beforehand."""
    field = call.field
    if call.name == "index_select":
        dim, places = call.args[1], call.args[2]
    else:
        given = [(dim, places) for dim, places in enumerate(call.args[1]) if places is not None]
        if len(given) != 1:
            raise call.lost("picks units by several lists at once")
        dim, places = given[0]
    if isinstance(places, Field) or places.dim() != 1 or not len(places):
        raise call.lost("picks units by a tensor")
    if places.is_meta:
        raise call.lost("picks units by a tensor without values (of the meta device)")
    index = places.numpy().astype(np.int64)
    stride = (index[-1] - index[0]) / (len(index) - 1) if len(index) > 1 else 1.0
    return field.read(dim % len(field.shape), index[:, None], stride=float(stride))


def _reduce(call: Call) -> Field:
    """mean, sum ... over dimensions."""
    field = call.field
    dims = call.argument(2 if "vector_norm" in call.name or call.name == "norm" else 1, "dim")
    everything = list(range(len(field.shape)))
    dims = everything if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
    return field.mixed(dims, keep=len(call.output) == len(field.shape))


def _mix(call: Call) -> Field:
    """softmax: every unit along a dimension depends on all of them."""
    return hull([call.field, call.field.mixed([call.args[1]])], call.output)


def _product(call: Call) -> Field:
    """mm, bmm, addmm, baddbmm: rows of one by columns of the other, mixed over what they share."""
    (*added, left, right) = call.args[: 3 if "add" in call.name else 2]
    fields = []
    if isinstance(left, Field):
        fields.append(left.mixed([-1], keep=False).viewed((*left.shape[:-1], 1)))
    if isinstance(right, Field):
        fields.append(right.mixed([-2], keep=False).viewed((*right.shape[:-2], 1, right.shape[-1])))
    return hull([*fields, *(field for field in added if isinstance(field, Field))], call.output)


def _attention(call: Call) -> Field:
    """Scaled dot products: each query reads all keys and values."""
    query, key, value = call.args[:3]
    fields = [query.mixed([-1])] if isinstance(query, Field) else []
    fields += [field.mixed([-2, -1]) for field in (key, value) if isinstance(field, Field)]
    return hull(fields, call.output)


def _shuffle(call: Call) -> Field:
    """Pixel shuffle: r x r channels become r x r units."""
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


def _columns(call: Call) -> Field:
    """Patches as columns: C x k x k rows, of which each reads one unit of every patch."""
    kernel, dilation, padding, stride = call.args[1:5]
    field = call.field.viewed((1,) * (4 - len(call.field.shape)) + call.field.shape)
    for i in range(2):
        k, d, p, s = (_of_axis(value, i) for value in (kernel, dilation, padding, stride))
        size = (field.shape[2 + i] + 2 * p - (k - 1) * d - 1) // s + 1
        field = field.cut(2 + i, window_index(size, k, s, d, p), s)
    return field.permuted((0, 1, 4, 5, 2, 3)).viewed(call.output)


def _folded(call: Call) -> Field:
    """Columns as patches, summed where they overlap: the transpose of `_columns`."""
    kernel, dilation, padding, stride = call.args[2:6]
    height, width = call.args[1]
    taps, counts = [], []
    for i, size in enumerate((height, width)):
        k, d, p, s = (_of_axis(value, i) for value in (kernel, dilation, padding, stride))
        counts.append((size + 2 * p - (k - 1) * d - 1) // s + 1)
        taps.append([(tap, np.arange(size)[:, None] + p - tap * d, s) for tap in range(k)])
    batch = call.output[:-3]
    *_, channels, _, _ = call.output
    field = call.field.viewed((*batch, channels, len(taps[0]), len(taps[1]), *counts))
    for axis in range(2):  # the rows' taps, then the columns', which by then stand in their place
        at = len(batch) + 1
        parts = []
        for tap, source, s in taps[axis]:
            of_tap = field.read(at, np.array([[tap]])).mixed([at], keep=False)
            parts.append(of_tap.read(at + 1, source // s, valid=source % s == 0, stride=1 / s))
        field = hull(parts, parts[0].shape)
    return field


def _unfold(call: Call) -> Field:
    return call.field.unfolded(call.args[1] % len(call.field.shape), call.args[2], call.args[3])


def _gated(call: Call) -> Field:
    """glu: one half of a dimension by the other."""
    dim = call.argument(1, "dim", -1) % len(call.field.shape)
    half = np.arange(call.output[dim])[:, None]
    return hull([call.field.read(dim, half), call.field.read(dim, half + len(half))], call.output)


def _spectrum(call: Call) -> Field:
    """A Fourier transform mixes all units of its dimensions, there and back."""
    return call.field.mixed(call.args[1]).spread(call.output)


def _as_real(call: Call) -> Field:
    return call.field.viewed((*call.field.shape, 1)).spread(call.output)


def _as_complex(call: Call) -> Field:
    return call.field.mixed([-1], keep=False)


def _vector_product(call: Call) -> Field:
    """mv, addmv, dot: rows of a matrix by a vector."""
    fields = []
    for value in call.args[1:] if call.name == "addmv" else call.args:
        if isinstance(value, Field):
            fields.append(value.mixed([-1], keep=False))
    if call.name == "addmv" and isinstance(call.args[0], Field):
        fields.append(call.args[0])
    return hull(fields, call.output)


def _distances(call: Call) -> Field:
    """cdist: rows of one map by rows of another."""
    left, right = call.args[:2]
    fields = [left.mixed([-1])] if isinstance(left, Field) else []
    if isinstance(right, Field):
        rank = len(right.shape)
        fields.append(right.mixed([-1]).permuted([*range(rank - 2), rank - 1, rank - 2]))
    return hull(fields, call.output)


def _all_distances(call: Call) -> Field:
    return everywhere(call.field).spread(call.output)


def _inflation(call: Call) -> Field:
    """A map f times its size, sampled at t / f: a kernel behind it reaches (k - 1) d j / f px."""
    f, field = call.module.factor.f.item(), call.field
    for dim in range(2, len(call.output)):
        field = field.sampled(dim, np.arange(call.output[dim]) / f, stride=1 / f)
    return field


def _interpolation(call: Call) -> Field:
    step, field = call.module.factor.f.item() / call.module.stride, call.field
    for dim in range(2, len(call.output)):
        field = field.sampled(dim, np.arange(call.output[dim]) * step, stride=step)
    return field


def _large_sampling_field(call: Call) -> Field:
    """s places gamma apart, k taps around each: gamma (s - 1) + k px of its map."""
    block, field = call.module, call.field
    reach = block.stride.gamma.item() * (block.s - 1) / 2 + (block.k - 1) / 2
    for dim in range(2, len(call.output)):
        places = np.arange(call.output[dim], dtype=np.float64)
        ends = [field.sampled(dim, places - reach), field.sampled(dim, places + reach)]
        field = hull(ends, field.shape)
    return field.mixed([1]).spread(call.output)


def _fractional(call: Call) -> Field:
    """k taps a real d apart, between which the field is that of a plain convolution: (k - 1) d j px."""
    conv, field = call.module, call.field
    for i, places in enumerate(conv.places(field.shape[2:])):
        taps = np.asarray(places).T
        if conv.padding_mode == "circular":
            taps %= field.shape[2 + i]
        at_taps = [field.sampled(2 + i, tap, stride=conv.stride[i]) for tap in taps]
        field = hull(at_taps, at_taps[0].shape)
    return _over_channels(field, conv.groups, call.output[1])


def _of_axis(value: Any, i: int) -> int:
    return value if isinstance(value, int) else value[i if len(value) > 1 else 0]


def _by_name(*groups: tuple[Rule, str]) -> dict[Operator, Rule]:
    return {name: rule for rule, names in groups for name in names.split()}


# Of a tensor these take the shape only: what they give does not depend on the image.
BLIND = frozenset(f"{kind}_like" for kind in ("zeros", "ones", "empty", "full", "rand", "randn")) | {
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_empty_strided",
}

# These read units at places that a tensor says: which ones, is known with real numbers only.
PICKING = frozenset({"index", "index_select", "_unsafe_index", "grid_sampler_2d", "grid_sampler_3d"})

_RULES: dict[Operator, Rule] = {
    WeightedGradient: _first,
    Inflation: _inflation,
    Interpolation: _interpolation,
    LSDFN: _large_sampling_field,
    FractionalConv2d: _fractional,
    **dict.fromkeys([nn.RNN, nn.GRU, nn.LSTM], sequences.recurrent),
    **dict.fromkeys([nn.RNNCell, nn.GRUCell, nn.LSTMCell], sequences.recurrent_cell),
    **_by_name(
        (  # element by element, where torch does not mark them so
            elementwise,
            """clone alias detach _to_copy copy contiguous lift_fresh native_dropout dropout feature_dropout where lerp
            fill masked_fill relu hardtanh leaky_relu elu gelu silu mish hardswish hardsigmoid softplus clamp pow
            tril triu zero bernoulli uniform normal exponential random complex polar _conj _neg_view lift
            _prelu_kernel prelu rrelu rrelu_with_noise log_sigmoid_forward native_batch_norm batch_norm
            _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm""",
        ),
        (_first, "native_layer_norm native_group_norm _native_batch_norm_legit _fused_rms_norm"),
        (_convolution, "convolution _convolution convolution_overrideable"),
        (_deformable, "torchvision::deform_conv2d"),
        (
            _pool,
            """max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d
            avg_pool3d""",
        ),
        (
            _adaptive_pool,
            """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
            adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d""",
        ),
        (
            _upsample,
            """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
            _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
            upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa""",
        ),
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
            """constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
            replication_pad3d""",
        ),
        (_expand, "expand"),
        (_repeat, "repeat"),
        (_index, "index index_select _unsafe_index"),
        (
            _reduce,
            """mean sum prod amax amin argmax argmin max min var std var_mean std_mean norm linalg_vector_norm
            logsumexp any all count_nonzero aminmax median nanmedian nansum""",
        ),
        (_mix, "_softmax _log_softmax _safe_softmax"),
        (sequences.running, "cumsum cumprod cummax cummin logcumsumexp"),
        (picking.order, "sort topk"),
        (picking.gather, "gather"),
        (picking.scatter, "scatter scatter_add scatter_reduce index_add index_copy index_reduce"),
        (picking.put, "index_put masked_scatter"),
        (picking.embedding, "embedding"),
        (picking.slice_scatter, "slice_scatter select_scatter"),
        (picking.diagonal, "diagonal"),
        (_spectrum, "_fft_r2c _fft_c2r _fft_c2c"),
        (_as_real, "view_as_real"),
        (_as_complex, "view_as_complex"),
        (_gated, "glu"),
        (picking.sampled_at, "grid_sampler_2d grid_sampler_3d"),
        (picking.unpooled, "max_unpool2d max_unpool3d"),
        (sequences.recurrent_layer, "mkldnn_rnn_layer"),
        (sequences.recurrent_layers, "_cudnn_rnn"),
        (sequences.recurrent_cell, "_thnn_fused_lstm_cell _thnn_fused_gru_cell"),
        (_product, "mm bmm addmm baddbmm"),
        (_vector_product, "mv addmv dot vdot"),
        (_distances, "_cdist_forward"),
        (_all_distances, "_pdist_forward"),
        (
            _attention,
            """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
            _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
            _scaled_dot_product_attention_math _scaled_dot_product_fused_attention_overrideable""",
        ),
        (_shuffle, "pixel_shuffle"),
        (_unshuffle, "pixel_unshuffle"),
        (_channel_shuffle, "channel_shuffle native_channel_shuffle"),
        (_columns, "im2col"),
        (_folded, "col2im"),
        (_unfold, "unfold"),
    ),
}
