"""Let a network of another package take images of any number of channels."""

from __future__ import annotations

from torch import nn


def for_channels(net: nn.Module, in_channels: int) -> nn.Module:
    """Return the network, its first convolution made anew if images have other than 3 channels."""
    if in_channels != 3:
        first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
        first.in_channels = in_channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_channels, *first.kernel_size))
        first.reset_parameters()
    return net
