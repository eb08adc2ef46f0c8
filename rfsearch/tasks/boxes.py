"""Move rows of boxes (`rfsearch.data.box_rows`) as a flip, a zoom and a shift move their images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rfsearch.data.batches import Motion
from rfsearch.data.box_rows import CLASS, COLUMNS, NOTHING


def moved_rows(
    rows: Tensor, motion: Motion, size: tuple[int, int], flip_pairs: Sequence[tuple[int, int]], min_visible: float
) -> Tensor:
    """Move boxes as their images were moved.

    A box is clipped to the image. One of which less than a share of its area is left is dropped.

    Args:
        rows: B x M x 6.
        motion: Of the images.
        size: H, W of the images before they were moved, px.
        flip_pairs: Class ids that a mirrored image exchanges.
        min_visible: That share.

    Returns:
        B x M x 6, the rows in their order.
    """
    height, width = motion.grid.shape[1:3]
    sign = torch.where(motion.mirrored, -1.0, 1.0)
    # The last pixel of each axis tells where the image lies, the zoom how large it is.
    last = motion.grid[:, -1, -1]
    edges = []
    for axis, (old, new, turned) in enumerate(((size[1], width, sign), (size[0], height, torch.ones_like(sign)))):
        step = turned * 2 / (old * motion.zoom)  # of the grid, from pixel to pixel
        sides = rows[..., [axis, axis + 2]] * (2 / old) - 1
        sides = (sides - last[:, axis, None, None]) / step[:, None, None] + (new - 0.5)
        edges.append((sides.amin(-1), sides.amax(-1), new))
    moved = rows.clone()
    area, kept = torch.ones_like(rows[..., 0]), torch.ones_like(rows[..., 0])
    for axis, (low, high, new) in enumerate(edges):
        moved[..., axis], moved[..., axis + 2] = low.clamp(0, new), high.clamp(0, new)
        area, kept = area * (high - low), kept * (moved[..., axis + 2] - moved[..., axis])
    for pair in flip_pairs:
        for one, other in (pair, pair[::-1]):
            moved[..., CLASS].masked_fill_(motion.mirrored[:, None] & (rows[..., CLASS] == one), float(other))
    visible = (rows[..., CLASS] != NOTHING) & (kept > 0) & (kept >= min_visible * area)
    nothing = torch.zeros(COLUMNS, dtype=rows.dtype, device=rows.device)
    nothing[CLASS] = NOTHING
    return torch.where(visible[..., None], moved, nothing)
