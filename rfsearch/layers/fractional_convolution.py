"""Convolve with a dilation that is a real number: the receptive field is learned on the original grid.

Sampling the taps of a kernel bilinearly between the pixels, delta px apart, has the receptive field of inflating the
map by f = d / delta and dilating by d (Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image
parsing networks", CVPR 2017), without maps that grow as f^2. Output pixel p of one axis, in px of the map:

    y(p) = sum_j w_j x(p stride + t_j(delta)),    t_j(n) = n j - floor(n (k-1) / 2) + offset    for whole n,

x bilinear and continued beyond the map as the padding mode says. Between two whole dilations each tap moves in a
straight line. For odd k this is t_j = delta (j - (k-1)/2) + offset; for even k it is what `padding="same"` of torch
does at whole dilations, where the tap that is to one side of the centre alternates.

Several algorithms compute it, and the cheapest runs: see `fractional_conv2d`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rfsearch.errors import ModelError, SpaceError, TrialError, nearest
from rfsearch.layers.once import sealed_gradient
from rfsearch.layers.plain_convolutions import plain_form
from rfsearch.layers.precision import no_autocast
from rfsearch.layers.sampled_convolution import SampledConvolution
from rfsearch.layers.taps import Frame, Pair, snapped

Algorithm = Literal["auto", "plain", "splat", "sampled"]


def fractional_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Tensor | float | tuple[float, float] = 1.0,
    stride: int | Pair = 1,
    padding: str | int | Pair = "same",
    groups: int = 1,
    padding_mode: str = "zeros",
    padded_for: int | Pair = 1,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """Convolve with taps a real number of pixels apart.

    Differentiable once in x, weight, bias and dilation. A tap that lies exactly on a pixel has two slopes, one on each
    side, and the dilation gets their mean.

    The algorithms differ in rounding only: "plain", a convolution, for whole dilations without a gradient; "splat", a
    convolution with the weights spread bilinearly onto whole pixels; "sampled", the map read at every tap, then one
    matrix product. A 3 x 3 kernel is also the sum of four convolutions at the two whole dilations on either side on
    both axes, with shared weights; measured, that is never clearly faster than these three.

    Args:
        x: B x C x H x W.
        weight: O x C/groups x k_h x k_w.
        bias: O, or None.
        dilation: One dilation for both axes or (height, width), px, > 0.
        stride: As for `nn.Conv2d`.
        padding: As for `nn.Conv2d`, meant for the whole dilation `padded_for`. At every other dilation as much is
            padded as keeps that size and centre.
        groups: As for `nn.Conv2d`.
        padding_mode: As for `nn.Conv2d`.
        padded_for: The whole dilation that the padding is meant for, px.
        algorithm: "auto" for the cheapest, or one of the above.

    Returns:
        B x O x H_out x W_out, the size that F.conv2d returns at `padded_for`.

    Raises:
        ModelError: Shapes do not fit, the padded map is too small, or the algorithm does not exist at this dilation.
        SpaceError: The dilation is not above 0.
        TrialError: The dilation is not finite.
    """
    values = check_dilation(dilation)
    learnable = dilation if isinstance(dilation, Tensor) else None
    return convolve_at(
        x,
        weight,
        bias,
        learnable,
        values,
        as_pair(stride),
        padding,
        groups,
        padding_mode,
        as_pair(padded_for),
        algorithm,
    )


def convolve_at(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Tensor | None,
    values: tuple[float, float],
    stride: Pair,
    padding: str | int | Pair,
    groups: int,
    padding_mode: str,
    padded_for: Pair,
    algorithm: str,
) -> Tensor:
    """Compute `fractional_conv2d`.

    `dilation` is what gets a gradient, if anything does; `values` are the dilations of both axes on the host.
    """
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ModelError(
            f"A map is B x C x H x W and a kernel O x C/groups x k_h x k_w. Got x.shape={tuple(x.shape)}, "
            f"weight.shape={tuple(weight.shape)} and groups={groups}."
        )
    if dilation is not None and not (dilation.requires_grad and torch.is_grad_enabled()):
        dilation = None
    paddings = (padding, padding) if isinstance(padding, str) else as_pair(padding)
    if torch.compiler.is_exporting():
        form = plain_form(weight, values, stride, paddings, padded_for, groups, padding_mode)
        return form(x, bias)
    rows, columns = (
        Frame.of(x.shape[2 + a], weight.shape[2 + a], stride[a], paddings[a], padded_for[a]) for a in range(2)
    )
    if padding_mode != "zeros":
        reaches = [
            frame.reach(value, dilation is not None) for frame, value in zip((rows, columns), values, strict=True)
        ]
        x = _continued(x, reaches, padding_mode)
        rows, columns = rows.padded(*reaches[0]), columns.padded(*reaches[1])
    frames = rows, columns
    legal = _costs(weight, frames, values, groups, dilation is not None)
    if algorithm == "auto":
        algorithm = min(legal, key=lambda name: legal[name])
    if algorithm not in legal:
        raise ModelError(
            f"A kernel of {weight.shape[2]} x {weight.shape[3]} taps at dilation {values} has no algorithm "
            f"{algorithm!r}{' with a gradient in the dilation' if dilation is not None else ''}."
            f"{nearest(algorithm, ['auto', *legal])}"
        )
    if algorithm == "sampled":
        axes = rows.axis(values[0]), columns.axis(values[1])
        if _autocast(x.device):
            half = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(half), weight.to(half), None if bias is None else bias.to(half)
        with no_autocast(x.device):
            output: Tensor = SampledConvolution.apply(x, weight, bias, dilation, axes, groups)
        return output
    if algorithm == "splat":
        # It could be differentiated twice and "sampled" could not, and which one runs depends on speed.
        return sealed_gradient(_splat(x, weight, bias, dilation, values, frames, groups), x, weight, dilation)
    return _whole(x, weight, bias, (round(values[0]), round(values[1])), frames, groups)


def _costs(
    weight: Tensor, frames: tuple[Frame, Frame], values: Sequence[float], groups: int, learned: bool
) -> dict[str, float]:
    """Return every algorithm that is legal here with its cost.

    The cost is time as measured on a CPU, forward and backward, in taps of a plain convolution of 1 px dilation.
    """
    taps, covered = weight.shape[2] * weight.shape[3], 1
    for frame, value in zip(frames, values, strict=True):
        places = [place for tap in frame.axis(value).taps for place, _ in tap.weights(learned)]
        covered *= max(places) - min(places) + 1
    # With few channels per group, multiplying is cheap and moving the samples is not.
    sampled = 10.0 if weight.shape[1] == 1 else 5.0 if groups > 1 or weight.shape[1] < 32 else 1.3
    costs = {"splat": float(covered), "sampled": sampled * taps}
    if not learned and all(value.is_integer() for value in values):
        costs["plain"] = 0.0
    return costs


def _whole(x: Tensor, weight: Tensor, bias: Tensor | None, n: Pair, frames: tuple[Frame, Frame], groups: int) -> Tensor:
    """Convolve plainly, at whole dilations."""
    pads = [frame.pad(dilation) for frame, dilation in zip(frames, n, strict=True)]
    stride = frames[0].stride, frames[1].stride
    if all(low == high >= 0 for low, high in pads):
        return F.conv2d(x, weight, bias, stride, (pads[0][0], pads[1][0]), n, groups)
    return F.conv2d(F.pad(x, [*pads[1], *pads[0]]), weight, bias, stride, 0, n, groups)


def _splat(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Tensor | None,
    values: Sequence[float],
    frames: tuple[Frame, Frame],
    groups: int,
) -> Tensor:
    """Convolve once, with the taps' weights spread bilinearly onto the pixels around their places."""
    matrices, pads, learned = [], [], dilation is not None
    for axis, (frame, value) in enumerate(zip(frames, values, strict=True)):
        taps = frame.axis(value).taps
        places = [place for tap in taps for place, _ in tap.weights(learned)]
        low, cells = min(places), max(places) - min(places) + 1
        spread, moved = torch.zeros(2, cells, len(taps), dtype=torch.float64)
        for j, tap in enumerate(taps):
            for place, share in tap.weights():
                spread[place - low, j] += share
            for place, share in tap.slopes() if learned else ():
                moved[place - low, j] += share
        matrix = spread.to(weight)
        if dilation is not None and not weight.is_meta:  # shapes alone have no gradient to move
            matrix = matrix + moved.to(weight) * _zero_with_gradient_of(dilation, axis).to(weight)
        matrices.append(matrix)
        pads.append((-low, low + cells + (frame.count - 1) * frame.stride - frame.size))
    with no_autocast(x.device):
        dense = torch.einsum("ya,ocab,xb->ocyx", matrices[0], weight, matrices[1])
    stride = frames[0].stride, frames[1].stride
    if all(low == high >= 0 for low, high in pads):
        return F.conv2d(x, dense, bias, stride, (pads[0][0], pads[1][0]), 1, groups)
    return F.conv2d(F.pad(x, [*pads[1], *pads[0]]), dense, bias, stride, 0, 1, groups)


def _zero_with_gradient_of(dilation: Tensor, axis: int) -> Tensor:
    """Return zero, with the gradient of the dilation of an axis."""
    value = dilation.reshape(-1)[axis % dilation.numel()]
    return value - value.detach()


def _continued(x: Tensor, reaches: Sequence[Pair], mode: str) -> Tensor:
    """Continue the map beyond its edges as far as the taps reach."""
    for size, reach in zip(x.shape[2:], reaches, strict=True):
        longest = {"reflect": size - 1, "circular": size}.get(mode, max(reach))
        if max(reach) > longest:
            raise ModelError(
                f"{mode} padding continues a map of {size} px by at most {longest} px. Its taps reach {max(reach)} px "
                "beyond: take a smaller dilation, or padding_mode 'replicate' or 'zeros'."
            )
    return F.pad(x, [*reaches[1], *reaches[0]], mode)


def _autocast(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def as_pair(value: int | Sequence[int]) -> Pair:
    """Return the numbers of both axes where one may be given for both."""
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def check_dilation(dilation: Tensor | float | Sequence[float]) -> tuple[float, float]:
    """Return a dilation as (height, width) on the host, whole where only rounding is missing.

    Raises:
        SpaceError: It is neither one number nor two, or not above 0.
        TrialError: It is not finite: its training diverged.
    """
    if isinstance(dilation, Tensor):
        dilation = dilation.detach().reshape(-1).tolist()
    numbers = [float(dilation)] if isinstance(dilation, (int, float)) else [float(number) for number in dilation]
    if len(numbers) not in (1, 2):
        raise SpaceError(f"A dilation is one number, or one per axis (height, width). Got {len(numbers)} of them.")
    for number in numbers:
        if not math.isfinite(number):
            raise TrialError(f"A dilation is finite. Got {number}: its training diverged; lower its rate.")
        if number <= 0:
            raise SpaceError(f"A dilation is greater than 0. Got {number}. The usual range is [0.25, 32].")
    first, second = (snapped(number) for number in (numbers[0], numbers[-1]))
    return first, second
