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
from rfsearch.layers.host import check_positive
from rfsearch.layers.once import differentiable_once
from rfsearch.layers.one_call import one_call
from rfsearch.layers.regions import GammaSlope, RegionAxis, blend, inside, padded, padded_pixels, spread_back

# Values of a buffer that is filled and used up piece by piece: on a CPU it should stay in the caches (measured on
# 63 x 63 px, C = 128, C' = 24), a GPU wants large pieces.
_PIECE = {"cuda": 2**25}
_CPU_PIECE = 2**21


def dynamic_filter(
    x: Tensor, channel: Tensor, tap: Tensor, sampling: Tensor, position: Tensor, gamma: Tensor | float
) -> Tensor:
    """Filter a map by kernels of its own at every position (LS-DFN eq. 2, 4, 5 and 7).

        y_v(p) = 1/s^2  sum_ab (1 + S_v,ab(p))  sum_j (1 + A_v,j(q))  sum_u W_v,u,j(p) x_u(q + j),    q = q_ab(p),
        W_v,u,j(p) = V_v,j(p) + [j is the centre] (U_v,u(p) + 1/C).

    Sampling attention is read at the sampling place p, position attention at the sampled place q. x and A are read
    bilinearly and are zero outside the map: where q lies outside, 1 + A is 1, and taps that reach back into the map
    still count. The division by s^2 is our reading, with which a block whose branches are zero averages its features.
    Where gamma puts a place exactly on a pixel, gamma gets the mean of the two slopes. Differentiable once in all
    arguments.

    Args:
        x: Feature maps, B x C x H x W.
        channel: Channel kernels U, B x H x W x C' x C.
        tap: Tap kernels V, B x k^2 x C' x H x W.
        sampling: Sampling attention S, B x s^2 x C' x H x W.
        position: Position attention A, B x k^2 x C' x H x W.
        gamma: Sample stride, a scalar, px of the map, > 0.

    Returns:
        B x C' x H x W.

    Raises:
        ModelError: A shape does not fit.
        SpaceError: gamma is not above 0.
        TrialError: gamma is not finite.
    """
    value = check_positive(gamma, "A sample stride", "gamma", "The usual range is [0.25, 16].")
    if x.dim() != 4 or min(x.shape[1:]) < 1:
        raise ModelError(f"Feature maps are B x C x H x W with C, H, W >= 1. Got x.shape={tuple(x.shape)}.")
    if _side(tap.shape[1]) % 2 == 0:
        raise ModelError(f"A kernel has k x k taps, k odd. Got {tap.shape=}.")
    _side(sampling.shape[1])
    output: Tensor = _Filter.apply(x, channel.contiguous(), tap, sampling, position, gamma, value)
    return output


class _Filter(torch.autograd.Function):
    """Compute two sums over the sampled places, without a kernel of C' x C x k x k or a stack of s^2 maps.

        y_v(p) s^2 = sum_j V'_v,j(p) N_v,j(p)  +  sum_ab T_v,ab(p) sum_u U_v,u(p) x_u(q_ab)
        N_v,j(p) = sum_ab (1 + S_v,ab(p)) (1 + A_v,j(q_ab)) xbar(q_ab + j),    xbar = sum_u x_u
        T_v,ab(p) = (1 + S_v,ab(p)) (1 + A_v,centre(q_ab)),    V' = V, plus 1/C at the centre tap.

    The first sum works on shifted planes of the map, the second on one small matrix product per position, over a few
    image rows at a time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, channel: Tensor, tap: Tensor, sampling: Tensor, position: Tensor, gamma: Any, value: float
    ) -> Tensor:
        s, k = _side(sampling.shape[1]), _side(tap.shape[1])
        axes = [RegionAxis.of(size, s, value, (k - 1) // 2) for size in x.shape[-2:]]
        ctx.axes, ctx.learned = axes, ctx.needs_input_grad[5]
        output, *kept = _filtered(x, channel, tap, sampling, position, axes)
        ctx.save_for_backward(x, channel, tap, sampling, position, *kept, *([gamma] * ctx.learned))
        return output

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, channel, tap, sampling, position, sums, both, mixed, *gammas = ctx.saved_tensors
        gamma = gammas[0] if gammas else None
        grads = _filtered_backward(grad, x, channel, tap, sampling, position, sums, both, mixed, gamma, ctx.axes)
        return *grads, None


@one_call
def _filtered(
    x: Tensor, channel: Tensor, tap: Tensor, sampling: Tensor, position: Tensor, axes: list[RegionAxis]
) -> tuple[Tensor, ...]:
    """Compute y, and N, T and G, which its gradients need."""
    sums, both = _attend(_taps_of(x, _side(tap.shape[1]), axes), sampling, position, axes)
    output = (_residual(tap, x.shape[1]) * sums).sum(1)
    mixed = _mix(padded_pixels(x, axes), channel, both, output, axes)
    return output.div_(sampling.shape[1]), sums, both, mixed


@one_call
def _filtered_backward(
    grad: Tensor,
    x: Tensor,
    channel: Tensor,
    tap: Tensor,
    sampling: Tensor,
    position: Tensor,
    sums: Tensor,
    both: Tensor,
    mixed: Tensor,
    gamma: Tensor | None,
    axes: list[RegionAxis],
) -> tuple[Tensor | None, ...]:
    """Compute the gradients in x, U, V, S, A and gamma; the last is None if gamma is None."""
    k, learned = _side(tap.shape[1]), gamma is not None
    grad = grad / sampling.shape[1]
    slopes = [grad.new_zeros(())]
    grad_pixels, grad_channel, grad_both = _mix_backward(
        grad, padded_pixels(x, axes), channel, both, mixed, axes, slopes if learned else None
    )
    weighted = grad[:, None] * _residual(tap, x.shape[1])
    grad_taps, grad_sampling, grad_position = _attend_backward(
        grad_both, weighted, _taps_of(x, k, axes), sampling, position, axes, slopes if learned else None
    )
    grad_x = inside(grad_pixels.permute(0, 3, 1, 2), axes) + _untapped(grad_taps, k, axes)[:, None]
    grad_gamma = None
    if gamma is not None:
        total = torch.stack(slopes).sum()
        # A tensor of shapes alone has no value to move to gamma's device.
        total = gamma.new_zeros(()) if total.is_meta else total.to(gamma)
        grad_gamma = total.reshape(gamma.shape)
    return grad_x, grad_channel, grad[:, None] * sums, grad_sampling, grad_position, grad_gamma


def _attend(taps: Tensor, sampling: Tensor, position: Tensor, axes: list[RegionAxis]) -> tuple[Tensor, Tensor]:
    """Compute N, B x k^2 x C' x H x W, and T, B x H x W x s^2 x C', from xbar(. + j), padded, B x k^2 x 1 x H' x W'."""
    batch, places, outputs, height, width = sampling.shape
    rows, columns = axes
    sums = torch.zeros_like(position, memory_format=torch.contiguous_format)
    both = sampling.new_empty(batch, height, width, places, outputs)
    centre = taps.shape[1] // 2
    whole = rows.whole and columns.whole
    for b, v in _pieces(batch, outputs, taps.shape[1] * height * width, sampling.device):
        seen, attention, total = taps[b], padded(position[b, :, v], axes), sums[b, :, v]
        gate = sampling[b, :, v] + 1
        marked = torch.addcmul(seen, attention, seen) if whole else attention
        focus = torch.empty_like(gate)
        for n, (row, column) in enumerate((row, column) for row in rows.places for column in columns.places):
            if column is columns.places[0]:
                marked_rows = blend(marked, -2, row, 0, height)
                attention_rows = blend(attention[:, centre], -2, row, 0, height) if whole else marked_rows[:, centre]
                seen_rows = blend(seen, -2, row, 0, height)
            here = blend(marked_rows, -1, column, 0, width)
            if whole:
                at_centre = blend(attention_rows, -1, column, 0, width)
            else:
                at_centre = here[:, centre]
                light = blend(seen_rows, -1, column, 0, width)
                here = torch.addcmul(light, here, light)
            total.addcmul_(gate[:, n, None], here)
            torch.addcmul(gate[:, n], gate[:, n], at_centre, out=focus[:, n])
        both[b, :, :, :, v] = focus.permute(0, 3, 4, 1, 2)
    return sums, both


def _attend_backward(
    grad_both: Tensor,
    weighted: Tensor,
    taps: Tensor,
    sampling: Tensor,
    position: Tensor,
    axes: list[RegionAxis],
    slopes: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients in taps, S and A.

    Args:
        grad_both: dL/dT, B x s^2 x C' x H x W. It is overwritten.
        weighted: dL/dN, B x k^2 x C' x H x W.
        taps: xbar(. + j), padded, B x k^2 x 1 x H' x W'.
        sampling: S.
        position: A.
        axes: The axes of the map.
        slopes: Gets the parts of dL/dgamma, or None if gamma is fixed.
    """
    batch, _, outputs, height, width = sampling.shape
    rows, columns = axes
    grad_taps, grad_position = torch.zeros_like(taps), torch.empty_like(position, memory_format=torch.contiguous_format)
    centre = taps.shape[1] // 2
    once = rows.whole and columns.whole and slopes is None
    for b, v in _pieces(batch, outputs, taps.shape[1] * height * width, sampling.device):
        seen, attention, pull = taps[b], padded(position[b, :, v], axes), weighted[b, :, v]
        gate, grad_focus = sampling[b, :, v] + 1, grad_both[b, :, v]
        grad_attention = torch.zeros_like(attention)
        if once:
            marked, grad_marked = torch.addcmul(seen, attention, seen), torch.zeros_like(attention)
            product = torch.empty_like(pull)
            for n, (row, column) in enumerate((row, column) for row in rows.places for column in columns.places):
                window = (..., slice(row.first, row.first + height), slice(column.first, column.first + width))
                grad_marked[window].addcmul_(pull, gate[:, n, None])
                grad_attention[:, centre][window].addcmul_(grad_focus[:, n], gate[:, n])
                torch.mul(pull, marked[window], out=product)
                grad_focus[:, n].addcmul_(grad_focus[:, n], attention[:, centre][window]).add_(product.sum(1))
            grad_attention.addcmul_(grad_marked, seen)
            grad_taps[b] += grad_marked.addcmul_(grad_marked, attention).sum(2, keepdim=True)
        else:
            for a, row in enumerate(rows.places):
                attention_rows, seen_rows = (blend(t, -2, row, 0, height) for t in (attention, seen))
                attention_slope, seen_slope = GammaSlope(attention_rows, -1), GammaSlope(seen_rows, -1)
                grad_attention_rows, grad_seen_rows = torch.zeros_like(attention_rows), torch.zeros_like(seen_rows)
                for c, column in enumerate(columns.places):
                    n = a * len(columns.places) + c
                    there, light = (blend(t, -1, column, 0, width) for t in (attention_rows, seen_rows))
                    lit = torch.addcmul(pull, pull, there)
                    grad_there = pull * gate[:, n, None]
                    grad_there.mul_(light)
                    grad_there[:, centre].addcmul_(grad_focus[:, n], gate[:, n])
                    grad_light = (lit * gate[:, n, None]).sum(2, keepdim=True)
                    grad_focus[:, n].addcmul_(grad_focus[:, n], there[:, centre]).add_(lit.mul_(light).sum(1))
                    spread_back(grad_attention_rows, -1, column, 0, grad_there)
                    spread_back(grad_seen_rows, -1, column, 0, grad_light)
                    if slopes is not None:
                        slopes += [attention_slope(column, grad_there), seen_slope(column, grad_light)]
                if slopes is not None:
                    slopes.append(GammaSlope(attention, -2)(row, grad_attention_rows))
                    slopes.append(GammaSlope(seen, -2)(row, grad_seen_rows))
                spread_back(grad_attention, -2, row, 0, grad_attention_rows)
                spread_back(grad_taps[b], -2, row, 0, grad_seen_rows)
        grad_position[b, :, v] = inside(grad_attention, axes)
    return grad_taps, grad_both, grad_position


def _mix(pixels: Tensor, channel: Tensor, both: Tensor, output: Tensor, axes: list[RegionAxis]) -> Tensor:
    """Compute G, B x H x W x s^2 x C': sum_u U_v,u(p) x_u(q_ab). Adds sum_ab T G to the output.

    Args:
        pixels: x, padded, B x H' x W' x C.
        channel: U.
        both: T.
        output: B x C' x H x W, changed in place.
        axes: The axes of the map.
    """
    batch, height, width, _, features = channel.shape
    places = both.shape[3]
    mixed = torch.empty_like(both)
    for b, y in _pieces(batch, height, width * places * features, channel.device):
        regions = _regions(pixels[b], y, axes)
        piece = mixed[b, y]
        torch.bmm(regions.view(-1, places, features), _matrices(channel[b, y]).mT, out=_matrices(piece))
        output[b, :, y] += (both[b, y] * piece).sum(3).permute(0, 3, 1, 2)
    return mixed


def _mix_backward(
    grad: Tensor,
    pixels: Tensor,
    channel: Tensor,
    both: Tensor,
    mixed: Tensor,
    axes: list[RegionAxis],
    slopes: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients in pixels, U and T, the last one B x s^2 x C' x H x W.

    See `_attend_backward` for `slopes`.
    """
    batch, height, width, _, features = channel.shape
    rows, columns = axes
    places = both.shape[3]
    grad_pixels, grad_channel = torch.zeros_like(pixels), torch.empty_like(channel)
    grad_both = both.new_empty(batch, places, both.shape[4], height, width)
    for b, y in _pieces(batch, height, width * places * features, channel.device):
        pull = grad[b, :, y].permute(0, 2, 3, 1)[:, :, :, None]
        grad_both[b, :, :, y] = (pull * mixed[b, y]).permute(0, 3, 4, 1, 2)
        strength = _matrices(pull * both[b, y])
        regions = _regions(pixels[b], y, axes)
        torch.bmm(strength.mT, regions.view(-1, places, features), out=_matrices(grad_channel[b, y]))
        grad_regions = regions if slopes is None else torch.empty_like(regions)
        torch.bmm(strength, _matrices(channel[b, y]), out=grad_regions.view(-1, places, features))
        length = grad_regions.shape[1]
        for a, row in enumerate(rows.places):
            if direct := slopes is None and not row.part:
                grad_line = grad_pixels[b].narrow(1, row.first + y.start, length)
            else:
                grad_line = pixels.new_zeros(grad_regions.shape[0], length, *pixels.shape[2:])
            for c, column in enumerate(columns.places):
                spread_back(grad_line, 2, column, 0, grad_regions[:, :, :, a, c])
            if slopes is not None:
                slope = GammaSlope(blend(pixels[b], 1, row, y.start, length), 2)
                slopes += [slope(column, grad_regions[:, :, :, a, c]) for c, column in enumerate(columns.places)]
                band = pixels[b].narrow(1, row.first + y.start - 1, length + 2)
                slopes.append(GammaSlope(band, 1, 1 - row.first)(row, grad_line))
            if not direct:
                spread_back(grad_pixels[b], 1, row, y.start, grad_line)
    return grad_pixels, grad_channel, grad_both


def _regions(pixels: Tensor, y: slice, axes: list[RegionAxis]) -> Tensor:
    """Read x at the sampled places of some image rows: B x rows x W x s x s x C."""
    rows, columns = axes
    length, side = y.stop - y.start, len(rows.places)
    regions = pixels.new_empty(pixels.shape[0], length, columns.size, side, side, pixels.shape[3])
    if rows.step and columns.step:  # one copy takes 15 % less time overall than one per place
        image, down, across, value = pixels.stride()
        start = pixels.storage_offset() + (rows.places[0].first + y.start) * down + columns.places[0].first * across
        strides = (image, down, across, rows.step * down, columns.step * across, value)
        return regions.copy_(pixels.as_strided(regions.shape, strides, start))
    for a, row in enumerate(rows.places):
        line = blend(pixels, 1, row, y.start, length)
        for c, column in enumerate(columns.places):
            blend(line, 2, column, 0, columns.size, out=regions[:, :, :, a, c])
    return regions


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
