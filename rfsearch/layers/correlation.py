"""Compare every place of a map with the places around it in another map.

FlowNet: Dosovitskiy et al., "FlowNet: Learning optical flow with convolutional networks", ICCV 2015, eq. 1, with
patches of a single unit (their k = 0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers.one_call import one_call


@one_call
def correlate(first: Tensor, second: Tensor, reach: int, stride: int) -> Tensor:
    """Return the mean over channels of the products of a place and of the places around it.

        c_ij(p) = 1/C  sum_u first_u(p) second_u(p + stride (j, i)),    i, j = -n ... n,    n = floor(reach / stride)

    Outside the map it is zero. Channel (i + n) (2 n + 1) + j + n of the output is c_ij: rows vary slowest.

    Args:
        first: B x C x H x W.
        second: B x C x H x W.
        reach: Largest displacement, px of the map, >= 0.
        stride: Distance between neighbouring displacements, px of the map, >= 1.

    Returns:
        B x (2 n + 1)^2 x H x W.
    """
    count = reach // stride
    edge, (channels, height) = count * stride, first.shape[1:3]
    rows = first.permute(0, 2, 3, 1) / channels
    columns = F.pad(second, (edge, edge, edge, edge)).permute(0, 2, 1, 3)
    # A row of one map against a row of the other, all places with all: those that are near are its diagonals.
    bands = [
        _diagonals(rows @ columns[:, down : down + height], 2 * edge + 1)[..., ::stride]
        for down in range(0, 2 * edge + 1, stride)
    ]
    return torch.cat(bands, dim=3).permute(0, 3, 1, 2).contiguous()


def _diagonals(products: Tensor, count: int) -> Tensor:
    """Return diagonals of matrices, ... x m x n to ... x m x count: entry k of row i is that of column i + k."""
    m, n = products.shape[-2:]
    skewed: Tensor = F.pad(products.flatten(-2), (0, m)).unflatten(-1, (m, n + 1))
    return skewed[..., :count]


class Correlation(nn.Module):
    """Correlate two maps, B x C x H x W each, to B x (2 n + 1)^2 x H x W; see `correlate`.

    It has no weights. Both maps keep their place, so that a convolution behind it reads where a place has moved to.

    Args:
        reach: Largest displacement on each axis, px of the map (FlowNet's d: 20).
        stride: Distance between neighbouring displacements, px of the map (FlowNet's s2: 2).

    Raises:
        SpaceError: The reach is below 0, or the stride below 1.

    Example:
        >>> Correlation(reach=4, stride=2)(torch.randn(1, 8, 12, 12), torch.randn(1, 8, 12, 12)).shape
        torch.Size([1, 25, 12, 12])
    """

    def __init__(self, reach: int = 20, stride: int = 2) -> None:
        super().__init__()
        for name, value, least in (("reach", reach, 0), ("stride", stride, 1)):
            if value < least:
                raise SpaceError(f"A correlation's {name} is a whole number of at least {least}. Got {value}.")
        self.reach, self.stride = reach, stride

    @property
    def side(self) -> int:
        """Return the number of displacements an axis, 2 n + 1."""
        return 2 * (self.reach // self.stride) + 1

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Correlate two maps of one shape."""
        if first.dim() != 4 or first.shape != second.shape:
            raise ModelError(
                "A correlation compares two maps of one shape, B x C x H x W. "
                f"Got {tuple(first.shape)} and {tuple(second.shape)}."
            )
        output: Tensor = correlate(first, second, self.reach, self.stride)
        return output

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        return f"reach={self.reach}, stride={self.stride}"
