"""Find where the units of a map lie on the image, and enlarge the map so that each pixel gets what is predicted there.

Bilinear resizing to the image assumes that unit i lies in the middle of the i-th of equal parts. The units of most
networks lie elsewhere: each padded convolution of stride 2 keeps the first unit on the first pixel, so that behind five
of them a unit lies 15.5 px in front of the middle of its 32 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.receptive import AxisField, trace_model


@dataclass(frozen=True)
class Grid:
    """Place the units of a map on its image: unit i is centred on pixel offset + i * jump, on both axes.

    Attributes:
        offset: Centre of the first unit, px.
        jump: Distance between neighbouring units, px.

    Example:
        >>> Grid(offset=0.0, jump=4).enlarge(torch.zeros(1, 2, 8, 8), (32, 32)).shape
        torch.Size([1, 2, 32, 32])
    """

    offset: float
    jump: int

    def enlarge(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate scores bilinearly to the pixels of the image. Beyond the outermost units, these count.

        Args:
            scores: B x C x h x w.
            size: (H, W) of the image, px.

        Returns:
            B x C x H x W. Scores of that size already are returned as they are.
        """
        if tuple(scores.shape[-2:]) == tuple(size):
            return scores
        # From the centre of the first unit to that of the last, or one whole unit each: whichever starts on a pixel.
        corners = float(self.offset).is_integer()
        length = [(n - 1) * self.jump + 1 if corners else n * self.jump for n in scores.shape[-2:]]
        start = round(self.offset if corners else self.offset - (self.jump - 1) / 2)
        enlarged = F.interpolate(scores, size=length, mode="bilinear", align_corners=corners)
        first = max(0, -start)
        enlarged = enlarged[..., first : size[0] - start, first : size[1] - start]
        front = max(0, start)
        below, right = (n - front - m for n, m in zip(size, enlarged.shape[-2:], strict=True))
        if front or below or right:
            enlarged = F.pad(enlarged, (front, right, front, below), mode="replicate")
        return enlarged


def measure_grid(net: nn.Module, shape: Sequence[int]) -> Grid | None:
    """Find where the units of a network's output lie, on shapes alone.

    Args:
        net: Maps an image to a map of scores.
        shape: B x C x H x W of the image. It should give several units per axis.

    Returns:
        The grid, or None if its axes differ or units cannot be told apart by what they read. Units that attend to
        others have no one centre: they count as lying in the middle of equal parts.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            trace = trace_model(net, shape)
            axes = trace.receptive_fields()[""].axes
    except ModelError:
        return None
    grids = {_grid_of(axis, units) for axis, units in zip(axes, trace.shapes[""][2:], strict=True)}
    return grids.pop() if len(grids) == 1 else None


def _grid_of(axis: AxisField, units: int) -> Grid | None:
    jump = round(axis.jump)
    if len(axis.windows) != units or units < 2 or jump < 1 or abs(axis.jump - jump) > 1e-6:
        return None
    middle = slice(units // 4, max(units // 4 + 1, units - units // 4))
    centres = axis.windows.mean(axis=1)[middle] - jump * np.arange(units)[middle]
    even = centres.max() - centres.min() < 1e-6  # False if one is NaN: that unit reads nothing by itself
    return Grid(float(centres[0]) if even else (jump - 1) / 2, jump)
