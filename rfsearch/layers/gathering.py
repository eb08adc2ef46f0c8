"""Resample maps of any size in a graph that another runtime runs: rows and columns are mixed by a matrix per axis.

`rfsearch.layers.resampling` computes the same on tables for the size at hand; here sizes are symbols, and where each
target lies is computed in the graph. In single precision, since not every runtime has another, and in whole numbers
below 2^31, since some compute with 32 bits whatever the type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# A factor is split into two parts of so many bits each, so that products with sizes stay whole and below 2^31.
_PART = 2**13
_BITS = 12  # of a step, so that its product with a place below 2^12 is exact in single precision
_AHEAD = 2**10


def is_symbol(size: object) -> bool:
    """Return whether a size is one that a graph leaves open."""
    return isinstance(size, torch.SymInt)


def number_of(size: int) -> Tensor:
    """Return a size, which may be a symbol, as a tensor of one number."""
    return torch.full((1,), size, dtype=torch.float32)


def multiple(size: int, f: float, up: bool) -> int:
    """Return a size times a factor as a whole number; a product that misses a whole number by rounding is that number.

    Args:
        size: A symbol, below 2^15.
        f: A factor in single precision, of 1/4 to 8.
        up: Whether to round up, or down.
    """
    high = math.floor(f * _PART)
    low = round((f * _PART - high) * _PART)
    rounding = max(1, round(f * 8))  # 2^-23 of the factor, in units of the lower part
    rest = size * (low - rounding if up else low + rounding) + _AHEAD * _PART
    found = size * high + rest // _PART - _AHEAD
    if not up:
        return found // _PART
    return (found + (rest % _PART + _PART - 1) // _PART + _PART - 1) // _PART


def gather(
    x: Tensor, size: Sequence[int], step: float | Tensor, last: Sequence[float | Tensor] | None, fades: bool
) -> Tensor:
    """Sample every map of x bilinearly; see `rfsearch.layers.resampling.resample`.

    Args:
        x: B x C x one to three axes.
        size: Number of samples on each axis.
        step: Distance between samples, px of x.
        last: On each axis, the number of steps after which all further samples are taken. None: any.
        fades: Whether a map is continued by pixels of 0 beyond its last one.
    """
    for axis, target in enumerate(size):
        places = torch.arange(target, dtype=torch.float32, device=x.device)
        if last is not None:
            end = last[axis]
            places = torch.minimum(places, end) if isinstance(end, Tensor) else places.clamp(max=end)
        x = _mix(x, axis + 2, *_pixels(places, step), fades)
    return x


def _pixels(places: Tensor, step: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the whole pixel at or before each place times the step, and how far it lies beyond that, px."""
    if isinstance(step, Tensor):
        before = (places * step).floor()
        return before, places * step - before
    mantissa, exponent = math.frexp(step)
    coarse = math.ldexp(round(math.ldexp(mantissa, _BITS)), exponent - _BITS)
    exact = places * coarse
    before = exact.floor()
    rest = exact - before + places * (step - coarse)
    carry = rest.floor()
    return before + carry, rest - carry


def _mix(x: Tensor, axis: int, before: Tensor, part: Tensor, fades: bool) -> Tensor:
    """Multiply by the weights max(0, 1 - |place - source|) of eq. 1, which is faster than reading two pixels each."""
    source = x.shape[axis]
    if not fades:
        part = part * (before < source - 1)
        before = before.clamp(max=source - 1)
    distances = before[:, None] - torch.arange(source, dtype=torch.float32, device=x.device) + part[:, None]
    weights = (1 - distances.abs()).clamp(min=0).to(x.dtype)
    if axis == x.dim() - 2:
        return weights @ x
    return (x.movedim(axis, -1) @ weights.mT).movedim(-1, axis)
