"""Rows of boxes, the targets of images with objects.

A target is N x M x 6 float32, M rows for each image: x1, y1, x2, y2 (px; 0 and W are the image's edges), a class, and
whether the object is difficult (1) or not (0). Class NOTHING marks a row without a box, PROPOSAL a region that was
proposed beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLUMNS = 6
CLASS, DIFFICULT = 4, 5  # columns
NOTHING, PROPOSAL = -1, -2


def padded(rows: Sequence[np.ndarray], least: int = 1) -> np.ndarray:
    """Return boxes of several images in one array, N x M x 6 float32.

    Args:
        rows: n x 6 of each image.
        least: M at least, so that no dimension is empty.
    """
    most = max([least, *map(len, rows)])
    result = np.zeros((len(rows), most, COLUMNS), np.float32)
    result[..., CLASS] = NOTHING
    for image, boxes in zip(result, rows, strict=True):
        image[: len(boxes)] = boxes
    return result


def split_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, n x 4, their classes, and whether they are difficult, of one image's M x 6 rows."""
    kept = rows[rows[:, CLASS] >= 0]
    return kept[:, :4], kept[:, CLASS].astype(np.int64), kept[:, DIFFICULT] > 0


def intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every pair, n x m, of n x 4 and m x 4 boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    one, other = (np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (boxes, others))
    union = one[:, None] + other[None] - both
    result: np.ndarray = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return result
