"""Bilinear resampling of maps at real steps, with a gradient in the step: what inflation and interpolation share.

A map is resampled axis by axis. Along its last axis all lines are multiplied with a matrix; along another a target is a
mix of two whole rows, which is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from rfsearch.layers.precision import inner, no_autocast, wide

# A step is kept in single precision: a product such as f (H-1) that should be whole may miss it by this fraction.
ROUNDING = 2.0**-23
# Values of a map that are resampled at a time on a CPU, together with several as large.
_CACHED = 2**18

_Array = NDArray[Any]


def resample(
    x: Tensor,
    f: Tensor | float,
    size: tuple[int, ...],
    step: float,
    step_slope: float,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Sample every map of x, B x C x one to three axes, bilinearly every `step` px from its first pixel on, `size`
    times an axis; beyond its last pixel it repeats that one. Returns B x C x size, in the type of x.

    f gets a gradient if it is a tensor that asks for one: step_slope is d step / d f, and pixel_weight, B x 1 x size,
    what each target pixel counts in it. A sample on a pixel has two slopes, one each side; f gets their mean.
    Differentiable once.
    """
    learned = isinstance(f, Tensor) and f.requires_grad and torch.is_grad_enabled()
    if step == 1 and size == x.shape[2:] and not learned:
        return x
    # The output keeps the type of x: autocast would otherwise round a single precision map to half.
    with no_autocast(x.device):
        output: Tensor = _Resample.apply(x, f, size, step, step_slope, pixel_weight, learned)
    return output


def on_pixels(target: int, step: float) -> bool:
    """Whether one of so many samples, the first aside, falls on a pixel: its two slopes are twice the work."""
    position = np.arange(1, target) * step
    return bool((_snapped(position) % 1 == 0).any())


class _Resample(torch.autograd.Function):
    """V = Y U X^T for every channel U of a 2-D map, with Y and X the weights of eq. 1 as matrices, axis by axis; some
    maps at a time, so that what is in between stays in the caches."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        f: Tensor | float,
        size: tuple[int, ...],
        step: float,
        step_slope: float,
        pixel_weight: Tensor | None,
        learned: bool,
    ) -> Tensor:
        *others, last = (_Samples(n, t, step) for n, t in zip(x.shape[2:], size, strict=True))
        rows, line = [_Rows(samples, axis, x) for axis, samples in enumerate(others, start=1)], _Line(last, x)
        maps, output = x.reshape(-1, *x.shape[2:]), x.new_empty(x.shape[0] * x.shape[1], *size)
        for piece in _pieces(output):
            line.moved(_pushed(maps[piece], rows), out=output[piece])
        ctx.save_for_backward(*((x, f, pixel_weight) if learned else (None, None, None)))
        ctx.rows, ctx.line, ctx.step_slope = rows, line, step_slope
        return output.view(*x.shape[:2], *size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, line = ctx.rows, ctx.line
        x, f, pixel_weight = ctx.saved_tensors
        grad_x = grad_f = None
        with no_autocast(grad.device):
            if ctx.needs_input_grad[0]:
                source = [axis.samples.source for axis in (*rows, line)]
                grads, pulled = grad.reshape(-1, *grad.shape[2:]), grad.new_empty(grad.shape[:2].numel(), *source)
                for piece in _pieces(grads):
                    line.pulled(_pulled(grads[piece], rows), out=pulled[piece])
                grad_x = pulled.view(*grad.shape[:2], *source)
            if f is not None:
                counted = grad if pixel_weight is None else grad * pixel_weight.to(grad.dtype)
                grad_f = (
                    (ctx.step_slope * _summed_slope(counted, x, [*rows, line])).to(f.device, f.dtype).reshape(f.shape)
                )
        return grad_x, grad_f, None, None, None, None, None


def _pushed(maps: Tensor, axes: Sequence[_Rows | _Line]) -> Tensor:
    """N x one axis or more, resampled along them."""
    for axis in axes:
        maps = axis.moved(maps)
    return maps


def _slope(maps: Tensor, axes: Sequence[_Rows | _Line]) -> Tensor:
    """What resampled maps change by with the step, that of all axes (eq. 5)."""
    *others, last = axes
    if not others:
        return last.sloped(maps)
    return last.sloped(_pushed(maps, others)) + last.moved(_slope(maps, others))


def _pulled(grads: Tensor, rows: Sequence[_Rows]) -> Tensor:
    """From the gradient of resampled maps that of the maps."""
    for axis in rows:
        grads = axis.pulled(grads)
    return grads


def _summed_slope(grad: Tensor, x: Tensor, axes: Sequence[_Rows | _Line]) -> Tensor:
    """The derivative in the step of what has grad as its gradient in resampled maps."""
    if x.dim() == 4 and x.dtype in (torch.float32, torch.float64):
        return _summed_slope_by_grid(grad, x, [axis.samples for axis in axes])
    grads, maps = grad.flatten(0, 1), x.flatten(0, 1)
    total = grad.new_zeros((), dtype=wide(grad))
    for piece in _pieces(grads):
        total = total + inner(grads[piece], _slope(maps[piece], axes))
    return total


def _summed_slope_by_grid(grad: Tensor, x: Tensor, samples: Sequence[_Samples]) -> Tensor:
    """The same by torch's gradient of a grid of samples, which needs nothing as large as the resampled maps."""
    # A grid's slope at a pixel is that of one side.
    sides = [s.beside(-1, x.dtype) for s in samples], [s.beside(1, x.dtype) for s in samples]
    passes = sides if any((a != b).any() for a, b in zip(*sides, strict=True)) else sides[:1]
    total = grad.new_zeros(())
    for down, along in passes:
        # positions in -1 .. 1, horizontal first
        ends = [_like(2 * p / max(s.source - 1, 1) - 1, x) for p, s in zip((down, along), samples, strict=True)]
        grid = torch.stack(torch.meshgrid(*ends, indexing="ij")[::-1], dim=-1).expand(len(x), -1, -1, -1)
        by_grid = torch.ops.aten.grid_sampler_2d_backward(grad, x, grid, 0, 1, True, [False, True])[1].sum(0)
        for axis, s in enumerate(samples):
            by_target = by_grid[..., 1 - axis].sum(1 - axis) * (2 / max(s.source - 1, 1))
            total = total + inner(by_target, _like(s.index * s.inside, x)) / len(passes)
    return total


class _Samples:
    """Where the targets of one axis sample its source, px, and how fast that moves with the step."""

    def __init__(self, source: int, target: int, step: float) -> None:
        self.source = source
        self.index = np.arange(target, dtype=float)
        asked = _snapped(self.index * step)
        self.inside = asked <= source - 1
        self.position = asked.clip(max=source - 1)
        before = np.floor(self.position)
        self.part = self.position - before
        # Around a sample on a pixel lie its two neighbours, whose slope is the mean of the two sides'.
        low, high = (np.ceil(self.position) - 1).clip(min=0), (before + 1).clip(max=source - 1)
        self.speed = self.index * self.inside / (high - low).clip(min=1)
        self.ends, self.around = np.stack([before, high]).astype(int), np.stack([low, high]).astype(int)

    def beside(self, side: int, dtype: torch.dtype) -> _Array:
        """The positions, but where that is a pixel a little off it: before it, or, unless it is the last, after it."""
        off = 4 * self.source * torch.finfo(dtype).eps
        on_pixel = (self.part == 0) & (self.index > 0) & self.inside
        last = self.position == self.source - 1
        return np.where(on_pixel, self.position + np.where(last, -1, side) * off, self.position)

    def weights(self) -> _Array:
        """Bilinear weights (eq. 1), target x source: row t holds max(0, 1 - |position of t - n|)."""
        return self._matrix(self.ends, 1 - self.part, self.part)

    def slopes(self) -> _Array:
        """The derivative of the weights in the step, target x source."""
        return self._matrix(self.around, -self.speed, self.speed)

    def _matrix(self, ends: _Array, *values: _Array) -> _Array:
        matrix = np.zeros((len(self.part), self.source))
        for end, value in zip(ends, values, strict=True):
            np.add.at(matrix, (np.arange(len(end)), end), value)
        return matrix


class _Line:
    """The last axis of maps, N x axes: all lines times a matrix. like: a tensor of their type, where they are."""

    def __init__(self, samples: _Samples, like: Tensor) -> None:
        self.samples, self.like = samples, like.new_empty(0)

    def moved(self, maps: Tensor, out: Tensor | None = None) -> Tensor:
        """Maps, resampled."""
        return torch.matmul(maps, self._weights.mT, out=out)

    def sloped(self, maps: Tensor) -> Tensor:
        """What resampled maps change by with the step."""
        return torch.matmul(maps, _like(self.samples.slopes().T, self.like))

    def pulled(self, grads: Tensor, out: Tensor | None = None) -> Tensor:
        """`moved`, transposed: from the gradient of resampled maps to that of the maps."""
        return torch.matmul(grads, self._weights, out=out)

    @cached_property
    def _weights(self) -> Tensor:
        return _like(self.samples.weights(), self.like)


class _Rows:
    """Another axis of maps, by its number from 1: as `_Line`, but rows are mixed and, backwards, every map multiplied
    with a matrix."""

    def __init__(self, samples: _Samples, axis: int, like: Tensor) -> None:
        self.samples, self.axis, self.like = samples, axis, like.new_empty(0)
        self.by_row = [-1, *[1] * (like.dim() - 2 - axis)]

    def moved(self, maps: Tensor) -> Tensor:
        before, after, part = self._mixed
        return torch.lerp(maps.index_select(self.axis, before), maps.index_select(self.axis, after), part)

    def sloped(self, maps: Tensor) -> Tensor:
        low, high, speed = self._differing
        return (maps.index_select(self.axis, high) - maps.index_select(self.axis, low)) * speed

    def pulled(self, grads: Tensor) -> Tensor:
        matrix, lines = self._weights_back, grads.flatten(0, self.axis - 1).flatten(2)
        product = torch.bmm(matrix.expand(lines.shape[0], *matrix.shape), lines)
        return product.view(*grads.shape[: self.axis], self.samples.source, *grads.shape[self.axis + 1 :])

    @cached_property
    def _mixed(self) -> tuple[Tensor, Tensor, Tensor]:
        before, after = torch.tensor(self.samples.ends, device=self.like.device)
        return before, after, _like(self.samples.part, self.like).view(self.by_row)

    @cached_property
    def _differing(self) -> tuple[Tensor, Tensor, Tensor]:
        low, high = torch.tensor(self.samples.around, device=self.like.device)
        return low, high, _like(self.samples.speed, self.like).view(self.by_row)

    @cached_property
    def _weights_back(self) -> Tensor:
        return _like(self.samples.weights().T, self.like)


def _like(values: _Array, x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype, device=x.device)


def _snapped(position: _Array) -> _Array:
    """Positions that miss a whole pixel by rounding only, put back onto it."""
    whole = position.round()
    return np.where(np.isclose(position, whole, rtol=2 * ROUNDING, atol=0), whole, position)


def _pieces(maps: Tensor) -> list[slice]:
    """Some maps at a time: on a CPU as many as the caches hold with what is made of them; else, and where a program for
    any number of images is exported, all."""
    if maps.device.type != "cpu" or torch.compiler.is_exporting():
        return [slice(None)]
    count = max(1, _CACHED // math.prod(maps.shape[1:]))
    return [slice(start, start + count) for start in range(0, len(maps), count)]
