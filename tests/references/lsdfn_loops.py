"""The filtering of LS-DFN (Wu et al., ECCV 2018) as loops over everything, one line an equation. Slow and obvious.

Eq. 2: an output sums over sampled regions, weighted by attention. Eq. 4: the regions lie gamma (a - (s-1)/2,
b - (s-1)/2) px around a position. Eq. 5: sampling attention is read at the sampling place p, position attention at the
sampled place q, and 1 is added to both. Eq. 7, corrected: as printed, eq. 6 and 7 contradict Fig. 5 and the text; we
follow the text, V (shared over input channels) at every tap and U + 1/C at the centre tap. Our reading besides: the
division by s^2, and that for a real gamma x and A are each read bilinearly, zero outside the map.

Layouts are those of `rfsearch.layers.lsdfn.dynamic_filter`, one image at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Plane = list[list[float]]


def read(plane: Plane, y: float, x: float) -> float:
    """A map H x W at any place: bilinear, zero outside."""
    total = 0.0
    for n in (math.floor(y), math.floor(y) + 1):
        for m in (math.floor(x), math.floor(x) + 1):
            if 0 <= n < len(plane) and 0 <= m < len(plane[0]):
                total += (1 - abs(y - n)) * (1 - abs(x - m)) * plane[n][m]
    return total


def dynamic_filter(x: Tensor, u: Tensor, v: Tensor, s: Tensor, a: Tensor, gamma: float) -> Tensor:
    """x: B x C x H x W, u: B x H x W x C' x C, v, a: B x k^2 x C' x H x W, s: B x s^2 x C' x H x W."""
    y = torch.zeros(x.shape[0], u.shape[3], *x.shape[-2:], dtype=torch.float64)
    # the output channel goes first, then come the taps or samples, then the pixels
    v, s, a = (t.transpose(1, 2) for t in (v, s, a))
    for image in range(y.shape[0]):
        maps = x[image].tolist()
        for out in range(y.shape[1]):
            own = [t[image, out].tolist() for t in (v, s, a)]
            for row in range(y.shape[2]):
                for column in range(y.shape[3]):
                    mixture = u[image, row, column, out].tolist()
                    y[image, out, row, column] = output_at(maps, mixture, *own, gamma, row, column)
    return y


def output_at(
    x: list[Plane],
    u: list[float],
    v: list[Plane],
    s: list[Plane],
    a: list[Plane],
    gamma: float,
    row: int,
    column: int,
) -> float:
    """One output at p = (row, column). x: C x H x W, u: C, v and a: k^2 x H x W, s: s^2 x H x W."""
    side, taps = math.isqrt(len(s)), math.isqrt(len(v))
    total = 0.0
    for i in range(side):
        for j in range(side):
            # eq. 4
            q_y, q_x = row + gamma * (i - (side - 1) / 2), column + gamma * (j - (side - 1) / 2)
            region = 0.0
            for dy in range(taps):
                for dx in range(taps):
                    tap = dy * taps + dx
                    filtered = 0.0
                    for channel in range(len(x)):
                        # eq. 7, corrected
                        weight = v[tap][row][column]
                        if dy == dx == (taps - 1) // 2:
                            weight += u[channel] + 1 / len(x)
                        filtered += weight * read(x[channel], q_y + dy - (taps - 1) // 2, q_x + dx - (taps - 1) // 2)
                    region += (1 + read(a[tap], q_y, q_x)) * filtered
            # eq. 2 and 5
            total += (1 + s[i * side + j][row][column]) * region
    return total / side**2
