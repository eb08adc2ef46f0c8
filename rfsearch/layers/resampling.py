"""Bilinear resampling of maps at real steps, with a gradient in the step: what inflation and interpolation share.

A map is resampled axis by axis. A target row is a mix of two source rows, and torch's bags of embeddings are just that:
weighted sums of whole rows, in one pass. Along its last axis a map is transposed for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from rfsearch.layers.precision import inner, no_autocast, wide

# A step is kept in single precision: a product such as f (H-1) that should be whole may miss it by this fraction.
ROUNDING = 2.0**-23
# Values of maps that are resampled at a time by each thread of a CPU, together with several as large.
_CACHED = 2**17

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
    samples = [_samples(n, t, step) for n, t in zip(x.shape[2:], size, strict=True)]
    # The output keeps the type of x: autocast would otherwise round a single precision map to half.
    with no_autocast(x.device):
        if torch.compiler.is_exporting():
            return _multiplied(x, samples)
        output: Tensor = _Resample.apply(x, f, samples, step_slope, pixel_weight, learned)
    return output


def _multiplied(x: Tensor, samples: Sequence[_Samples]) -> Tensor:
    """The same with a matrix an axis, which any runtime that a network is exported to knows how to multiply with."""
    for axis, along in enumerate(samples, start=2):
        targets, sources, values = along.weights
        matrix = np.zeros((along.source, along.target))
        np.add.at(matrix, (sources, targets), values)
        x = (x.movedim(axis, -1) @ torch.tensor(matrix, dtype=x.dtype, device=x.device)).movedim(-1, axis)
    return x


class _Resample(torch.autograd.Function):
    """V = (Y x X) U for every channel U of a 2-D map, with Y and X the weights of eq. 1 as matrices. With the step V
    changes by T = (Y' x X + Y x X') U (eq. 5), so the step's gradient is <grad, T>. Where maps grow, U is smaller than
    T, and <T^T grad, U> is taken instead."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        f: Tensor | float,
        samples: Sequence[_Samples],
        step_slope: float,
        pixel_weight: Tensor | None,
        learned: bool,
    ) -> Tensor:
        size = [along.target for along in samples]
        grows = math.prod(size) > math.prod(x.shape[2:])
        output = x.new_empty(*x.shape[:2], *size)
        slope = torch.empty_like(output) if learned and not grows else None
        _move(x, samples, output, slope)
        ctx.save_for_backward(*(f, x if grows else slope, pixel_weight) if learned else (None, None, None))
        ctx.samples, ctx.step_slope, ctx.source, ctx.grows = samples, step_slope, x.shape, grows
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, kept, pixel_weight = ctx.saved_tensors
        grad_x = grad.new_empty(ctx.source) if ctx.needs_input_grad[0] else None
        grad_f = None
        together = f is not None and ctx.grows and pixel_weight is None  # weights count for f alone
        with no_autocast(grad.device):
            if f is not None:
                counted = grad if pixel_weight is None else grad * pixel_weight.to(grad.dtype)
                if ctx.grows:
                    total = _move(counted, ctx.samples, grad_x if together else None, against=kept, back=True)
                else:
                    total = inner(counted, kept)
                grad_f = (ctx.step_slope * total).to(f.device, f.dtype).reshape(f.shape)
            if grad_x is not None and not together:
                _move(grad, ctx.samples, grad_x, back=True)
        return grad_x, grad_f, None, None, None, None


def _maps(x: Tensor) -> Tensor:
    """B x C x axes as maps in a row, each of two axes at least: 1-D lines stay under their image."""
    return x if x.dim() == 3 else x.flatten(0, 1)


def _move(
    x: Tensor,
    samples: Sequence[_Samples],
    values: Tensor | None,
    slopes: Tensor | None = None,
    against: Tensor | None = None,
    back: bool = False,
) -> Tensor:
    """Write the resampled maps of x into values and their slopes in the step into slopes. Returns <against, slopes>.

    back: from targets to sources, the transpose. As little as possible is held at a time beside what is asked for.
    """
    maps, kept = _maps(x.detach()), None if against is None else _maps(against)
    steep = slopes is not None or kept is not None
    several = max(1, len(maps))
    if x.device.type == "cpu":  # as many as the caches hold with what is made of them
        growth = math.prod(along.source / along.target if back else along.target / along.source for along in samples)
        pieces = maps.numel() * max(1, growth) / (_CACHED * torch.get_num_threads())
        several = math.ceil(several / max(1, math.ceil(pieces)))
    first = maps.dim() + 1 - len(samples)
    mixes = [
        _Mix(along, back, axis, groups=1 + (steep and axis > first), after=1 + steep, most=several, like=x)
        for axis, along in enumerate(samples, start=first)
    ]
    total = torch.zeros((), dtype=wide(x), device=x.device)
    for start in range(0, len(maps), several):
        piece = slice(start, start + several)
        moved = maps[piece].unsqueeze(1)
        for mix in mixes:
            moved = mix.rows(moved)  # by its own: what they were made of is not needed while they are mixed
            moved = mix.mixed(moved)
        if values is not None:
            _maps(values)[piece] = moved[:, 0]
        if slopes is not None:
            _maps(slopes)[piece] = moved[:, 1]
        if kept is not None:
            total += inner(moved[:, 1], kept[piece])
    return total


class _Mix:
    """Resamples one axis of maps, N x groups x axes. The groups are values and, if there are two, slopes.

    groups, after: how many there are, and there will be. most: of N. like: of the type of the maps.
    """

    def __init__(
        self, along: _Samples, back: bool, axis: int, groups: int, after: int, most: int, like: Tensor
    ) -> None:
        self._axis, self._after, self._most = axis, after, most
        source, self._length = (along.target, along.source) if back else (along.source, along.target)
        rows, starts, weights = _bags(along, back, groups, after)
        number = np.arange(most, dtype=np.int32)[:, None]
        rows, starts = rows + number * np.int32(groups * source), starts + number * np.int32(len(rows))
        repeated = torch.from_numpy(weights).to(like.device, like.dtype).expand(most, -1)  # moved once
        self._bags = *(torch.from_numpy(each.ravel()).to(like.device) for each in (rows, starts)), repeated.flatten()

    def rows(self, maps: Tensor) -> Tensor:
        """N x groups x axes with the one to resample first."""
        return maps.movedim(self._axis, 2).contiguous()

    def mixed(self, rows: Tensor) -> Tensor:
        count, rest = len(rows), rows.shape[3:]
        index, starts, weights = (each[: len(each) * count // self._most] for each in self._bags)
        mixed = torch.embedding_bag(rows.view(-1, math.prod(rest)), index, starts, False, 0, False, weights)[0]
        return mixed.view(count, self._after, self._length, *rest).movedim(2, self._axis)


@lru_cache(maxsize=64)
def _bags(along: _Samples, back: bool, groups: int, after: int) -> tuple[_Array, _Array, _Array]:
    """The rows that go into each row of a map, where each one's begin, and their weights.

    Slopes in the step: those of this axis are W' values; what another axis gave goes on as W slopes.
    """
    source, target = (along.target, along.source) if back else (along.source, along.target)
    blocks = [(0, 0, along.weights)]
    if after == 2:
        blocks.append((1, 0, along.slopes))
    if groups == 2:
        blocks.append((1, 1, along.weights))
    into, of, weights = [], [], []
    for group_after, group, (targets, sources, values) in blocks:
        ends = (sources, targets) if back else (targets, sources)
        into.append(group_after * target + ends[0])
        of.append(group * source + ends[1])
        weights.append(values)
    bag = np.concatenate(into)
    order = np.argsort(bag, kind="stable")
    sizes = np.bincount(bag, minlength=after * target)
    starts = (np.cumsum(sizes) - sizes).astype(np.int32)
    return np.concatenate(of)[order].astype(np.int32), starts, np.concatenate(weights)[order]


class _Samples:
    """Where the targets of one axis sample its source, px, and how fast that moves with the step."""

    def __init__(self, source: int, target: int, step: float) -> None:
        self.source, self.target = source, target
        index = np.arange(target)
        asked = _snapped(index * step)
        inside = asked <= source - 1
        position = asked.clip(max=source - 1)
        before = np.floor(position)
        part = position - before
        # Around a sample on a pixel lie its two neighbours, whose slope is the mean of the two sides'.
        low, high = (np.ceil(position) - 1).clip(min=0), (before + 1).clip(max=source - 1)
        speed = index * inside / (high - low).clip(min=1)
        twice = np.tile(index, 2)
        self.weights = twice, np.concatenate([before, high]).astype(int), np.concatenate([1 - part, part])
        """Bilinear weights (eq. 1): target, source and max(0, 1 - |position of the target - source|) of each."""
        self.slopes = twice, np.concatenate([low, high]).astype(int), np.concatenate([-speed, speed])
        """The derivative of the weights in the step, likewise."""


_samples = lru_cache(maxsize=16)(_Samples)


def _snapped(position: _Array) -> _Array:
    """Positions that miss a whole pixel by rounding only, put back onto it."""
    whole = position.round()
    return np.where(np.abs(position - whole) <= 2 * ROUNDING * whole, whole, position)
