"""Bilinear resampling of maps at real steps, with a gradient in the step: what inflation and interpolation share.

A map is resampled axis by axis. A target row is a mix of two source rows, and torch's bags of embeddings are just that:
weighted sums of whole rows, in one pass. Along its last axis a map is transposed for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
        for piece, moved in _moved(x, samples, slopes=slope is not None):
            _maps(output)[piece] = moved[:, 0]
            if slope is not None:
                _maps(slope)[piece] = moved[:, 1]
        ctx.save_for_backward(*(f, x if grows else slope, pixel_weight) if learned else (None, None, None))
        ctx.samples, ctx.step_slope, ctx.source, ctx.grows = samples, step_slope, x.shape, grows
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, kept, pixel_weight = ctx.saved_tensors
        grad_x = grad.new_empty(ctx.source) if ctx.needs_input_grad[0] else None
        grad_f = None
        with no_autocast(grad.device):
            counted = grad if pixel_weight is None else grad * pixel_weight.to(grad.dtype)
            along = f is not None and ctx.grows
            total = torch.zeros((), dtype=wide(grad), device=grad.device)
            if along:
                for piece, pulled in _moved(counted, ctx.samples, slopes=True, back=True):
                    total += inner(pulled[:, 1], _maps(kept)[piece])
                    if grad_x is not None:
                        _maps(grad_x)[piece] = pulled[:, 0]
            elif f is not None:
                total = inner(counted, kept)
            if grad_x is not None and not (along and counted is grad):  # weights count for f alone
                for piece, pulled in _moved(grad, ctx.samples, back=True):
                    _maps(grad_x)[piece] = pulled[:, 0]
            if f is not None:
                grad_f = (ctx.step_slope * total).to(f.device, f.dtype).reshape(f.shape)
        return grad_x, grad_f, None, None, None, None


def _maps(x: Tensor) -> Tensor:
    """B x C x axes as maps in a row, each of two axes at least: 1-D lines stay under their image."""
    return x if x.dim() == 3 else x.flatten(0, 1)


def _moved(
    x: Tensor, samples: Sequence[_Samples], slopes: bool = False, back: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Resampled maps, some at a time: which, and N x 1 x axes; with their slopes in the step, N x 2 x axes. back: the
    transpose of that, from targets to sources."""
    maps = _maps(x)
    several = max(1, len(maps))
    if x.device.type == "cpu":  # as many as the caches hold with what is made of them
        growth = math.prod(along.source / along.target if back else along.target / along.source for along in samples)
        pieces = maps.numel() * max(1, growth) / (_CACHED * torch.get_num_threads())
        several = math.ceil(several / max(1, math.ceil(pieces)))
    first = maps.dim() + 1 - len(samples)
    mixes = [
        _Mix(along, back, axis, groups=1 + (slopes and axis > first), after=1 + slopes, most=several, like=x)
        for axis, along in enumerate(samples, start=first)
    ]
    for start in range(0, len(maps), several):
        moved = maps[start : start + several].unsqueeze(1)
        for mix in mixes:
            moved = mix(moved)
        yield slice(start, start + several), moved


class _Mix:
    """Maps, N x groups x axes, with one axis resampled. The groups are values and, if there are two, slopes.

    groups, after: how many there are, and there will be. most: of N. like: of the type of the maps.
    """

    def __init__(
        self, along: _Samples, back: bool, axis: int, groups: int, after: int, most: int, like: Tensor
    ) -> None:
        self._axis, self._after = axis, after
        source, self._length = (along.target, along.source) if back else (along.source, along.target)
        rows, starts, weights = _bags(along, back, groups, after)
        number = np.arange(most, dtype=np.int32)[:, None]
        self._bags = [
            torch.as_tensor(rows + number * np.int32(groups * source), device=like.device),
            torch.as_tensor(starts + number * np.int32(len(rows)), device=like.device),
            torch.tensor(weights, dtype=like.dtype, device=like.device).repeat(most, 1),
        ]

    def __call__(self, maps: Tensor) -> Tensor:
        rows = maps.movedim(self._axis, 2).contiguous()
        count, rest = len(rows), rows.shape[3:]
        index, starts, weights = (each[:count].view(-1) for each in self._bags)
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
    return np.where(np.isclose(position, whole, rtol=2 * ROUNDING, atol=0), whole, position)
