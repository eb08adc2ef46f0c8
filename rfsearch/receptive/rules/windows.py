"""Follow operators that move a kernel or a window over a map: convolutions, pooling, patches and their folding."""

from __future__ import annotations

import numpy as np

from rfsearch.receptive.axis import value_of_axis
from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field, hull, window_index


def _convolution(call: Call) -> Field:
    field, weight = call.args[0], call.args[1]
    if not isinstance(field, Field) or isinstance(weight, Field):
        raise call.cannot_follow("has a kernel that depends on the image")
    stride, padding, dilation = call.args[3:6]
    transposed, groups = call.args[6], call.args[8]
    kernel = weight.shape[2:]
    for i, taps in enumerate(kernel):
        s, p, d = (value_of_axis(value, i) for value in (stride, padding, dilation))
        size = call.output[2 + i]
        if transposed:
            field = _transposed(field, 2 + i, size, taps, s, p, d)
        else:
            if call.dilation is not None and taps > 1:
                p, d = p + (taps - 1) * (call.dilation - d) // 2, call.dilation
            field = field.window(2 + i, size, taps, s, d, p)
    return over_channels(field, groups, call.output[1])


def _transposed(field: Field, dim: int, size: int, taps: int, stride: int, padding: int, dilation: int) -> Field:
    """Let output unit o read the inputs (o + p - m d) / s over the taps m for which that is whole."""
    source = np.arange(size)[:, None] + padding - np.arange(taps)[None, :] * dilation
    return field.read(dim, source // stride, valid=source % stride == 0, stride=1 / stride)


def over_channels(field: Field, groups: int, channels: int) -> Field:
    """Let each output channel read the channels of its group."""
    index = np.arange(field.shape[1]).reshape(groups, -1)
    if groups > 1:
        return field.read(1, index[np.arange(channels) // (channels // groups)])
    return field.read(1, index).spread((field.shape[0], channels, *field.shape[2:]))


def _deformable(call: Call) -> Field:
    """Follow a deformable convolution on its regular grid, or the field of its offsets and mask if that is larger."""
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
        k, s, p, d = (value_of_axis(value, i) for value in (kernel, stride or kernel, padding, dilation))
        field = field.window(dim, call.output[dim], k, s, d, p)
    return field


def _adaptive_pool(call: Call) -> Field:
    """Pool n units to m: output i covers floor(i n / m) to ceil((i + 1) n / m). Global pooling is m = 1."""
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


def _columns(call: Call) -> Field:
    """Follow im2col, patches as columns: C x k x k rows, each of which reads one unit of every patch."""
    kernel, dilation, padding, stride = call.args[1:5]
    field = call.field.viewed((1,) * (4 - len(call.field.shape)) + call.field.shape)
    for i in range(2):
        k, d, p, s = (value_of_axis(value, i) for value in (kernel, dilation, padding, stride))
        size = (field.shape[2 + i] + 2 * p - (k - 1) * d - 1) // s + 1
        field = field.cut(2 + i, window_index(size, k, s, d, p), s)
    return field.permuted((0, 1, 4, 5, 2, 3)).viewed(call.output)


def _folded(call: Call) -> Field:
    """Follow col2im, columns as patches that are summed where they overlap: the transpose of `_columns`."""
    kernel, dilation, padding, stride = call.args[2:6]
    height, width = call.args[1]
    taps, counts = [], []
    for i, size in enumerate((height, width)):
        k, d, p, s = (value_of_axis(value, i) for value in (kernel, dilation, padding, stride))
        counts.append((size + 2 * p - (k - 1) * d - 1) // s + 1)
        taps.append([(tap, np.arange(size)[:, None] + p - tap * d, s) for tap in range(k)])
    batch = call.output[:-3]
    *_, channels, _, _ = call.output
    field = call.field.viewed((*batch, channels, len(taps[0]), len(taps[1]), *counts))
    for axis in range(2):  # the rows' taps, then the columns', which have their position by then
        at = len(batch) + 1
        parts = []
        for tap, source, s in taps[axis]:
            of_tap = field.read(at, np.array([[tap]])).mixed([at], keep=False)
            parts.append(of_tap.read(at + 1, source // s, valid=source % s == 0, stride=1 / s))
        field = hull(parts, parts[0].shape)
    return field


def _unfold(call: Call) -> Field:
    return call.field.unfolded(call.args[1] % len(call.field.shape), call.args[2], call.args[3])


RULES: dict[Operator, Rule] = operator_table(
    (_convolution, "convolution _convolution convolution_overrideable"),
    (_deformable, "torchvision::deform_conv2d"),
    (
        _pool,
        """max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d
        avg_pool2d avg_pool3d""",
    ),
    (
        _adaptive_pool,
        """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d
        _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d""",
    ),
    (_columns, "im2col"),
    (_folded, "col2im"),
    (_unfold, "unfold"),
)
