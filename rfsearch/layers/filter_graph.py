"""Filter by kernels of every position in a graph that another runtime runs, on maps of any size.

`rfsearch.layers.dynamic_filter` has the equations and the notation. It works on pieces of a map, in place; here every
step is one operator of the whole map, and what a place reads is a part of the padded map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rfsearch.layers.regions import RegionPlace, places_of


def filter_in_graph(
    x: Tensor,
    channel: Tensor,
    tap: Tensor,
    sampling: Tensor,
    position: Tensor,
    gamma: float,
    weight: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """Compute `rfsearch.layers.dynamic_filter.dynamic_filter`, whose arguments these are; gamma is a plain number.

    Returns:
        B x C' x H x W.
    """
    s, k = math.isqrt(sampling.shape[1]), math.isqrt(tap.shape[1])
    outputs, features = tap.shape[2], x.shape[1]
    height, width = x.shape[-2:]
    pad, places = places_of(s, gamma)

    def read_rows(planes: Tensor) -> Tensor:
        """Read padded maps at the places of the height: B x ... x H' x W' to B x s x ... x H x W'."""
        return torch.stack([_blend(planes, -2, place, height) for place in places], dim=1)

    # G = U x_u(q): one matrix product for every position, over the s x s places, those of a column together.
    rows = read_rows(F.pad(x, [pad] * 4))
    seen = torch.cat([_blend(rows, -1, place, width) for place in places], dim=1)
    kernels = channel
    if weight is not None:
        kernels = F.linear(channel.to(weight.dtype), weight, None if bias is None else bias.to(weight)).to(x.dtype)
        kernels = kernels.unflatten(3, (outputs, features))
    mixed = (kernels @ seen.permute(0, 3, 4, 2, 1)).permute(0, 4, 3, 1, 2)

    reach = (k - 1) // 2
    plane = F.pad(x.sum(1, keepdim=True), [pad + reach] * 4)
    high, wide = height + 2 * pad, width + 2 * pad
    taps = torch.stack([plane.narrow(-2, dy, high).narrow(-1, dx, wide) for dy in range(k) for dx in range(k)], dim=1)
    looks, lights = read_rows(F.pad(position, [pad] * 4) + 1), read_rows(taps)
    gates = sampling + 1
    sums = total = None
    for c, place in enumerate(places):
        look, light = (_blend(each, -1, place, width) for each in (looks, lights))
        gate = gates[:, c::s]  # of the places of this column, by row
        lit = (gate[:, :, None] * (look * light)).sum(1)
        strength = (gate * look[:, :, k * k // 2] * mixed[:, c * s : (c + 1) * s]).sum(1)
        sums = lit if sums is None else sums + lit
        total = strength if total is None else total + strength
    assert sums is not None
    assert total is not None
    residual = torch.zeros(k * k)
    residual[k * k // 2] = 1 / features
    own = tap + residual.to(tap)[:, None, None, None]
    filtered: Tensor = (total + (own * sums).sum(1)) / (s * s)
    return filtered


def _blend(planes: Tensor, dim: int, place: RegionPlace, length: int) -> Tensor:
    """Read `length` pixels at a place, bilinearly along `dim`."""
    before = planes.narrow(dim, place.first, length)
    if not place.part:
        return before
    return before + (planes.narrow(dim, place.first + 1, length) - before) * place.part
