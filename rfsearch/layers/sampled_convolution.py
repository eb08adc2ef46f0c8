"""Convolve at a real dilation by reading a map bilinearly at every tap, then multiplying once.

See `rfsearch.layers.fractional_convolution` for the formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rfsearch.layers.once import differentiable_once
from rfsearch.layers.one_call import one_call
from rfsearch.layers.precision import at_least_single, inner_product, no_autocast
from rfsearch.layers.taps import Tap, TapAxis

# Values of the buffer of samples, which is filled and used up piece by piece: on a CPU it should stay in the caches, a
# GPU wants large pieces.
_PIECE = {"cuda": 2**27}
_CPU_PIECE = 2**21


Axes = tuple[TapAxis, TapAxis]  # of the height and the width


class SampledConvolution(torch.autograd.Function):
    """Sample first, multiply once: as much multiplication as one plain convolution, whatever the dilation.

    The map is read at the k places of the width (k maps), these at the k places of the height, some rows at a time,
    into a buffer of k^2 C values per pixel that one matrix product uses up. Nothing but the arguments is kept for
    backward, which samples again: dL/dsample is one more product, read back onto the map by the transposed blends.

    Example:
        >>> output = SampledConvolution.apply(x, weight, bias, dilation, axes, groups)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: Any, axes: Axes, groups: int
    ) -> Tensor:
        """Convolve B x C x H x W with O x C/groups x k_h x k_w to B x O x H_out x W_out."""
        ctx.axes, ctx.groups = axes, groups
        ctx.learned = isinstance(dilation, Tensor) and ctx.needs_input_grad[3]
        ctx.save_for_backward(x, weight, *([dilation] * ctx.learned))
        return _read(x, weight, bias, axes, groups)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in x, weight, bias and dilation."""
        x, weight, dilation = ctx.saved_tensors if ctx.learned else (*ctx.saved_tensors, None)
        with no_autocast(x.device):
            grads = _read_backward(grad, x, weight, dilation, ctx.axes, ctx.groups, ctx.needs_input_grad[:3])
        return *grads, None, None


@one_call
def _read(x: Tensor, weight: Tensor, bias: Tensor | None, axes: Axes, groups: int) -> Tensor:
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
    axes: Axes,
    groups: int,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients in the map, the weight and the bias if needed, and in the dilation if given."""
    for_x, for_weight, for_bias = needed
    matrices = _matrices(weight, groups)
    grad_x = torch.empty_like(x) if for_x else None
    grad_matrices = torch.zeros_like(matrices, dtype=at_least_single(x)) if for_weight else None
    slopes = [x.new_zeros(2, dtype=at_least_single(x))]
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
        # A tensor of shapes alone has no value to move to the dilation's device.
        total = dilation.new_zeros(2) if total.is_meta else total.to(dilation)
        grad_dilation = total if dilation.numel() == 2 else total.sum().reshape(dilation.shape)
    return grad_x, grad_weight, grad_bias, grad_dilation


def _pull_back(
    x: Tensor,
    pixels: Tensor,
    matrices: Tensor,
    axes: Axes,
    pieces: list[slice],
    grad_x: Tensor | None,
    grad_matrices: Tensor | None,
    learned: bool,
) -> list[Tensor]:
    """Take gradients of some images back.

    Args:
        x: The images, B x C x H x W.
        pixels: dL/doutput, B x H_out x W_out x O.
        matrices: The kernel, as in `_matrices`.
        axes: The axes of the map.
        pieces: Rows of outputs, some at a time.
        grad_x: Gets dL/dx, if given.
        grad_matrices: Is added to, if given.
        learned: Whether the dilation gets a gradient.

    Returns:
        Parts of dL/d(dilation of the height, of the width).
    """
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
        height, width = x.new_zeros(2, dtype=at_least_single(x))
        while levers:
            height = height + inner_product(levers.pop()[:, :-1], lines[len(levers)].diff(dim=1))
        rise = source.diff(dim=2)
        for tap, line in zip(columns.taps, grad_lines, strict=True):
            for shift, lever in ((0, tap.after), (-1, tap.before)):
                if lever:
                    width = width + lever * inner_product(line, columns.read(rise, 2, tap.first + shift))
        slopes.append(torch.stack([height, width]))
    if grad_x is not None:
        grad_source = torch.zeros_like(source)
        for tap, line in zip(columns.taps, grad_lines, strict=True):
            _spread(grad_source, 2, columns, tap, line)
        grad_x.copy_(columns.inside(rows.inside(grad_source, 1), 2).permute(0, 3, 1, 2))
    return slopes


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """View a kernel, O x C/G x k x k, as one matrix per group: G x O/G x k^2 C/G."""
    return weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)


def _padded_pixels(x: Tensor, axes: Axes) -> Tensor:
    """Copy B x C x H x W to B x H' x W' x C, surrounded by zeros."""
    rows, columns = axes
    pixels = x.new_zeros(
        x.shape[0], rows.low + rows.size + rows.high, columns.low + columns.size + columns.high, x.shape[1]
    )
    columns.inside(rows.inside(pixels, 1), 2).copy_(x.permute(0, 2, 3, 1))
    return pixels


def _lines(pixels: Tensor, axes: Axes) -> list[Tensor]:
    """Read the map at each place of the width: k of B x H' x W_out x C. Views where no blend is needed."""
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


def _samples(lines: list[Tensor], axes: Axes, piece: slice, groups: int, workspace: Tensor) -> Tensor:
    """Sample for some rows of outputs: (B rows W_out) x G x k^2 C/G, in the memory of the workspace if it fits."""
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


def _spread_rows(pulls: Tensor, grad_lines: list[Tensor], levers: list[Tensor], rows: TapAxis, piece: slice) -> None:
    """Apply the transpose of `_samples`: add dL/dsamples to dL/dlines.

    Multiplied by the taps' levers, they are also added to `levers`, where the rise from one row to the next meets them.
    """
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


def _spread(target: Tensor, dim: int, axis: TapAxis, tap: Tap, grad: Tensor, start: int = 0) -> None:
    """Add what a tap read back to where it came from."""
    count = grad.shape[dim]
    axis.read(target, dim, tap.first, start, count).add_(grad, alpha=1 - tap.part)
    if tap.part:
        axis.read(target, dim, tap.first + 1, start, count).add_(grad, alpha=tap.part)


def _product(a: Tensor, b: Tensor, workspace: Tensor) -> Tensor:
    """Multiply N x G x p by G x p x q, group by group, to N x G x q, in the memory of the workspace if it fits."""
    product = _within(workspace, (a.shape[0], b.shape[0], b.shape[2]))
    if b.shape[0] == 1:
        torch.mm(a[:, 0], b[0], out=product[:, 0])
    else:
        product.copy_(torch.bmm(a.transpose(0, 1), b).transpose(0, 1))
    return product


def _within(workspace: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of that shape in existing memory: fresh pages for every piece took 10 % of the time."""
    if workspace.numel() < math.prod(shape):
        return workspace.new_empty(shape)
    return workspace.view(-1)[: math.prod(shape)].view(shape)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add the transpose of N x G x p times N x G x q, group by group, to G x p x q."""
    if total.dtype != a.dtype:  # half precision: the sum over pieces is wider than a piece
        total += torch.bmm(a.permute(1, 2, 0), b.transpose(0, 1))
    elif total.shape[0] == 1:
        torch.addmm(total[0], a[:, 0].mT, b[:, 0], out=total[0])
    else:
        torch.baddbmm(total, a.permute(1, 2, 0), b.transpose(0, 1), out=total)


def _pieces(x: Tensor, axes: Axes, values: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yield some images at a time, with their rows of outputs some at a time.

    Args:
        x: The images.
        axes: The axes of the map.
        values: Number of samples of one output.
    """
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
