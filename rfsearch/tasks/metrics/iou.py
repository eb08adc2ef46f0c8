"""Intersection over union of every class, over the data set, and their mean."""

from __future__ import annotations

import numpy as np

from rfsearch.tasks.metrics.confusion import ConfusionMetric, by_class, mean_of_defined, ratio


class MeanIou(ConfusionMetric):
    """Average the intersections over unions of all classes, each over the data set: `miou_dataset`."""

    primary = "miou_dataset"

    @staticmethod
    def scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
        """Return `miou_dataset`, and `iou_<id>` of every class (NaN for one in neither prediction nor truth)."""
        return {"miou_dataset": mean_iou(confusion, ignored), **by_class("iou", per_class_iou(confusion), ignored)}


def per_class_iou(confusion: np.ndarray) -> np.ndarray:
    """Return C intersections over unions; NaN for a class that is neither in the prediction nor in the truth."""
    hit = np.diag(confusion)
    return ratio(hit, confusion.sum(0) + confusion.sum(1) - hit)


def mean_iou(confusion: np.ndarray, ignored: int | None = None) -> float:
    """Average the data set's per-class IoU; classes in neither prediction nor truth are left out, not taken as 0.

    Args:
        confusion: C x C counts, [true class, predicted class].
        ignored: Id that is no class.

    Returns:
        A share of 1, NaN where there is no pixel at all.
    """
    return mean_of_defined(by_class("iou", per_class_iou(confusion), ignored))
