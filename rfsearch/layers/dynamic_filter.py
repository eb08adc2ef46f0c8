"""Filter a map by kernels that the image itself makes for every position, applied to regions far around it.

LS-DFN: Wu, Li, Yang, Bajaj, Ji, "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018. Its eq. 6 and 7
as printed contradict Fig. 5 and the text; this follows the text. Notation: C feature maps x_u, C' outputs y_v, k x k
taps j around a place (px of the map), s x s sampled places

    q_ab(p) = p + gamma (a - (s-1)/2, b - (s-1)/2),    a, b = 0 ... s-1,

around every position p, where gamma, the sample stride, sets the receptive field: gamma (s-1) + k px of the map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.layers.filter_graph import filter_in_graph
from rfsearch.layers.host import check_positive
from rfsearch.layers.once import differentiable_once
from rfsearch.layers.one_call import one_call
from rfsearch.layers.precision import no_autocast
from rfsearch.layers.regions import GammaSlope, RegionAxis, blend, inside, padded, padded_pixels, spread_back

# Values of a buffer that is filled and used up piece by piece: on a CPU it should stay in the caches (measured on
# 63 x 63 px, C = 128, C' = 24), a GPU wants large pieces.
_PIECE = {"cuda": 2**25}
_CPU_PIECE = 2**21


def dynamic_filter(
    x: Tensor,
    channel: Tensor,
    tap: Tensor,
    sampling: Tensor,
    position: Tensor,
    gamma: Tensor | float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Filter a map by kernels of its own at every position (LS-DFN eq. 2, 4, 5 and 7).

        y_v(p) = 1/s^2  sum_ab (1 + S_v,ab(p))  sum_j (1 + A_v,j(q))  sum_u W_v,u,j(p) x_u(q + j),    q = q_ab(p),
        W_v,u,j(p) = V_v,j(p) + [j is the centre] (U_v,u(p) + 1/C).

    Sampling attention is read at the sampling place p, position attention at the sampled place q. x and A are read
    bilinearly and are zero outside the map: where q lies outside, 1 + A is 1, and taps that reach back into the map
    still count. The division by s^2 is our reading, with which a block whose branches are zero averages its features.
    Where gamma puts a place exactly on a pixel, gamma gets the mean of the two slopes. Differentiable once in all
    arguments.

    U is by far the largest argument. It need not be made as a whole: given weight and bias, it is made of a map, some
    rows at a time, in the type of the weight, and neither it nor its gradient leaves the caches before it is used.

    Args:
        x: Feature maps, B x C x H x W.
        channel: Channel kernels U, B x H x W x C' x C; with a weight, the map that they are made of, B x H x W x I.
        tap: Tap kernels V, B x k^2 x C' x H x W.
        sampling: Sampling attention S, B x s^2 x C' x H x W.
        position: Position attention A, B x k^2 x C' x H x W.
        gamma: Sample stride, a scalar, px of the map, > 0.
        weight: C' C x I: U is this matrix times the vector of every position.
        bias: C' C, added to U if it is made.

    Returns:
        B x C' x H x W.

    Raises:
        ModelError: A shape does not fit.
        SpaceError: gamma is not above 0.
        TrialError: gamma is not finite.
    """
    value = check_positive(gamma, "A sample stride", "gamma", "The usual range is [0.25, 16].")
    if x.dim() != 4 or any(n < 1 for n in x.shape[1:]):
        raise ModelError(f"Feature maps are B x C x H x W with C, H, W >= 1. Got x.shape={tuple(x.shape)}.")
    if _side(tap.shape[1]) % 2 == 0:
        raise ModelError(f"A kernel has k x k taps, k odd. Got {tap.shape=}.")
    _side(sampling.shape[1])
    if torch.compiler.is_exporting():
        return filter_in_graph(x, channel, tap, sampling, position, value, weight, bias)
    arguments = (x, channel.contiguous(), tap, sampling, position)
    output: Tensor = _Filter.apply(*arguments, gamma, weight, bias, value)
    return output


class _Filter(torch.autograd.Function):
    """Compute two sums over the sampled places, without a kernel of C' x C x k x k or a stack of s^2 maps.

        y_v(p) s^2 = sum_j V'_v,j(p) N_v,j(p)  +  sum_ab T_v,ab(p) G_v,ab(p),    G_v,ab(p) = sum_u U_v,u(p) x_u(q_ab)
        N_v,j(p) = sum_ab (1 + S_v,ab(p)) (1 + A_v,j(q_ab)) xbar(q_ab + j),    xbar = sum_u x_u
        T_v,ab(p) = (1 + S_v,ab(p)) (1 + A_v,centre(q_ab)),    V' = V, plus 1/C at the centre tap.

    G takes one small matrix product per position, over a few image rows at a time; all else works on shifted planes of
    the map. The places of T and G are ordered by column, then by row.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        channel: Tensor,
        tap: Tensor,
        sampling: Tensor,
        position: Tensor,
        gamma: Any,
        weight: Tensor | None,
        bias: Tensor | None,
        value: float,
    ) -> Tensor:
        s, k = _side(sampling.shape[1]), _side(tap.shape[1])
        axes = [RegionAxis.of(size, s, value, (k - 1) // 2) for size in x.shape[-2:]]
        ctx.axes, ctx.learned, ctx.made = axes, ctx.needs_input_grad[5], weight is not None
        with no_autocast(x.device):
            keep = any(ctx.needs_input_grad)
            output, *kept = _filtered(x, channel, tap, sampling, position, weight, bias, axes, keep)
        generator = [] if weight is None else [weight]
        ctx.save_for_backward(x, channel, tap, sampling, position, *generator, *([gamma] * ctx.learned), *kept)
        return output

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, channel, tap, sampling, position, *saved = ctx.saved_tensors
        weight = saved.pop(0) if ctx.made else None
        gamma = saved.pop(0) if ctx.learned else None
        with no_autocast(x.device):
            grads = _filtered_backward(grad, x, channel, tap, sampling, position, weight, gamma, saved, ctx.axes)
        return *(each if needed else None for each, needed in zip(grads, ctx.needs_input_grad, strict=False)), None


@one_call
def _filtered(
    x: Tensor,
    channel: Tensor,
    tap: Tensor,
    sampling: Tensor,
    position: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: list[RegionAxis],
    keep: bool,
) -> tuple[Tensor, ...]:
    """Compute y, and N, T, G and the pieces of U that were made here, which its gradients need."""
    mixed, made = _mix(padded_pixels(x, axes), channel, weight, bias, tap.shape[2], axes, keep)
    sums, both, output = _attend(_taps_of(x, _side(tap.shape[1]), axes), sampling, position, mixed, axes)
    output += (_residual(tap, x.shape[1]) * sums).sum(1)
    return output.div_(sampling.shape[1]), sums, both, mixed, *made


@one_call
def _filtered_backward(
    grad: Tensor,
    x: Tensor,
    channel: Tensor,
    tap: Tensor,
    sampling: Tensor,
    position: Tensor,
    weight: Tensor | None,
    gamma: Tensor | None,
    kept: list[Tensor],
    axes: list[RegionAxis],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients in x, U (or the map that it is made of), V, S, A, gamma, weight and bias.

    The last three are None if gamma is fixed, or if U is given.
    """
    sums, both, mixed, *made = kept
    k, learned = _side(tap.shape[1]), gamma is not None
    grad = grad / sampling.shape[1]
    slopes = [grad.new_zeros(())]
    grad_pixels, grad_channel, grad_weight, grad_bias = _mix_backward(
        both * grad[:, None], padded_pixels(x, axes), channel, weight, made, axes, slopes if learned else None
    )
    weighted = grad[:, None] * _residual(tap, x.shape[1])
    grad_taps, grad_sampling, grad_position = _attend_backward(
        grad, weighted, _taps_of(x, k, axes), sampling, position, mixed, axes, slopes if learned else None
    )
    grad_x = inside(grad_pixels.permute(0, 3, 1, 2), axes) + _untapped(grad_taps, k, axes)[:, None]
    grad_gamma = None
    if gamma is not None:
        total = torch.stack(slopes).sum()
        # A tensor of shapes alone has no value to move to gamma's device.
        total = gamma.new_zeros(()) if total.is_meta else total.to(gamma)
        grad_gamma = total.reshape(gamma.shape)
    grad_tap = grad[:, None] * sums
    return grad_x, grad_channel, grad_tap, grad_sampling, grad_position, grad_gamma, grad_weight, grad_bias


def _attend(
    taps: Tensor, sampling: Tensor, position: Tensor, mixed: Tensor, axes: list[RegionAxis]
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute N, T and sum_ab T G.

    A map is first read at the places of the width, for whole columns: at those of the height, rows then follow one
    another in memory.

    Args:
        taps: xbar(. + j), padded, B x k^2 x 1 x H' x W'.
        sampling: S.
        position: A.
        mixed: G, B x s^2 x C' x H x W.
        axes: The axes of the map.

    Returns:
        B x k^2 x C' x H x W, B x s^2 x C' x H x W and B x C' x H x W.
    """
    batch, _, outputs, height, width = sampling.shape
    rows, columns = axes
    sums = torch.zeros_like(position, memory_format=torch.contiguous_format)
    both, output = torch.empty_like(mixed), torch.zeros_like(mixed[:, 0])
    centre, side = taps.shape[1] // 2, len(rows.places)
    whole = rows.whole and columns.whole
    for b, v in _pieces(batch, outputs, taps.shape[1] * height * width, sampling.device):
        seen, attention = taps[b], padded(position[b, :, v], axes).add_(1)
        gate, strength, total = sampling[b, :, v] + 1, both[b, :, v], sums[b, :, v]
        marked = attention * seen if whole else attention
        for c, column in enumerate(columns.places):
            lit, light = (blend(t, -1, column, 0, width).contiguous() for t in (marked, seen))
            focus = blend(attention[:, centre], -1, column, 0, width).contiguous() if whole else lit[:, centre]
            for a, row in enumerate(rows.places):
                here, at_centre = blend(lit, -2, row, 0, height), blend(focus, -2, row, 0, height)
                if not whole:
                    here = here * blend(light, -2, row, 0, height)
                own, place = gate[:, a * side + c], c * side + a
                total.addcmul_(own[:, None], here)
                torch.mul(own, at_centre, out=strength[:, place])
                output[b, v].addcmul_(strength[:, place], mixed[b, place, v])
    return sums, both, output


def _attend_backward(
    grad: Tensor,
    weighted: Tensor,
    taps: Tensor,
    sampling: Tensor,
    position: Tensor,
    mixed: Tensor,
    axes: list[RegionAxis],
    slopes: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients in taps, S and A.

    Args:
        grad: dL/d(y s^2), B x C' x H x W.
        weighted: dL/dN, B x k^2 x C' x H x W.
        taps: xbar(. + j), padded, B x k^2 x 1 x H' x W'.
        sampling: S.
        position: A.
        mixed: G, B x s^2 x C' x H x W.
        axes: The axes of the map.
        slopes: Gets the parts of dL/dgamma, or None if gamma is fixed.
    """
    batch, _, outputs, height, width = sampling.shape
    rows, columns = axes
    grad_taps, grad_position = torch.zeros_like(taps), torch.empty_like(position, memory_format=torch.contiguous_format)
    grad_sampling = torch.empty_like(sampling, memory_format=torch.contiguous_format)
    centre, side = taps.shape[1] // 2, len(rows.places)
    once = rows.whole and columns.whole and slopes is None
    for b, v in _pieces(batch, outputs, taps.shape[1] * height * width, sampling.device):
        seen, attention, pull = taps[b], padded(position[b, :, v], axes).add_(1), weighted[b, :, v]
        gate = sampling[b, :, v] + 1
        grad_attention = torch.zeros_like(attention)
        if once:
            marked, grad_marked = attention * seen, torch.zeros_like(attention)
            product = torch.empty_like(pull)
            for c, column in enumerate(columns.places):
                lit = blend(marked, -1, column, 0, width).contiguous()
                focus = blend(attention[:, centre], -1, column, 0, width).contiguous()
                grad_lit, grad_focus = torch.zeros_like(lit), torch.zeros_like(focus)
                for a, row in enumerate(rows.places):
                    n = a * side + c
                    drawn = grad[b, v] * mixed[b, c * side + a, v]
                    blend(grad_lit, -2, row, 0, height).addcmul_(pull, gate[:, n, None])
                    blend(grad_focus, -2, row, 0, height).addcmul_(drawn, gate[:, n])
                    torch.mul(pull, blend(lit, -2, row, 0, height), out=product)
                    drawn.mul_(blend(focus, -2, row, 0, height))
                    torch.add(drawn, product.sum(1), out=grad_sampling[b, n, v])
                spread_back(grad_marked, -1, column, 0, grad_lit)
                spread_back(grad_attention[:, centre], -1, column, 0, grad_focus)
            grad_attention.addcmul_(grad_marked, seen)
            grad_taps[b] += grad_marked.mul_(attention).sum(2, keepdim=True)
        else:
            for c, column in enumerate(columns.places):
                attentions, lights = (blend(t, -1, column, 0, width) for t in (attention, seen))
                attention_slope, light_slope = GammaSlope(attentions, -2), GammaSlope(lights, -2)
                grad_attentions, grad_lights = torch.zeros_like(attentions), torch.zeros_like(lights)
                for a, row in enumerate(rows.places):
                    n = a * side + c
                    drawn = grad[b, v] * mixed[b, c * side + a, v]
                    there, light = (blend(t, -2, row, 0, height) for t in (attentions, lights))
                    grad_there = pull * gate[:, n, None]
                    lit = grad_there * there
                    grad_light = lit.sum(2, keepdim=True)
                    grad_there.mul_(light)
                    grad_there[:, centre].addcmul_(drawn, gate[:, n])
                    torch.mul(pull, there, out=lit)
                    drawn.mul_(there[:, centre])
                    torch.add(drawn, lit.mul_(light).sum(1), out=grad_sampling[b, n, v])
                    spread_back(grad_attentions, -2, row, 0, grad_there)
                    spread_back(grad_lights, -2, row, 0, grad_light)
                    if slopes is not None:
                        slopes += [attention_slope(row, grad_there), light_slope(row, grad_light)]
                if slopes is not None:
                    slopes.append(GammaSlope(attention, -1)(column, grad_attentions))
                    slopes.append(GammaSlope(seen, -1)(column, grad_lights))
                spread_back(grad_attention, -1, column, 0, grad_attentions)
                spread_back(grad_taps[b], -1, column, 0, grad_lights)
        grad_position[b, :, v] = inside(grad_attention, axes)
    return grad_taps, grad_sampling, grad_position


def _mix(
    pixels: Tensor,
    channel: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    outputs: int,
    axes: list[RegionAxis],
    keep: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Compute G, B x s^2 x C' x H x W, and the pieces of U.

    Args:
        pixels: x, padded, B x H' x W' x C.
        channel: U, or the map that it is made of.
        weight: See `dynamic_filter`.
        bias: See `dynamic_filter`.
        outputs: C'.
        axes: The axes of the map.
        keep: Whether to return the pieces of U if they are made here.
    """
    batch, height, width = channel.shape[:3]
    features, places = pixels.shape[3], len(axes[0].places) ** 2
    mixed, made = pixels.new_empty(batch, places, outputs, height, width), []
    for b, y in _pieces(batch, height, width * max(places, outputs) * features, channel.device):
        kernels = channel[b, y]
        if weight is not None:
            kernels = nn.functional.linear(kernels.to(weight.dtype), weight, None if bias is None else bias.to(weight))
            kernels = kernels.to(pixels.dtype).unflatten(3, (outputs, features))
            if keep:
                made.append(kernels)
        product = pixels.new_empty(*kernels.shape[:3], places, outputs)
        _multiply(_regions(_columns(pixels[b], y, axes), axes), kernels.mT, product, axes)
        mixed[b, :, :, y] = product.permute(0, 3, 4, 1, 2)
    return mixed, made


def _mix_backward(
    strength: Tensor,
    pixels: Tensor,
    channel: Tensor,
    weight: Tensor | None,
    made: list[Tensor],
    axes: list[RegionAxis],
    slopes: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Compute the gradients in pixels, in U or the map that it is made of, and in weight and bias.

    Args:
        strength: dL/dG, B x s^2 x C' x H x W.
        pixels: x, padded, B x H' x W' x C.
        channel: U, or the map that it is made of.
        weight: See `dynamic_filter`.
        made: The pieces of U, if they were made.
        axes: The axes of the map.
        slopes: See `_attend_backward`.
    """
    batch, places, outputs, height, width = strength.shape
    rows, columns = axes
    features = pixels.shape[3]
    grad_pixels, grad_channel = torch.zeros_like(pixels), torch.empty_like(channel)
    generator = None if weight is None else (weight, pixels.new_zeros(weight.shape), pixels.new_zeros(len(weight)))
    for n, (b, y) in enumerate(_pieces(batch, height, width * max(places, outputs) * features, channel.device)):
        kernels = made[n] if made else channel[b, y]
        pull = strength[b, :, :, y].permute(0, 3, 4, 1, 2).contiguous()
        stack = _columns(pixels[b], y, axes)
        grad_kernels = torch.empty_like(kernels) if made else grad_channel[b, y]
        _multiply(pull.mT, _regions(stack, axes), grad_kernels, axes)
        if generator is not None:
            grad_channel[b, y] = _generate_backward(grad_kernels, channel[b, y], *generator)
        grad_regions = stack.new_empty(*kernels.shape[:3], places, features)
        torch.bmm(_matrices(pull), _matrices(kernels), out=_matrices(grad_regions))
        grad_regions = grad_regions.unflatten(3, (len(columns.places), len(rows.places)))
        grad_stack = torch.zeros_like(stack)
        for c, column in enumerate(columns.places):
            spread_back(grad_stack, 2, column, 0, grad_regions[:, :, :, c])
        for a, row in enumerate(rows.places):
            spread_back(grad_pixels[b], 1, row, y.start, grad_stack[..., a, :])
        if slopes is not None:
            slope = GammaSlope(stack, 2)
            slopes += [slope(column, grad_regions[:, :, :, c]) for c, column in enumerate(columns.places)]
            for a, row in enumerate(rows.places):
                band = pixels[b].narrow(1, row.first + y.start - 1, stack.shape[1] + 2)
                slopes.append(GammaSlope(band, 1, 1 - row.first)(row, grad_stack[..., a, :]))
    return grad_pixels, grad_channel, *((None, None) if generator is None else generator[1:])


def _columns(pixels: Tensor, y: slice, axes: list[RegionAxis]) -> Tensor:
    """Read x at the places of the height around some image rows: B x rows x W' x s x C."""
    rows, _ = axes
    length = y.stop - y.start
    images, _, across, features = pixels.shape
    stack = pixels.new_empty(images, length, across, len(rows.places), features)
    for a, row in enumerate(rows.places):
        blend(pixels, 1, row, y.start, length, out=stack[..., a, :])
    return stack


def _regions(stack: Tensor, axes: list[RegionAxis]) -> Tensor:
    """Read columns at the places of the width: B x rows x W x s^2 x C. A view where neighbours' regions overlap."""
    _, columns = axes
    side = len(columns.places)
    if _overlap(stack, axes):
        windows = stack.narrow(2, columns.places[0].first, columns.size + side - 1).unfold(2, side, 1)
        return windows.movedim(-1, 3).flatten(3, 4)
    regions = stack.new_empty(*stack.shape[:2], columns.size, side, *stack.shape[3:])
    for c, column in enumerate(columns.places):
        blend(stack, 2, column, 0, columns.size, out=regions[:, :, :, c])
    return regions.flatten(3, 4)


def _overlap(stack: Tensor, axes: list[RegionAxis]) -> bool:
    """Return whether the regions of neighbours in a row share memory. A GPU wants few large batches instead."""
    return axes[1].adjacent and stack.device.type not in _PIECE


def _multiply(left: Tensor, right: Tensor, out: Tensor, axes: list[RegionAxis]) -> None:
    """Multiply B x rows x W matrices, where one factor is `_regions`."""
    if not _overlap(out, axes):
        torch.bmm(_matrices(left), _matrices(right), out=_matrices(out))
        return
    for factors in zip(*(t.flatten(0, 1) for t in (left, right, out)), strict=True):
        torch.bmm(*factors[:2], out=factors[2])


def _generate_backward(
    grad_kernels: Tensor, channel: Tensor, weight: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> Tensor:
    """Return the gradient in a piece of the map that U is made of, and add those in weight and bias to theirs."""
    grads, vectors = grad_kernels.flatten(0, 2).flatten(1), channel.flatten(0, 2)
    grad_bias += grads.sum(0)
    grads, vectors = grads.to(weight.dtype), vectors.to(weight.dtype)
    if weight.dtype == grad_weight.dtype:
        torch.addmm(grad_weight, grads.mT, vectors, out=grad_weight)
    else:  # half precision: the sum over pieces is wider than a piece
        grad_weight += grads.mT @ vectors
    return (grads @ weight).view(channel.shape)


def _matrices(piece: Tensor) -> Tensor:
    """View B x rows x W x m x n as one batch of matrices."""
    return piece.reshape(-1, *piece.shape[-2:])


def _pieces(batch: int, parts: int, values: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Cut images of `parts` rows or channels, with `values` values each, into some whole images or a part of one."""
    limit = _PIECE.get(device.type, _CPU_PIECE)
    at_once = min(parts, max(1, limit // values))
    images = max(1, limit // (values * parts)) if at_once == parts else 1
    for b in range(0, batch, images):
        for part in range(0, parts, at_once):
            yield slice(b, min(b + images, batch)), slice(part, min(part + at_once, parts))


def _taps_of(x: Tensor, k: int, axes: list[RegionAxis]) -> Tensor:
    """Compute xbar(. + j) on the padded map, B x k^2 x 1 x H' x W'."""
    reach = (k - 1) // 2
    plane = nn.functional.pad(padded(x.sum(1), axes), [reach] * 4)
    height, width = plane.shape[-2] - 2 * reach, plane.shape[-1] - 2 * reach
    windows = [plane[:, None, dy : dy + height, dx : dx + width] for dy in range(k) for dx in range(k)]
    return torch.stack(windows, 1)


def _untapped(grad_taps: Tensor, k: int, axes: list[RegionAxis]) -> Tensor:
    """Apply the transpose of `_taps_of` in xbar: B x H x W."""
    reach = (k - 1) // 2
    batch, _, _, height, width = grad_taps.shape
    plane = grad_taps.new_zeros(batch, height + 2 * reach, width + 2 * reach)
    for n in range(k * k):
        dy, dx = divmod(n, k)
        plane[:, dy : dy + height, dx : dx + width] += grad_taps[:, n, 0]
    return inside(plane[:, reach : reach + height, reach : reach + width], axes)


def _residual(tap: Tensor, features: int) -> Tensor:
    """Compute V': since xbar = sum_u x_u, the residual 1/C of the channel kernels is 1/C more at the centre tap."""
    tap = tap.clone()
    tap[:, tap.shape[1] // 2] += 1 / features
    return tap


def _side(square: int) -> int:
    side = math.isqrt(square)
    if side * side != square:
        raise ModelError(f"The numbers of samples and of taps are squares. Got {square}. Nearest legal: {side**2}.")
    return side
