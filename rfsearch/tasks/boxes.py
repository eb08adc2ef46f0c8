"""Rows of boxes, the targets of detection: what they hold, and how a flip, a zoom and a shift move them.

A target is N x M x 6 float32, M rows for each image: x1, y1, x2, y2 (px; 0 and W are the image's edges), a class, and
whether the object is difficult (1) or not (0). Class NOTHING marks a row without a box, PROPOSAL a region that was
proposed beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rfsearch.data.batches import Motion

COLUMNS = 6
NOTHING, PROPOSAL = -1, -2
_CLASS, _DIFFICULT = 4, 5


def padded(rows: Sequence[np.ndarray], least: int = 1) -> np.ndarray:
    """Return boxes of several images in one array, N x M x 6 float32.

    Args:
        rows: n x 6 of each image.
        least: M at least, so that no dimension is empty.
    """
    most = max([least, *map(len, rows)])
    result = np.zeros((len(rows), most, COLUMNS), np.float32)
    result[..., _CLASS] = NOTHING
    for image, boxes in zip(result, rows, strict=True):
        image[: len(boxes)] = boxes
    return result


def split_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, n x 4, their classes, and whether they are difficult, of one image's M x 6 rows."""
    kept = rows[rows[:, _CLASS] >= 0]
    return kept[:, :4], kept[:, _CLASS].astype(np.int64), kept[:, _DIFFICULT] > 0


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
            moved[..., _CLASS].masked_fill_(motion.mirrored[:, None] & (rows[..., _CLASS] == one), float(other))
    visible = (rows[..., _CLASS] != NOTHING) & (kept > 0) & (kept >= min_visible * area)
    nothing = torch.zeros(COLUMNS, dtype=rows.dtype, device=rows.device)
    nothing[_CLASS] = NOTHING
    return torch.where(visible[..., None], moved, nothing)


def intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every pair, n x m, of n x 4 and m x 4 boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    one, other = (np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (boxes, others))
    union = one[:, None] + other[None] - both
    result: np.ndarray = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return result
