"""Puts another kernel into a network."""

from __future__ import annotations

from torch import nn

from rfsearch.surgery import Installed, Place
from rfsearch_example.kernel import Kernel


def install(choice: Kernel, place: Place) -> Installed:
    """Put a fresh convolution of the asked size in the place of the site's own, which keeps its map's size."""
    conv = place.conv_2d("a kernel size is that of one 2-D convolution")
    dilation, stride = (conv.dilation[0], conv.dilation[1]), (conv.stride[0], conv.stride[1])
    padding = (dilation[0] * (choice.size // 2), dilation[1] * (choice.size // 2))
    bias = conv.bias is not None
    sized = nn.Conv2d(
        conv.in_channels, conv.out_channels, choice.size, stride, padding, dilation, conv.groups, bias=bias
    )
    return Installed(place.put(sized))
