"""Provide a network as a user brings it in a file.

It has grouped, asymmetric and reflect-padded convolutions, and a residual branch.
"""

from __future__ import annotations

from torch import Tensor, nn


class Users(nn.Module):
    """Label pixels with grouped, asymmetric and reflect-padded convolutions and a residual branch."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, 2, 1)
        self.context1 = nn.Conv2d(16, 16, 3, padding=1, groups=4, padding_mode="reflect")
        self.context2 = nn.Conv2d(16, 16, (3, 5), padding=(1, 2))
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map B x C x H x W to B x classes x H/2 x W/2."""
        x = self.stem(image).relu()
        return self.head((x + self.context2(self.context1(x).relu())).relu())
