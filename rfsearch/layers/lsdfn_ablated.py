"""Build the LS-DFN block without its attention, or without its residual learning, for the paper's ablations.

LS-DFN: Wu, Li, Yang, Bajaj, Ji, "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018, Tables 3 and 4.
The notation is that of `rfsearch.layers.dynamic_filter`. The block itself is `rfsearch.layers.LSDFN`, which is faster;
with both, this one computes the same.

Our readings of what the paper leaves open:
- Without attention "max pooling in channel dimension is adopted": the filtered regions are laid out as channels, and
  the largest is taken.
- Without residual learning neither 1/C is added to a kernel's centre nor 1 to an attention weight. Its branches cannot
  start at zero, where no gradient would leave it, so they start as convolutions do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rfsearch.errors import SpaceError


class AblatedLSDFN(nn.Module):
    """Apply an LS-DFN block with parts left out: B x in_channels x H x W to B x out_channels x H x W.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, C'.
        features: Number C of maps that are filtered.
        s: s x s places are sampled around each position. Odd.
        k: Taps along a kernel's side. Odd.
        gamma: Sample stride, a whole number of px of the map.
        attention: Whether samples are weighed, or the largest is taken.
        residual: Whether kernels and attention are learned as differences from an average.

    Raises:
        SpaceError: s or k is even or below 1, or gamma is below 1.

    Example:
        >>> AblatedLSDFN(16, 4, features=8, s=3, attention=False)(torch.randn(1, 16, 12, 12)).shape
        torch.Size([1, 4, 12, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: int = 128,
        s: int = 3,
        k: int = 3,
        gamma: int = 1,
        attention: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if min(s, k, gamma) < 1 or s % 2 == 0 or k % 2 == 0:
            raise SpaceError(f"s and k are odd and at least 1, gamma at least 1. Got {s=}, {k=}, {gamma=}.")
        self.out_channels, self.features, self.s, self.k, self.gamma = out_channels, features, s, k, gamma
        self._one = 1.0 if residual else 0.0
        self.feature = nn.Conv2d(in_channels, features, 1)
        self.channel_kernels = nn.Conv2d(in_channels, out_channels * features, 1)
        self.tap_kernels = nn.Conv2d(in_channels, k * k * out_channels, 1)
        self.sampling_attention = nn.Conv2d(in_channels, s * s * out_channels, 1) if attention else None
        self.position_attention = nn.Conv2d(in_channels, k * k * out_channels, 1) if attention else None
        branches = (self.channel_kernels, self.tap_kernels, self.sampling_attention, self.position_attention)
        for parameter in [p for branch in branches if branch and residual for p in branch.parameters()]:
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Filter B x in_channels x H x W to B x out_channels x H x W."""
        features = self.feature(x)
        channel = self.channel_kernels(x).unflatten(1, (self.out_channels, self.features)) + self._one / self.features
        tap = self.tap_kernels(x).unflatten(1, (-1, self.out_channels))
        position = None
        if self.position_attention is not None:
            position = self.position_attention(x).unflatten(1, (-1, self.out_channels))
        middle, half = self.k**2 // 2, self.k // 2
        regions = []
        for a in range(self.s):
            for b in range(self.s):
                place = (self.gamma * (a - self.s // 2), self.gamma * (b - self.s // 2))
                read = _shifted(features, place)
                # By tap: the sum over channels, which share V, weighed by it (eq. 7 as the text has it).
                parts = [
                    tap[:, i * self.k + j]
                    * _shifted(features, (place[0] + i - half, place[1] + j - half)).sum(1, keepdim=True)
                    for i in range(self.k)
                    for j in range(self.k)
                ]
                parts[middle] = parts[middle] + (channel * read[:, None]).sum(2)
                filtered = torch.stack(parts, dim=1)
                if position is not None:
                    filtered = filtered * (self._one + _shifted(position, place))
                regions.append(filtered.sum(1))
        found = torch.stack(regions, dim=1)
        if self.sampling_attention is None:
            largest: Tensor = found.amax(1)
            return largest
        weights = self._one + self.sampling_attention(x).unflatten(1, (-1, self.out_channels))
        weighed: Tensor = (found * weights).mean(1)
        return weighed


def _shifted(x: Tensor, place: tuple[int, int]) -> Tensor:
    """Return ... x H x W values as they are that many px below and to the right, zero outside the map."""
    (down, right), (height, width) = place, x.shape[-2:]
    around = (max(0, -right), max(0, right), max(0, -down), max(0, down))
    return pad(x, around)[..., max(0, down) : max(0, down) + height, max(0, right) : max(0, right) + width]
