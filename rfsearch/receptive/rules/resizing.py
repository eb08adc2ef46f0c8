"""Follow operators that resize a map by nearest, linear or cubic interpolation."""

from __future__ import annotations

import numpy as np

from rfsearch.receptive.call import Call, Operator, Rule, operator_table
from rfsearch.receptive.field import Field


def _upsample(call: Call) -> Field:
    """Read every unit that has a weight, as torch places them; beyond the border as if the map went on."""
    kind = call.name.removeprefix("_").removeprefix("upsample_").removesuffix("_aa")
    axes = int(kind[-2])
    first = len(call.output) - axes
    flags = call.args[2:]
    corners = bool(flags[0]) if "nearest" not in kind and flags else False
    scales = (*([None] * axes), *(flags if "nearest" in kind else flags[1:]))[-axes:]
    field = call.field
    for i, dim in enumerate(range(first, len(call.output))):
        n, m = field.shape[dim], call.output[dim]
        given = scales[i] if len(flags) else None
        step = 1 / given if given else n / m
        if corners:
            step = (n - 1) / (m - 1) if m > 1 else 0.0
        places = np.arange(m)
        if "nearest" in kind:
            offset = 0.5 if "exact" in kind else 0.0
            index = np.floor((places + offset) * step + 1e-9).astype(np.int64)[:, None]
            field = field.read(dim, np.minimum(index, n - 1), stride=n / m)
            continue
        width = 2 if "cubic" in kind else 1
        if call.name.endswith("_aa"):
            support = width * max(1.0, step)
            centre = step * (places + 0.5)
            low = np.maximum(0, np.floor(centre - support + 0.5)).astype(np.int64)
            high = np.minimum(n, np.floor(centre + support + 0.5)).astype(np.int64)
            index = np.minimum(low[:, None] + np.arange((high - low).max())[None, :], high[:, None] - 1)
            field = field.read(dim, index, stride=n / m)
            continue
        position = places * step if corners else (places + 0.5) * step - 0.5
        before = np.floor(position + 1e-6).astype(np.int64)
        between = np.abs(position - before) > 1e-6
        taps = np.arange(1 - width, 1 + width)
        index = before[:, None] + taps[None, :]
        stride = step if corners else n / m
        field = field.read(dim, index, valid=between[:, None] | (taps == 0)[None, :], stride=stride)
    return field


RULES: dict[Operator, Rule] = operator_table(
    (
        _upsample,
        """upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
        _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
        upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa""",
    ),
)
