"""A map read bilinearly at every tap of a kernel, and one matrix product: where the taps are, and the operation.

See `rfsearch.layers.fractional` for the formula. Between two whole dilations each tap moves in a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rfsearch.errors import ModelError
from rfsearch.layers.once import differentiable_once
from rfsearch.layers.one_call import Working, one_call
from rfsearch.layers.precision import inner, no_autocast, wide

Pair = tuple[int, int]

# log delta is kept in single precision: a dilation that should be whole may miss it by this fraction.
_ROUNDING = 2.0**-21
# Values of the buffer of samples, which is filled and used up piece by piece: on a CPU it should stay in the caches, a
# GPU wants large pieces.
_PIECE = {"cuda": 2**27}
_CPU_PIECE = 2**21


@dataclass(frozen=True)
class Tap:
    """One tap along an axis. first: the pixel at or before its place for output pixel 0; part: how far beyond it. d
    place / d delta is the lever of the rise that the place moves along: `after` for x(first + 1) - x(first), `before`
    for x(first) - x(first - 1). On a pixel both are half the lever, the mean of the two slopes."""

    first: int
    part: float
    after: float
    before: float

    def weights(self, slopes: bool = False) -> list[tuple[int, float]]:
        """Whole pixels that are read, and their shares. slopes: those too that only the slope reads, at share 0."""
        read = {self.first: 1 - self.part} | ({self.first + 1: self.part} if self.part else {})
        return list(({pixel: 0.0 for pixel, _ in self.slopes()} | read if slopes else read).items())

    def slopes(self) -> list[tuple[int, float]]:
        """d shares / d delta."""
        changes = [(self.first - 1, -self.before), (self.first, self.before - self.after), (self.first + 1, self.after)]
        return [(pixel, change) for pixel, change in changes if change]


@dataclass(frozen=True)
class Axis(Working):
    """One axis of a map. size: its pixels; stride and count: of the outputs. low, high: zeros that taps may read."""

    size: int
    stride: int
    count: int
    taps: tuple[Tap, ...]

    @property
    def work(self) -> Hashable:
        """What the cost of a pass depends on: which pixels are read, not their shares."""
        taps = tuple([(tap.first, tap.part == 0, tap.after == 0, tap.before == 0) for tap in self.taps])
        return self.size, self.stride, self.count, taps

    @property
    def span(self) -> int:
        """Pixels from the first to the last output."""
        return (self.count - 1) * self.stride

    @property
    def low(self) -> int:
        return max(0, 1 - min(tap.first for tap in self.taps))

    @property
    def high(self) -> int:
        return max(0, max(tap.first for tap in self.taps) + self.span + 2 - self.size)

    def read(self, source: Tensor, dim: int, pixel: int, start: int = 0, count: int | None = None) -> Tensor:
        """What outputs `start` ... find `pixel` px from theirs; source is padded by low and high along dim."""
        count = self.count if count is None else count
        begin = self.low + pixel + start * self.stride
        index = [slice(None)] * source.dim()
        index[dim] = slice(begin, begin + (count - 1) * self.stride + 1, self.stride)
        return source[tuple(index)]

    def inside(self, source: Tensor, dim: int) -> Tensor:
        return source.narrow(dim, self.low, self.size)


def _place(n: int, j: int, k: int) -> int:
    """t_j at a whole dilation n, from the offset on."""
    return n * j - n * (k - 1) // 2


def _taps(k: int, delta: float, offset: int) -> Iterator[Tap]:
    n = math.floor(delta)
    for j in range(k):
        ahead = _place(n + 1, j, k) - _place(n, j, k)
        behind = ahead if delta > n else _place(n, j, k) - _place(n - 1, j, k)
        place = _place(n, j, k) + (delta - n) * ahead
        place = snapped(place)
        first = math.floor(place)
        if place > first:
            yield Tap(first + offset, place - first, float(ahead), 0.0)
        else:
            after, before = max(ahead, 0) + min(behind, 0), min(ahead, 0) + max(behind, 0)
            yield Tap(first + offset, 0.0, after / 2, before / 2)


@dataclass(frozen=True)
class Frame:
    """How a kernel lies on one axis of a map, whatever its dilation. size: pixels; taps: k."""

    size: int
    taps: int
    stride: int
    count: int
    offset: int

    @staticmethod
    def of(size: int, k: int, stride: int, padding: int | str, padded_for: int) -> Frame:
        """padding: of a convolution at the whole dilation `padded_for`, px on either side, or "same" or "valid"."""
        extent, before = padded_for * (k - 1), padded_for * (k - 1) // 2
        if isinstance(padding, str):
            low, high = (before, extent - before) if padding == "same" else (0, 0)
        else:
            low = high = padding
        count = (size + low + high - extent - 1) // stride + 1
        if count < 1:
            raise ModelError(
                f"A kernel of {k} taps at dilation {padded_for} spans {extent + 1} px, its padded map is "
                f"{size + low + high} px: nothing is left. Pad more."
            )
        return Frame(size, k, stride, count, before - low)

    def axis(self, delta: float) -> Axis:
        """With its taps at a dilation. A tap that reads beyond the map only does so however far beyond it is."""
        nearest_out, furthest_out = -(self.count - 1) * self.stride - 2, self.size + 1
        taps = []
        for tap in _taps(self.taps, delta, self.offset):
            first = min(max(tap.first, nearest_out), furthest_out)
            taps.append(Tap(first, tap.part, tap.after, tap.before))
        return Axis(self.size, self.stride, self.count, tuple(taps))

    def places(self, delta: float) -> list[float]:
        """Where output pixel 0 reads its taps at a dilation, px of the map."""
        return [tap.first + tap.part for tap in _taps(self.taps, delta, self.offset)]

    def reach(self, delta: float, slopes: bool) -> Pair:
        """Pixels before and behind the map that the taps read. slopes: those for the gradient in delta too."""
        places = [place for tap in _taps(self.taps, delta, self.offset) for place, _ in tap.weights(slopes)]
        return max(0, -min(places)), max(0, max(places) + (self.count - 1) * self.stride - self.size + 1)

    def padded(self, low: int, high: int) -> Frame:
        return Frame(self.size + low + high, self.taps, self.stride, self.count, self.offset + low)

    def pad(self, n: int) -> Pair:
        """What a convolution at the whole dilation n pads before and behind, negative where it leaves pixels out."""
        low = -(_place(n, 0, self.taps) + self.offset)
        return low, (self.count - 1) * self.stride + n * (self.taps - 1) - low - self.size + 1


class Sampled(torch.autograd.Function):
    """Sample first, multiply once: as much multiplication as one plain convolution, whatever the dilation.

    The map is read at the k places of the width (k maps), those at the k places of the height, some rows at a time into
    a buffer of k^2 C values a pixel that one matrix product uses up. Nothing but the arguments is kept for backward,
    which samples again: dL/dsample is one product more, read back onto the map by the transposed blends.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: Any, axes: tuple[Axis, Axis], groups: int
    ) -> Tensor:
        ctx.axes, ctx.groups = axes, groups
        ctx.learned = isinstance(dilation, Tensor) and ctx.needs_input_grad[3]
        ctx.save_for_backward(x, weight, *([dilation] * ctx.learned))
        return _read(x, weight, bias, axes, groups)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, dilation = ctx.saved_tensors if ctx.learned else (*ctx.saved_tensors, None)
        with no_autocast(x.device):
            grads = _read_backward(grad, x, weight, dilation, ctx.axes, ctx.groups, ctx.needs_input_grad[:3])
        return *grads, None, None


@one_call
def _read(x: Tensor, weight: Tensor, bias: Tensor | None, axes: tuple[Axis, Axis], groups: int) -> Tensor:
    rows, columns = axes
    matrices = _matrices(weight, groups)
    output = torch.empty(
        (x.shape[0], weight.shape[0], rows.count, columns.count),
        dtype=x.dtype,
        device=x.device,
        memory_format=_format_of(x),
    )
    pixels, workspace, results = output.permute(0, 2, 3, 1), x.new_empty(0), x.new_empty(0)
    for images, pieces in _pieces(x, axes, groups * matrices.shape[2]):
        lines = _lines(_padded_pixels(x[images], axes), axes)
        for piece in pieces:
            workspace = samples = _samples(lines, axes, piece, groups, workspace)
            product = _product(samples, matrices.mT, results)
            results = product
            target = pixels[images, piece]
            product = product.view(target.shape)
            if bias is None:
                target.copy_(product)
            else:
                torch.add(product, bias, out=target)
    return output


@one_call
def _read_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: Tensor | None,
    axes: tuple[Axis, Axis],
    groups: int,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Gradients in the map, the weight and the bias where they are needed, and in the dilation where it is given."""
    for_x, for_weight, for_bias = needed
    matrices = _matrices(weight, groups)
    grad_x = torch.empty_like(x) if for_x else None
    grad_matrices = torch.zeros_like(matrices, dtype=wide(x)) if for_weight else None
    slopes = [x.new_zeros(2, dtype=wide(x))]
    pixels = grad.permute(0, 2, 3, 1)
    for images, pieces in _pieces(x, axes, groups * matrices.shape[2]):
        target = None if grad_x is None else grad_x[images]
        slopes += _pull_back(
            x[images], pixels[images], matrices, axes, pieces, target, grad_matrices, dilation is not None
        )
    grad_weight = None
    if grad_matrices is not None:
        out, inputs, height, width = weight.shape
        grad_weight = grad_matrices.view(out, height, width, inputs).permute(0, 3, 1, 2)
        grad_weight = grad_weight.to(weight.dtype, memory_format=torch.contiguous_format)
    grad_bias = grad.sum((0, 2, 3)) if for_bias else None
    grad_dilation = None
    if dilation is not None:
        total = torch.stack(slopes).sum(0)
        # Shapes alone have no value to bring to where the dilation is.
        total = dilation.new_zeros(2) if total.is_meta else total.to(dilation)
        grad_dilation = total if dilation.numel() == 2 else total.sum().reshape(dilation.shape)
    return grad_x, grad_weight, grad_bias, grad_dilation


def _pull_back(
    x: Tensor,
    pixels: Tensor,
    matrices: Tensor,
    axes: tuple[Axis, Axis],
    pieces: list[slice],
    grad_x: Tensor | None,
    grad_matrices: Tensor | None,
    learned: bool,
) -> list[Tensor]:
    """Backward of some images. pixels: dL/doutput, B x H_out x W_out x O. Fills grad_x, adds to grad_matrices and
    returns parts of dL/d(dilation of the height, of the width)."""
    rows, columns = axes
    groups, outputs, _ = matrices.shape
    source, workspace = _padded_pixels(x, axes), x.new_empty(0)
    lines = _lines(source, axes)
    grad_lines = [torch.zeros_like(line) for line in lines]
    levers = [torch.zeros_like(line) for line in lines] if learned else []
    for piece in pieces:
        pull = pixels[:, piece].reshape(-1, groups, outputs)
        if grad_matrices is not None:
            workspace = samples = _samples(lines, axes, piece, groups, workspace)
            _add_product(grad_matrices, pull, samples)
        if grad_x is not None or learned:
            workspace = pulls = _product(pull, matrices, workspace)
            _spread_rows(pulls, grad_lines, levers, rows, piece)
    slopes = []
    if learned:
        height, width = x.new_zeros(2, dtype=wide(x))
        while levers:
            height = height + inner(levers.pop()[:, :-1], lines[len(levers)].diff(dim=1))
        rise = source.diff(dim=2)
        for tap, line in zip(columns.taps, grad_lines, strict=True):
            for shift, lever in ((0, tap.after), (-1, tap.before)):
                if lever:
                    width = width + lever * inner(line, columns.read(rise, 2, tap.first + shift))
        slopes.append(torch.stack([height, width]))
    if grad_x is not None:
        grad_source = torch.zeros_like(source)
        for tap, line in zip(columns.taps, grad_lines, strict=True):
            _spread(grad_source, 2, columns, tap, line)
        grad_x.copy_(columns.inside(rows.inside(grad_source, 1), 2).permute(0, 3, 1, 2))
    return slopes


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """A kernel, O x C/G x k x k, as one matrix a group: G x O/G x k^2 C/G."""
    return weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)


def _padded_pixels(x: Tensor, axes: tuple[Axis, Axis]) -> Tensor:
    """B x C x H x W as B x H' x W' x C, zeros around."""
    rows, columns = axes
    pixels = x.new_zeros(
        x.shape[0], rows.low + rows.size + rows.high, columns.low + columns.size + columns.high, x.shape[1]
    )
    columns.inside(rows.inside(pixels, 1), 2).copy_(x.permute(0, 2, 3, 1))
    return pixels


def _lines(pixels: Tensor, axes: tuple[Axis, Axis]) -> list[Tensor]:
    """The map at each place of the width: k of B x H' x W_out x C. A view where no blend is needed."""
    rows, columns = axes
    lines = []
    for tap in columns.taps:
        line = columns.read(pixels, 2, tap.first)
        if tap.part:
            after = columns.read(pixels, 2, tap.first + 1)
            blended = torch.zeros_like(line, memory_format=torch.contiguous_format)
            torch.lerp(rows.inside(line, 1), rows.inside(after, 1), tap.part, out=rows.inside(blended, 1))
            line = blended
        lines.append(line)
    return lines


def _samples(lines: list[Tensor], axes: tuple[Axis, Axis], piece: slice, groups: int, workspace: Tensor) -> Tensor:
    """Some rows of outputs' samples: (B rows W_out) x G x k^2 C/G, in the memory of the workspace where it fits."""
    rows, _ = axes
    images, _, width, channels = lines[0].shape
    count = piece.stop - piece.start
    taps = len(rows.taps) * len(lines)
    samples = _within(workspace, (images, count, width, groups, taps, channels // groups))
    for i, tap in enumerate(rows.taps):
        for j, line in enumerate(lines):
            target = samples[..., i * len(lines) + j, :]
            before = rows.read(line, 1, tap.first, piece.start, count).unflatten(3, (groups, -1))
            if tap.part:
                after = rows.read(line, 1, tap.first + 1, piece.start, count).unflatten(3, (groups, -1))
                torch.lerp(before, after, tap.part, out=target)
            else:
                target.copy_(before)
    return samples.view(-1, groups, taps * (channels // groups))


def _spread_rows(pulls: Tensor, grad_lines: list[Tensor], levers: list[Tensor], rows: Axis, piece: slice) -> None:
    """The transpose of `_samples`: add dL/dsamples to dL/dlines; and, times the taps' levers, to `levers`, where the
    rise from a row to the next meets them."""
    images, _, width, _ = grad_lines[0].shape
    count = piece.stop - piece.start
    k = len(grad_lines)
    pulls = pulls.view(images, count, width, pulls.shape[1], len(rows.taps) * k, -1)
    for i, tap in enumerate(rows.taps):
        for j, line in enumerate(grad_lines):
            pull = pulls[..., i * k + j, :]
            _spread(line.unflatten(3, (pulls.shape[3], -1)), 1, rows, tap, pull, piece.start)
            if levers:
                lever = levers[j].unflatten(3, (pulls.shape[3], -1))
                for shift, strength in ((0, tap.after), (-1, tap.before)):
                    if strength:
                        rows.read(lever, 1, tap.first + shift, piece.start, count).add_(pull, alpha=strength)


def _spread(target: Tensor, dim: int, axis: Axis, tap: Tap, grad: Tensor, start: int = 0) -> None:
    """Add what a tap read back to where it came from."""
    count = grad.shape[dim]
    axis.read(target, dim, tap.first, start, count).add_(grad, alpha=1 - tap.part)
    if tap.part:
        axis.read(target, dim, tap.first + 1, start, count).add_(grad, alpha=tap.part)


def _product(a: Tensor, b: Tensor, workspace: Tensor) -> Tensor:
    """N x G x p times G x p x q, a group at a time: N x G x q, in the memory of the workspace where it fits."""
    product = _within(workspace, (a.shape[0], b.shape[0], b.shape[2]))
    if b.shape[0] == 1:
        torch.mm(a[:, 0], b[0], out=product[:, 0])
    else:
        product.copy_(torch.bmm(a.transpose(0, 1), b).transpose(0, 1))
    return product


def _within(workspace: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of that shape in memory that is there already: fresh pages for every piece took 10 % of the time."""
    if workspace.numel() < math.prod(shape):
        return workspace.new_empty(shape)
    return workspace.view(-1)[: math.prod(shape)].view(shape)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add the transpose of N x G x p times N x G x q, a group at a time, to G x p x q."""
    if total.dtype != a.dtype:  # half precision: the sum over pieces is wider than a piece
        total += torch.bmm(a.permute(1, 2, 0), b.transpose(0, 1))
    elif total.shape[0] == 1:
        torch.addmm(total[0], a[:, 0].mT, b[:, 0], out=total[0])
    else:
        torch.baddbmm(total, a.permute(1, 2, 0), b.transpose(0, 1), out=total)


def _pieces(x: Tensor, axes: tuple[Axis, Axis], values: int) -> Iterator[tuple[slice, list[slice]]]:
    """Some images at a time, and of these some rows of outputs at a time. values: of the samples of one output."""
    rows, columns = axes
    limit = _PIECE.get(x.device.type, _CPU_PIECE)
    row = columns.count * values
    images = max(1, limit // (row * rows.count))
    count = rows.count if images > 1 else max(1, min(rows.count, limit // row))
    pieces = [slice(r, min(r + count, rows.count)) for r in range(0, rows.count, count)]
    for b in range(0, x.shape[0], images):
        yield slice(b, min(b + images, x.shape[0])), pieces


def _format_of(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def snapped(number: float) -> float:
    """A number that misses a whole one by rounding only, put back onto it."""
    whole = round(number)
    return float(whole) if abs(number - whole) <= _ROUNDING * abs(number) else float(number)
