"""Scores that are functions of one confusion matrix, summed over a whole data set; none is an average over images.

The matrix holds C x C pixel counts: row = true class, column = predicted class. An ignored id inside the range of
classes is no class: no pixel is labelled with it, no score is named by it or takes it in, and a pixel that a network
calls by it is a miss of its true class and a false alarm of none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics.base import Metric


class ConfusionMetric(Metric):
    """Compute scores from the data set's confusion matrix.

    Args:
        num_classes: C, the number of ids that a network predicts.
        ignored: Id inside 0..C-1 that is no class, or None.
    """

    def __init__(self, num_classes: int, ignored: int | None = None) -> None:
        self._num_classes, self._ignored = num_classes, ignored
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._confusion = np.zeros((self._num_classes, self._num_classes), np.int64)

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        self._confusion += confusion_matrix(predicted.cpu().numpy(), target.cpu().numpy(), self._num_classes, IGNORE)

    def compute(self) -> dict[str, float]:
        """Return every score by its name."""
        return self.scores(self._confusion, self._ignored)

    @staticmethod
    @abstractmethod
    def scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
        """Return every score of a confusion matrix by its name.

        Args:
            confusion: C x C counts, [true class, predicted class].
            ignored: Id that is no class.
        """


def confusion_matrix(pred: np.ndarray, label: np.ndarray, num_classes: int, ignore: int | None = None) -> np.ndarray:
    """Count pixels by their true and their predicted class.

    Args:
        pred: Class ids, integers.
        label: True class ids, of the same shape.
        num_classes: C.
        ignore: Label of pixels that are left out.

    Returns:
        C x C int64 counts, [true class, predicted class]. Those of several batches add up to that of the data set.
    """
    pred, label = np.asarray(pred), np.asarray(label)
    if pred.shape != label.shape:
        raise ValueError(f"Predictions and labels must be of the same shape. Got {pred.shape=}, {label.shape=}.")
    pred, label = pred.ravel(), label.ravel()
    if ignore is not None:
        kept = label != ignore
        pred, label = pred[kept], label[kept]
    for what, ids in (("label", label), ("prediction", pred)):
        if ids.size and (ids.min() < 0 or ids.max() >= num_classes):
            allowed = f"0..{num_classes - 1}" + (f" or {ignore}" if what == "label" and ignore is not None else "")
            raise ValueError(f"A {what} must be in {allowed}. Got ids from {ids.min()} to {ids.max()}.")
    pairs = label.astype(np.int64) * num_classes + pred
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide counts, class by class; NaN where the whole is 0."""
    result: np.ndarray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return result


def by_class(name: str, values: np.ndarray, ignored: int | None) -> dict[str, float]:
    """Name the scores of all classes, such as `iou_3`, but that of the ignored id."""
    return {f"{name}_{k}": float(value) for k, value in enumerate(values) if k != ignored}


def mean_of_defined(values: Mapping[str, float] | np.ndarray) -> float:
    """Return the mean of the values that are numbers, NaN where none is."""
    each = np.array(list(values.values())) if isinstance(values, Mapping) else values
    present = each[~np.isnan(each)]
    return float(present.mean()) if present.size else float("nan")
