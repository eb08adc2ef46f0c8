"""Convolve deformably: every place of the map says where its taps fall.

Dai et al., "Deformable Convolutional Networks", ICCV 2017. Called: `torchvision.ops.deform_conv2d` (BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from rfsearch_peers.arms import LayerSweep
from rfsearch_peers.needs import even_padding


class DeformableConvolution(nn.Module):
    """Convolve with taps that are moved by offsets which another convolution reads from the map.

    Maps B x C x H x W to what `conv` gives. The other convolution has the same kernel, stride and dilation. The
    offsets, (y, x) px of the map for each tap, start at zero, where it is `conv`; they differ from place to place, so
    no one dilation is found.

    Args:
        conv: The convolution.
        padding: Zeros on either side, px, vertically and horizontally.

    Example:
        >>> DeformableConvolution(torch.nn.Conv2d(4, 4, 3, padding=1), (1, 1))(torch.randn(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv, self._padding = conv, padding
        alike: dict[str, Any] = {name: getattr(conv, name) for name in ("kernel_size", "stride", "dilation")}
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.offset = nn.Conv2d(conv.in_channels, 2 * taps, padding=padding, **alike)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to what the convolution gives."""
        conv, moved = self.conv, self.offset(x)
        output: Tensor = deform_conv2d(x, moved, conv.weight, conv.bias, conv.stride, self._padding, conv.dilation)
        return output


def deformable(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build a deformable convolution on the grid of `conv`.

    Raises:
        ModelError: The convolution is not plain.
    """
    return DeformableConvolution(conv, even_padding(conv, "deformable"))


class Deformables(LayerSweep):
    """Train deformable convolutions, on the grid of each dilation of the space.

    Example:
        >>> Deformables(space, seed=0).suggest([])
    """

    name = "deformable"
    layer = f"{__name__}:deformable"
