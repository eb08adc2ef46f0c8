"""Intersection over union of the bands along the contours of every class, over the data set, and their mean.

    Cheng, Girshick, Dollar, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
    CVPR 2021, eq. 2.

A class's band holds those of its pixels from which a pixel of no such class, or the outside of the image, is at most d
px away in rows and in columns (the authors' code erodes by a 3 x 3 square d times). d is 2 % of the image's diagonal,
rounded, and at least 1 px. IoU is then taken of the truth's and the prediction's bands. Intersections and unions are
summed over the data set, as for mean IoU.

A pixel without a class belongs to no mask, of the truth or of the prediction, and so bounds both. In PASCAL VOC such
pixels lie along all contours.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics.base import Metric
from rfsearch.tasks.metrics.confusion import by_class, confusion_matrix, mean_of_defined
from rfsearch.tasks.metrics.iou import per_class_iou

_DISTANCE = 0.02  # d as a share of the image's diagonal (sec. 5.1)
_BEYOND = -1  # an id for what is outside the image


class BoundaryIou(Metric):
    """Average the boundary IoU of all classes, each over the data set: `boundary_miou_dataset`.

    Args:
        num_classes: C, the number of ids that a network predicts.
        ignored: Id inside 0..C-1 that is no class, or None.
    """

    primary = "boundary_miou_dataset"

    def __init__(self, num_classes: int, ignored: int | None = None) -> None:
        self._num_classes, self._ignored = num_classes, ignored
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._confusion = np.zeros((self._num_classes + 1, self._num_classes + 1), np.int64)

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        none = self._num_classes  # the id of pixels that are in no band
        ids, truth = predicted.cpu().numpy(), target.cpu().numpy()
        distance = band_distance(*truth.shape[-2:])
        without = truth == IGNORE
        called, true = (contour_bands(np.where(without, none, maps), distance, none) for maps in (ids, truth))
        self._confusion += confusion_matrix(called, true, none + 1)

    def compute(self) -> dict[str, float]:
        """Return every score by its name."""
        each = by_class("boundary_iou", per_class_iou(self._confusion)[: self._num_classes], self._ignored)
        return {self.primary: mean_of_defined(each), **each}


def band_distance(height: int, width: int) -> int:
    """Return d, px, for images of this size, px."""
    return max(1, round(_DISTANCE * math.hypot(height, width)))


def contour_bands(ids: np.ndarray, distance: int, none: int) -> np.ndarray:
    """Keep the ids of the pixels along contours.

    Args:
        ids: B x H x W class ids, at least 0.
        distance: d, px.
        none: Id that the other pixels get.
    """
    from scipy import ndimage  # slow to import, and most runs have another metric

    lowest = highest = ids.astype(np.int16)
    for axis in (1, 2):
        window = {"size": 2 * distance + 1, "axis": axis, "mode": "constant", "cval": _BEYOND}
        lowest, highest = ndimage.minimum_filter1d(lowest, **window), ndimage.maximum_filter1d(highest, **window)
    return np.where(lowest == highest, none, ids)
