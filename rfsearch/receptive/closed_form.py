"""Compute in closed form the receptive field that a learned inflation factor stands for (Wei sec. 3.3)."""

from __future__ import annotations

import math

from rfsearch.errors import SpaceError


def new_receptive_field(kernel: int, init_dilation: int, f: float, base: int = 212, stride: int = 8) -> int:
    """Compute the receptive field behind a convolution whose input map was inflated by f (Wei sec. 3.3).

    k' = ceil((k + 1) / f) and rf = base + stride (k' - 1), with k the extent of the dilated kernel in pixels of its
    map. At f = 1 that is one stride more than the plain arithmetic, base + stride (k - 1): the "+ 1" is the paper's,
    and its tables print it. The defaults of `base` and `stride` are VGG-16's.

    Args:
        kernel: Taps per axis.
        init_dilation: Dilation of the convolution while f was learned.
        f: Inflation factor, dimensionless, > 0.
        base: Receptive field in front of the convolution, px.
        stride: Stride of its input map before inflation, px.

    Returns:
        The receptive field, px.

    Raises:
        SpaceError: `f` is not finite or not above 0, or a kernel or dilation is below 1.
    """
    if not (math.isfinite(f) and f > 0):
        raise SpaceError(
            f"An inflation factor is finite and greater than 0. Got f={f}. The paper's range is [0.25, 4]."
        )
    if min(kernel, init_dilation) < 1:
        raise SpaceError(
            f"A kernel and its dilation are 1 or more. Got kernel={kernel}, init_dilation={init_dilation}."
        )
    extent = (kernel - 1) * init_dilation + 1
    # (k + 1) / f may exceed a whole number by rounding only: f = 0.7 as 0.69999999 is not one pixel more.
    inflated_extent = math.ceil((extent + 1) / f * (1 - 2.0**-23))
    return base + stride * (inflated_extent - 1)
