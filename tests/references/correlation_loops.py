"""The correlation of FlowNet (Dosovitskiy et al., ICCV 2015, eq. 1, k = 0) as loops. Slow and obvious."""

from __future__ import annotations

import torch
from torch import Tensor


def correlate(first: Tensor, second: Tensor, reach: int, stride: int) -> Tensor:
    """first, second: B x C x H x W. Returns B x (2 n + 1)^2 x H x W, n = reach // stride; zero outside the map."""
    batch, channels, height, width = first.shape
    n = reach // stride
    output = torch.zeros(batch, (2 * n + 1) ** 2, height, width, dtype=first.dtype)
    for image in range(batch):
        for y in range(height):
            for x in range(width):
                channel = 0
                for down in range(-n, n + 1):
                    for right in range(-n, n + 1):
                        row, column = y + stride * down, x + stride * right
                        if 0 <= row < height and 0 <= column < width:
                            total = 0.0
                            for c in range(channels):
                                total += float(first[image, c, y, x]) * float(second[image, c, row, column])
                            output[image, channel, y, x] = total / channels
                        channel += 1
    return output
