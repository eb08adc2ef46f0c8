"""A convolution at a real dilation as loops: taps placed one by one, the map read bilinearly between four pixels.

All maps are C x H x W lists or tensors of doubles; dilations are px, one per axis. Slow and obvious. The loops read
lists: they run many times faster than over the elements of a tensor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def tap_place(tap: int, taps: int, delta: float) -> float:
    """Where a tap lies along an axis, px from the output's own pixel; whole dilations as torch's padding="same" does:
    d (k-1) // 2 px before. In between it moves in a straight line."""
    below, above = math.floor(delta), math.floor(delta) + 1
    at_below = below * tap - (below * (taps - 1)) // 2
    at_above = above * tap - (above * (taps - 1)) // 2
    return at_below + (delta - below) * (at_above - at_below)


def outside(index: int, size: int, mode: str) -> int | None:
    """The pixel that stands for pixel `index` of an axis, or None for a zero."""
    if 0 <= index < size:
        return index
    if mode == "zeros":
        return None
    if mode == "replicate":
        return min(max(index, 0), size - 1)
    if mode == "circular":
        return index % size
    index = abs(index)  # reflect: -1 -> 1 and size -> size - 2
    return 2 * (size - 1) - index if index >= size else index


def read(plane: list[list[float]], y: float, x: float, mode: str = "zeros") -> float:
    """The plane between four pixels."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            share = (1 - abs(y - row)) * (1 - abs(x - column))
            if share == 0:
                continue
            source = outside(row, len(plane), mode), outside(column, len(plane[0]), mode)
            if None not in source:
                total += share * plane[source[0]][source[1]]
    return total


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: tuple[float, float],
    stride: tuple[int, int] = (1, 1),
    offset: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
    groups: int = 1,
    mode: str = "zeros",
) -> Tensor:
    """x: B x C x H x W. weight: O x C/groups x k_h x k_w. offset: px by which every tap is shifted. size: of the
    output; without it, as many outputs as the stride finds on the map."""
    outputs, inputs, *taps = weight.shape
    size = size or ((x.shape[2] - 1) // stride[0] + 1, (x.shape[3] - 1) // stride[1] + 1)
    y = x.new_zeros(x.shape[0], outputs, *size)
    maps, kernels = x.tolist(), weight.tolist()
    for b in range(x.shape[0]):
        for o in range(outputs):
            first = o // (outputs // groups) * inputs
            for row in range(size[0]):
                for column in range(size[1]):
                    total = 0.0 if bias is None else bias[o].item()
                    for c in range(inputs):
                        for i in range(taps[0]):
                            for j in range(taps[1]):
                                at_y = row * stride[0] + offset[0] + tap_place(i, taps[0], dilation[0])
                                at_x = column * stride[1] + offset[1] + tap_place(j, taps[1], dilation[1])
                                total += kernels[o][c][i][j] * read(maps[b][first + c], at_y, at_x, mode)
                    y[b, o, row, column] = total
    return y


def slope_in_dilation(*args, grad: Tensor, axis: int, **options) -> float:
    """The mean of the slopes either side of one axis' dilation, of the sum of grad * output: the output is linear in
    the dilation over a step this small."""
    x, weight, bias, dilation, *rest = args
    step, sides = 1e-6, []
    here = convolve(x, weight, bias, dilation, *rest, **options)
    for side in (-step, step):
        moved = tuple(value + side * (a == axis) for a, value in enumerate(dilation))
        sides.append(((convolve(x, weight, bias, moved, *rest, **options) - here) * grad).sum().item() / side)
    return sum(sides) / 2


def four_convolutions(x: Tensor, weight: Tensor, dilation: Tensor, groups: int = 1) -> Tensor:
    """A kernel of up to 3 odd taps as four convolutions with the same weights: of the two whole dilations, from 1 on,
    either side on both axes. dilation: (height, width)."""
    total = x.new_zeros(())
    below = dilation.detach().floor()
    part = dilation - below
    for down in (0, 1):
        for right in (0, 1):
            whole = int(below[0]) + down, int(below[1]) + right
            share = (part[0] if down else 1 - part[0]) * (part[1] if right else 1 - part[1])
            convolved = torch.nn.functional.conv2d(x, weight, padding="same", dilation=whole, groups=groups)
            total = total + share * convolved
    return total
