"""Build the LS-DFN block: branches that make kernels and attention for every position, and a learned sample stride.

LS-DFN: Wu, Li, Yang, Bajaj, Ji, "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018. See
`rfsearch.layers.dynamic_filter` for the equations and the notation.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers.dynamic_filter import dynamic_filter
from rfsearch.layers.host import on_host


class SampleStride(nn.Module):
    """Hold the scalar gamma of one LS-DFN block: how far apart it samples, px of its map.

    An optimiser may step outside the bounds. Call `project_` after its step.

    Args:
        gamma: Initial value, px.
        learned: Whether gamma gets a gradient.
        bounds: The smallest and largest legal gamma, kept in the state dict next to gamma.

    Raises:
        SpaceError: The bounds are not 0 < low <= high, or gamma lies outside them.

    Example:
        >>> stride = SampleStride(2.0, learned=True)
        >>> stride.gamma.item()
        2.0
    """

    gamma: nn.Parameter
    bounds: Tensor

    def __init__(self, gamma: float = 1.0, learned: bool = False, bounds: tuple[float, float] = (0.25, 16.0)) -> None:
        super().__init__()
        low, high = bounds
        if not 0 < low <= high < math.inf:
            raise SpaceError(
                f"The bounds of a sample stride are 0 < low <= high. Got low={low}, high={high}. "
                "The usual ones are (0.25, 16.0)."
            )
        if not low <= gamma <= high:
            closest = high if gamma > high else low
            raise SpaceError(
                f"A sample stride lies within its bounds [{low}, {high}]. Got gamma={gamma}. Nearest legal: {closest}."
            )
        self.gamma = nn.Parameter(torch.tensor(float(gamma), dtype=torch.float32), requires_grad=learned)
        self.register_buffer("bounds", torch.tensor([low, high], dtype=torch.float32))

    @property
    def learned(self) -> bool:
        """Return whether gamma gets a gradient."""
        return self.gamma.requires_grad

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the value of gamma into its bounds, in place. In the forward pass a clamp would kill its gradient."""
        self.gamma.clamp_(self.bounds[0], self.bounds[1])

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        low, high = self.bounds.tolist()
        return f"gamma={self.gamma.item():.4g}, learned={self.learned}, bounds=({low:.4g}, {high:.4g})"


class LSDFN(nn.Module):
    """Apply an LS-DFN block: B x in_channels x H x W to B x out_channels x H x W.

    With s = 1 it is a plain dynamic filter network. All branches are 1x1 convolutions. Those of kernels and attention
    start at zero, and then the block is exactly the average of its features over channels and sampled places. Kernels
    are never expanded to C' x C x k x k: U and V take C' (C + k^2).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, C'.
        features: Number C of maps that are filtered.
        s: s x s places are sampled around each position. Odd.
        k: Taps along a kernel's side. Odd.
        gamma: See `SampleStride`.
        learned: See `SampleStride`.
        bounds: See `SampleStride`.
        post: Whether a 1x1 convolution follows.

    Raises:
        SpaceError: A number of channels is below 1, s or k is even or below 1, or gamma lies outside its bounds.

    Example:
        >>> block = LSDFN(16, 4, features=8, s=3, gamma=2.0, learned=True)
        >>> block(torch.randn(1, 16, 12, 12)).shape
        torch.Size([1, 4, 12, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: int = 128,
        s: int = 5,
        k: int = 3,
        gamma: float = 1.0,
        learned: bool = False,
        bounds: tuple[float, float] = (0.25, 16.0),
        post: bool = False,
    ) -> None:
        super().__init__()
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels), ("features", features)):
            if channels < 1:
                raise SpaceError(f"A block has at least one channel. Got {name}={channels}. Nearest legal: 1.")
        for name, side, what in (("s", s, "samples s x s places"), ("k", k, "has kernels of k x k taps")):
            if side < 1 or side % 2 == 0:
                raise SpaceError(
                    f"An LS-DFN block {what} around a centre, {name} odd and >= 1. Got {name}={side}. "
                    f"Nearest legal: {max(1, side - 1)}."
                )
        self.in_channels, self.out_channels, self.features, self.s, self.k = in_channels, out_channels, features, s, k
        self.stride = SampleStride(gamma, learned, bounds)
        self.feature = nn.Conv2d(in_channels, features, 1)
        # The kernel branch, C' (C + k^2) channels, and the attention branch, C' (s^2 + k^2): their halves are laid
        # out differently in memory, so each is a separate convolution.
        self.channel_kernels = nn.Conv2d(in_channels, out_channels * features, 1)
        self.tap_kernels = nn.Conv2d(in_channels, k * k * out_channels, 1)
        self.sampling_attention = nn.Conv2d(in_channels, s * s * out_channels, 1)
        self.position_attention = nn.Conv2d(in_channels, k * k * out_channels, 1)
        for branch in (self.channel_kernels, self.tap_kernels, self.sampling_attention, self.position_attention):
            for parameter in branch.parameters():
                nn.init.zeros_(parameter)
        self.post = nn.Conv2d(out_channels, out_channels, 1) if post else nn.Identity()

    @property
    def work(self) -> Hashable:
        """Return what the cost of a pass depends on besides the size of its map.

        That is how far the block reads, and which of its places lie between pixels.
        """
        offsets = [on_host(self.stride.gamma)[0] * number for number in range((self.s + 1) // 2)]
        return math.ceil(offsets[-1]), *(offset % 1 == 0 for offset in offsets)

    def forward(self, x: Tensor) -> Tensor:
        """Filter B x in_channels x H x W to B x out_channels x H x W."""
        if x.dim() != 4 or x.shape[1] != self.in_channels or any(n < 1 for n in x.shape[-2:]):
            raise ModelError(
                f"This block reads B x {self.in_channels} x H x W with H, W >= 1. Got x.shape={tuple(x.shape)}."
            )
        pixels = x.permute(0, 2, 3, 1).contiguous()
        branches = (self.tap_kernels, self.sampling_attention, self.position_attention)
        # One convolution for three branches: it reads the map once, and so does its gradient.
        weights = [branch.weight for branch in branches]
        biases = [branch.bias for branch in branches if branch.bias is not None]
        planes = nn.functional.conv2d(x, torch.cat(weights), torch.cat(biases))
        features = nn.functional.linear(pixels, self.feature.weight.flatten(1), self.feature.bias)
        # Single precision under autocast too; the output keeps the type of x. Only the channel kernels are made in the
        # type of a convolution.
        wide = torch.promote_types(x.dtype, torch.float32)
        tap, sampling, position = (
            part.to(wide).unflatten(1, (-1, self.out_channels))
            for part in planes.split([branch.out_channels for branch in branches], 1)
        )
        filtered = dynamic_filter(
            features.permute(0, 3, 1, 2).to(wide),
            pixels.to(wide),
            tap,
            sampling,
            position,
            self.stride.gamma,
            self.channel_kernels.weight.flatten(1).to(planes.dtype),
            self.channel_kernels.bias,
        )
        output: Tensor = self.post(filtered.to(x.dtype))
        return output

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        return f"{self.in_channels}, {self.out_channels}, features={self.features}, s={self.s}, k={self.k}"
