"""Resample maps bilinearly at real steps, with a gradient in the step: what inflation and interpolation share.

A map is resampled axis by axis. A target row is a mix of two source rows, and torch's bags of embeddings are exactly
that: weighted sums of whole rows, in one pass. For its last axis a map is transposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from rfsearch.layers.gathering import gather
from rfsearch.layers.once import differentiable_once, tie
from rfsearch.layers.one_call import Working, one_call
from rfsearch.layers.precision import at_least_single, inner_product, no_autocast

# A step is kept in single precision: a product such as f (H-1) that should be whole may miss it by this fraction.
ROUNDING = 2.0**-23
# Values of maps that are resampled at a time by each thread of a CPU, together with several as large.
_CACHED = 150_000

_Array = NDArray[Any]


def resample(
    x: Tensor,
    f: Tensor | float,
    size: tuple[int, ...],
    step: float,
    step_slope: float,
    pixel_weight: Tensor | None = None,
    held: bool = False,
    last: Sequence[float | Tensor] | None = None,
    fades: bool = False,
) -> Tensor:
    """Sample every map of x bilinearly, every `step` px from its first pixel on.

    A sample on a pixel has two slopes, one on each side, and f gets their mean. Differentiable once.

    Args:
        x: B x C x one to three axes.
        f: Gets a gradient if it is a tensor that requires one.
        size: Number of samples on each axis.
        step: Distance between samples, px of x.
        step_slope: d step / d f.
        pixel_weight: Weight of each target pixel in f's gradient, B x 1 x size.
        held: Whether x is kept for other gradients anyway, so that keeping it for f's costs nothing.
        last: On each axis, the number of steps after which all further samples are taken; a real number, which is a
            tensor where a program is exported. None: any.
        fades: Whether a map is continued by pixels of 0 beyond its last one. Otherwise it repeats its last pixel.

    Returns:
        B x C x size, in the type of x.
    """
    if torch.compiler.is_exporting():
        return x if step == 1 and _statically_equal(size, x.shape[2:]) else gather(x, size, step, last, fades)
    learned = isinstance(f, Tensor) and f.requires_grad and torch.is_grad_enabled()
    ends = [math.inf] * len(size) if last is None else last
    whole = all(end >= n - 1 for end, n in zip(ends, size, strict=True))
    if step == 1 and size == x.shape[2:] and whole and not learned:
        return x
    samples = [_samples(*axis, step, fades) for axis in zip(x.shape[2:], size, ends, strict=True)]
    # The output keeps the type of x: autocast would otherwise round a single precision map to half.
    with no_autocast(x.device):
        tied = tie(x) if learned and x.requires_grad else None  # the slope for f depends on x, which may not be kept
        output: Tensor = _Resample.apply(x, f, samples, step_slope, pixel_weight, learned, held, tied)
    return output


def _statically_equal(size: Sequence[int], other: Sequence[int]) -> bool:
    return all(statically_known_true(n == m) for n, m in zip(size, other, strict=True))


class _Resample(torch.autograd.Function):
    """Compute V = (Y x X) U for every channel U of a 2-D map, with Y and X the weights of eq. 1 as matrices.

    With the step V changes by T = (Y' x X + Y x X') U (eq. 5), so the step's gradient is <grad, T>. T is kept for it,
    unless U is held anyway or is smaller. Where maps grow, <T^T grad, U> is computed instead.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        f: Tensor | float,
        samples: Sequence[_Samples],
        step_slope: float,
        pixel_weight: Tensor | None,
        learned: bool,
        held: bool,
        tied: Tensor | None,
    ) -> Tensor:
        grows = _growth(samples) > 1
        held = held or grows
        output = x.new_empty(*x.shape[:2], *(along.target for along in samples))
        slope = torch.empty_like(output) if learned and not held else None
        _move(x, samples, output, slope)
        ctx.save_for_backward(*(f, x if held else slope, pixel_weight, tied) if learned else (None,) * 4)
        ctx.samples, ctx.step_slope, ctx.source, ctx.grows, ctx.held = samples, step_slope, x.shape, grows, held
        return output

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, kept, pixel_weight, _ = ctx.saved_tensors
        grad_x = grad_f = None
        with no_autocast(grad.device):
            if f is not None:
                counted = grad if pixel_weight is None else grad * pixel_weight.to(grad.dtype)
                if ctx.grows:
                    if ctx.needs_input_grad[0] and pixel_weight is None:  # weights count for f alone
                        grad_x = grad.new_empty(ctx.source)
                    total = _move(counted, ctx.samples, grad_x, against=kept, back=True)
                elif ctx.held:
                    total = _move(kept, ctx.samples, None, against=counted)
                else:
                    total = inner_product(counted, kept)
                grad_f = (ctx.step_slope * total).to(f.device, f.dtype).reshape(f.shape)
            if ctx.needs_input_grad[0] and grad_x is None:
                grad_x = grad.new_empty(ctx.source)
                _move(grad, ctx.samples, grad_x, back=True)
        return grad_x, grad_f, None, None, None, None, None, None


def _growth(samples: Sequence[_Samples]) -> float:
    """Return how many target pixels a map has for each source pixel."""
    return math.prod(along.target / along.source for along in samples)


def _maps(x: Tensor) -> Tensor:
    """View B x C x axes as maps in a row, each of at least two axes: 1-D lines stay under their image."""
    return x if x.dim() == 3 else x.flatten(0, 1)


@one_call
def _move(
    x: Tensor,
    samples: Sequence[_Samples],
    values: Tensor | None,
    slopes: Tensor | None = None,
    against: Tensor | None = None,
    back: bool = False,
) -> Tensor:
    """Write the resampled maps of x into `values` and their slopes in the step into `slopes`.

    Besides these, as little as possible is held at a time.

    Args:
        x: The maps.
        samples: Where each axis is sampled.
        values: Gets the resampled maps, if given.
        slopes: Gets their slopes in the step, if given.
        against: What the slopes are multiplied by, if given.
        back: Whether to go from targets to sources: the transpose.

    Returns:
        <against, slopes>, or 0 without `against`.
    """
    maps, kept = _maps(x.detach()), None if against is None else _maps(against)
    into = [(_maps(each), group) for each, group in ((values, 0), (slopes, -1)) if each is not None]
    wanted = "v" * (values is not None) + "s" * (slopes is not None or against is not None)
    growth = _growth(samples) ** (-1 if back else 1)
    several = max(1, len(maps))
    if x.device.type == "cpu":  # as many as fit into the caches with their results
        pieces = maps.numel() * max(1, growth) / (_CACHED * torch.get_num_threads())
        last = back and wanted == "v"  # then most of it is in memory already
        several = math.ceil(several / max(1, math.ceil((1 + last) * pieces)))
    steps = _steps(maps.shape[1:], samples, back, wanted, several, x, growth > 1)
    products = []
    for start in range(0, len(maps), several):
        piece = slice(start, start + several)
        moved = maps[piece].contiguous()
        count = len(moved)
        for step in steps:  # one by one, so that the input of each is freed
            moved = step(moved)
        moved = moved.reshape(count, len(wanted), -1)
        for each, group in into:
            each[piece].flatten(1).copy_(moved[:, group])
        if kept is not None:
            products.append(inner_product(moved[:, -1], kept[piece].flatten(1)))
    return torch.stack(products).sum() if products else torch.zeros((), dtype=at_least_single(x), device=x.device)


def _steps(
    size: Sequence[int],
    samples: Sequence[_Samples],
    back: bool,
    wanted: str,
    most: int,
    like: Tensor,
    grow: bool,
) -> Sequence[Callable[[Tensor], Tensor]]:
    """Return what to do with maps, one step after the other, to resample their last axes.

    Afterwards every axis is where it was.

    Args:
        size: Size of the maps.
        samples: Where each of their last axes is sampled.
        back: Whether to go from targets to sources.
        wanted: "v" for values, "s" for slopes, "vs" for both.
        most: Number of maps at a time.
        like: A tensor of their type.
        grow: Whether maps grow.
    """
    now, groups, steps = list(size), "v", []
    resampled = range(len(now) - len(samples), len(now))
    order = range(len(now))[::-1] if grow else range(len(now))
    last = max(resampled, key=order.index)
    made: dict[tuple[_Samples, str, str], tuple[Tensor, ...]] = {}
    # An axis is resampled while it is the first one. Where maps grow it is moved there from the end, where they shrink
    # it is moved to the end afterwards: in this order less is transposed.
    for axis in order:
        rows, columns = now[axis], math.prod(now[:axis] + now[axis + 1 :])
        if grow:
            steps.append(partial(_transposed, rows=columns, columns=rows))
        if axis in resampled:
            along, after = samples[axis - len(now)], wanted if axis == last or wanted == "v" else "vs"
            key = along, groups, after
            if key not in made:
                made[key] = _repeated(_bags(along, back, groups, after), len(groups) * rows, most, like)
            steps.append(partial(_mixed, bags=made[key], rows=len(groups) * rows, columns=columns, most=most))
            groups, now[axis] = after, along.source if back else along.target
        if not grow:
            steps.append(partial(_transposed, rows=now[axis], columns=columns))
    return steps


def _transposed(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Transpose maps in a row, each of rows x columns, to columns x rows."""
    if maps.device.type != "cpu":
        return maps.reshape(-1, rows, columns).mT.contiguous()
    # Shuffling the last axis as `rows` groups transposes it, in the fastest way that torch offers.
    last = maps.reshape(1, -1, 1, rows * columns).permute(0, 3, 1, 2)
    return torch.native_channel_shuffle(last, rows).permute(0, 2, 3, 1)


def _mixed(maps: Tensor, bags: tuple[Tensor, ...], rows: int, columns: int, most: int) -> Tensor:
    """Mix the rows of maps in a row, each of rows x columns, by bags that are for `most` maps."""
    maps = maps.reshape(-1, columns)
    count = len(maps) // rows
    if count < most:
        bags = tuple(each[: len(each) // most * count] for each in bags)
    index, starts, weights = bags
    return torch.embedding_bag(maps, index, starts, False, 0, False, weights)[0]


def _repeated(bags: tuple[_Array, _Array, _Array], rows: int, most: int, like: Tensor) -> tuple[Tensor, ...]:
    """Repeat the bags of one map, which has that many rows, for each of many."""
    index, starts, weights = bags
    number = np.arange(most, dtype=np.int32)[:, None]
    repeated = torch.from_numpy(weights).to(like.device, like.dtype).expand(most, -1)  # moved once
    moved = (index + number * np.int32(rows), starts + number * np.int32(len(index)))
    return *(torch.from_numpy(each.ravel()).to(like.device) for each in moved), repeated.flatten()


@lru_cache(maxsize=64)
def _bags(along: _Samples, back: bool, groups: str, after: str) -> tuple[_Array, _Array, _Array]:
    """Return the rows that go into each row of a map, where those of each row begin, and their weights.

    Slopes in the step: this axis contributes W' values; what another axis contributed goes on as W slopes.
    """
    source, target = (along.target, along.source) if back else (along.source, along.target)
    blocks = [(0, 0, along.weights)] if "v" in after else []
    if "s" in after:
        blocks.append((len(after) - 1, 0, along.slopes))
    if "s" in groups:
        blocks.append((len(after) - 1, 1, along.weights))
    into, of, weights = [], [], []
    for group_after, group, (targets, sources, values) in blocks:
        ends = (sources, targets) if back else (targets, sources)
        into.append(group_after * target + ends[0])
        of.append(group * source + ends[1])
        weights.append(values)
    bag = np.concatenate(into)
    order = np.argsort(bag, kind="stable")
    sizes = np.bincount(bag, minlength=len(after) * target)
    starts = (np.cumsum(sizes) - sizes).astype(np.int32)
    return np.concatenate(of)[order].astype(np.int32), starts, np.concatenate(weights)[order]


class _Samples(Working):
    """Hold where the targets of one axis sample its source, px, and how fast that moves with the step."""

    def __init__(self, source: int, target: int, last: float, step: float, fades: bool) -> None:
        self.source, self.target = source, target
        index = np.arange(target).clip(max=last)
        asked = _snapped(index * step)
        end = source + 1 if fades else source - 1  # from `source` on, a map that fades is 0
        inside = asked <= end
        position = asked.clip(max=end)
        before = np.floor(position)
        part = position - before
        # Around a sample on a pixel lie its two neighbours, whose slope is the mean of the two sides'.
        low, high = (np.ceil(position) - 1).clip(min=0), (before + 1).clip(max=end)
        speed = index * inside / (high - low).clip(min=1)
        self.weights = self._pairs(before, high, 1 - part, part)
        """Bilinear weights (eq. 1): target, source and max(0, 1 - |position of the target - source|) of each."""
        self.slopes = self._pairs(low, high, -speed, speed)
        """The derivative of the weights in the step, likewise."""

    def _pairs(self, low: _Array, high: _Array, *values: _Array) -> tuple[_Array, _Array, _Array]:
        """Pair every target with two sources; one beyond the last, which is 0, does not count."""
        sources, factors = np.concatenate([low, high]), np.concatenate(values)
        counts = sources < self.source
        within = sources.clip(max=self.source - 1).astype(int)
        return np.tile(np.arange(self.target), 2), within, np.where(counts, factors, 0.0)

    @property
    def work(self) -> Hashable:
        """Return what the cost of resampling depends on."""
        return self.source, self.target  # as many weights and slopes at every step


_samples = lru_cache(maxsize=16)(_Samples)


def _snapped(position: _Array) -> _Array:
    """Return positions, put back onto a whole pixel if they miss that by rounding only."""
    whole = position.round()
    return np.where(np.abs(position - whole) <= 2 * ROUNDING * whole, whole, position)
