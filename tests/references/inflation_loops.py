"""The inflation and interpolation layers of Wei et al. (CVPR 2017) as loops, one line an equation. Slow and obvious.

Every function takes a map U as B x C x H x W and returns tensors of the same type. `step` is the distance, in px of
U, between the samples of neighbouring target pixels: 1 / f for inflation (eq. 3), f / F for interpolation (eq. 8).
The loops read lists: they run many times faster than over the elements of a tensor.

With a continuous border, `continued` maps are inflated, to `continuous_size`, and label pixels beyond the `ends` of a
map read what those read, which are real numbers of label pixels.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def inflation_size(source: int, f: float) -> int:
    """Target pixels of one axis, eq. 2."""
    return math.floor(f * (source - 1)) + 1


def continuous_size(source: int, f: float) -> int:
    """The fewest target pixels of one axis that hold every t with t / f < source and one with t / f >= source - 1."""
    inside = [t for t in range(math.ceil(f * source) + 3) if t / f < source - 1e-9]
    reaching = next(t for t in itertools.count() if t / f > source - 1 - 1e-9)
    return max(len(inside), reaching + 1)


def continued(u: Tensor, f: float) -> Tensor:
    """U with as many pixels of 0 behind its last ones as an inflation by f can read."""
    return torch.nn.functional.pad(u, (0, 1 + math.ceil(1 / f)) * (u.dim() - 2))


def hat(distance: float) -> float:
    """Weight of a source pixel `distance` px away from the sampled place."""
    return max(0.0, 1.0 - abs(distance))


def slope(line: list[float], place: float) -> float:
    """Derivative of the piecewise linear `line` at `place`; on a pixel, the mean of the slopes either side of it."""
    n = len(line)
    left = math.ceil(place) - 1
    right = math.floor(place) + 1
    slopes = [line[m + 1] - line[m] for m in range(left, right) if m >= 0 and m + 1 < n]
    return sum(slopes) / len(slopes) if slopes else 0.0


def resample(u: Tensor, step: float, size: tuple[int, int]) -> Tensor:
    """Eq. 1: V[t_y, t_x] is the sum over n, m of U[n, m] hat(y_s - n) hat(x_s - m)."""
    batch, channels, height, width = u.shape
    v, maps = u.new_zeros(batch, channels, *size), u.tolist()
    for b in range(batch):
        for c in range(channels):
            for ty in range(size[0]):
                for tx in range(size[1]):
                    ys, xs = min(ty * step, height - 1), min(tx * step, width - 1)
                    total = 0.0
                    for n in range(height):
                        for m in range(width):
                            total += maps[b][c][n][m] * hat(ys - n) * hat(xs - m)
                    v[b, c, ty, tx] = total
    return v


def gradient_in_map(u: Tensor, step: float, grad: Tensor) -> Tensor:
    """Eq. 4: dL/dU[n, m] is the sum over target pixels of dL/dV hat(y_s - n) hat(x_s - m)."""
    batch, channels, height, width = u.shape
    result, grads = torch.zeros_like(u), grad.tolist()
    for b in range(batch):
        for c in range(channels):
            for n in range(height):
                for m in range(width):
                    total = 0.0
                    for ty in range(grad.shape[2]):
                        for tx in range(grad.shape[3]):
                            ys, xs = min(ty * step, height - 1), min(tx * step, width - 1)
                            total += grads[b][c][ty][tx] * hat(ys - n) * hat(xs - m)
                    result[b, c, n, m] = total
    return result


def gradient_in_step(u: Tensor, step: float, grad: Tensor) -> float:
    """The sum over target pixels of dL/dV (dU/dy dy_s/dstep + dU/dx dx_s/dstep), with dy_s/dstep = t_y, or 0 beyond
    the last pixel of U."""
    batch, channels, height, width = u.shape
    total, maps, grads = 0.0, u.tolist(), grad.tolist()
    for b in range(batch):
        for c in range(channels):
            for ty in range(grad.shape[2]):
                for tx in range(grad.shape[3]):
                    ys, xs = min(ty * step, height - 1), min(tx * step, width - 1)
                    # the row at height y_s and the column at x_s, as lines along the other axis
                    row = [sum(maps[b][c][n][m] * hat(ys - n) for n in range(height)) for m in range(width)]
                    column = [sum(maps[b][c][n][m] * hat(xs - m) for m in range(width)) for n in range(height)]
                    along_y = slope(column, ys) * ty if ty * step <= height - 1 else 0.0
                    along_x = slope(row, xs) * tx if tx * step <= width - 1 else 0.0
                    total += grads[b][c][ty][tx] * (along_y + along_x)
    return total


def inflate(u: Tensor, f: float) -> Tensor:
    """Eq. 1-3."""
    return resample(u, 1 / f, (inflation_size(u.shape[2], f), inflation_size(u.shape[3], f)))


def inflate_gradient_in_f(u: Tensor, f: float, grad: Tensor) -> float:
    """Eq. 5: dV/df = -(x_s dU/dx + y_s dU/dy) / f, with x_s = t_x / f."""
    return gradient_in_step(u, 1 / f, grad) * (-1 / f**2)


def interpolate(u: Tensor, f: float, stride: float, size: tuple[int, int]) -> Tensor:
    """Eq. 8: inflation by f' = F / f, onto a label map of a given size."""
    return resample(u, f / stride, size)


def interpolate_gradient_in_f(u: Tensor, f: float, stride: float, grad: Tensor) -> float:
    """Eq. 9: dx_s/df = t_x / F."""
    return gradient_in_step(u, f / stride, grad) / stride


Ends = tuple[float, ...] | None


def indices(target: tuple[int, ...], ends: Ends) -> list[float]:
    """The label pixel that each axis of a target stands for."""
    return [min(i, end) for i, end in zip(target, ends or [math.inf] * len(target), strict=True)]


def resample_any(u: Tensor, step: float, size: tuple[int, ...], ends: Ends = None) -> Tensor:
    """Eq. 1 for any number of axes: V[t] is the sum over n of U[n] times the product over axes a of hat(s_a - n_a)."""
    v = u.new_zeros(*u.shape[:2], *size)
    for t in itertools.product(*map(range, size)):
        for n in itertools.product(*map(range, u.shape[2:])):
            index = indices(t, ends)
            weights = [hat(min(i * step, last - 1) - m) for i, m, last in zip(index, n, u.shape[2:], strict=True)]
            if share := math.prod(weights):
                v[(..., *t)] += u[(..., *n)] * share
    return v


def gradient_in_map_any(u: Tensor, step: float, grad: Tensor, ends: Ends = None) -> Tensor:
    """Eq. 4 for any number of axes."""
    result = torch.zeros_like(u)
    for n in itertools.product(*map(range, u.shape[2:])):
        for t in itertools.product(*map(range, grad.shape[2:])):
            index = indices(t, ends)
            weights = [hat(min(i * step, last - 1) - m) for i, m, last in zip(index, n, u.shape[2:], strict=True)]
            if share := math.prod(weights):
                result[(..., *n)] += grad[(..., *t)] * share
    return result


def gradient_in_step_any(u: Tensor, step: float, grad: Tensor, ends: Ends = None) -> float:
    """The sum over target pixels of dL/dV times, for each axis, the slope of U along it at the sampled place times the
    target's index on that axis, or 0 beyond the last pixel."""
    total, sizes = 0.0, u.shape[2:]
    for b, c in itertools.product(*map(range, u.shape[:2])):
        for t in itertools.product(*map(range, grad.shape[2:])):
            index = indices(t, ends)
            places = [min(i * step, last - 1) for i, last in zip(index, sizes, strict=True)]
            for axis, last in enumerate(sizes):
                if index[axis] * step > last - 1:
                    continue
                line = [0.0] * last  # U at the sampled place of every other axis
                for n in itertools.product(*map(range, sizes)):
                    weights = [hat(s - m) for a, (s, m) in enumerate(zip(places, n, strict=True)) if a != axis]
                    if share := math.prod(weights):
                        line[n[axis]] += u[(b, c, *n)].item() * share
                total += grad[(b, c, *t)].item() * slope(line, places[axis]) * index[axis]
    return total
