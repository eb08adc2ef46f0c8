"""Segmentation scores from counts pooled over a whole data set; none is an average over images.

Every score is a function of one confusion matrix, C x C pixel counts: row = true class, column = predicted class.
An ignored id inside the range of classes is no class: no pixel is labelled with it, no score is named by it or takes it
in, and a pixel that a network calls by it is a miss of its true class and a false alarm of none.
A score's name carries its averaging: `pooled` = one F-measure from counts summed over the data set, `classmean` = the
mean of the classes' pooled scores, `miou_dataset` = the mean over classes of the data set's IoU.

Sources of the Helen convention.
    Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013 (F-measure of parts on Helen).
    Liu, Yang, Huang, Yang, "Multi-objective convolutional learning for face labeling", CVPR 2015.
    Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

HELEN_GROUPS: Mapping[str, tuple[int, ...]] = {
    "eye": (4, 5),
    "eyebrow": (2, 3),
    "nose": (6,),
    "mouth": (7, 8, 9),
    "face": (1,),
}
_OVERALL = ("eye", "eyebrow", "nose", "mouth")
_HELEN_CLASSES = 11


def confusion_matrix(pred: np.ndarray, label: np.ndarray, num_classes: int, ignore: int | None = None) -> np.ndarray:
    """C x C int64 counts, [true class, predicted class], of the pixels whose label is not `ignore`.

    pred, label: class ids, integers of the same shape. Matrices of several batches add up to that of the data set.
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


def per_class_iou(confusion: np.ndarray) -> np.ndarray:
    """C intersections over unions; NaN for a class that is neither in the prediction nor in the truth."""
    hit = np.diag(confusion)
    return _ratio(hit, confusion.sum(0) + confusion.sum(1) - hit)


def mean_iou(confusion: np.ndarray, ignored: int | None = None) -> float:
    """The mean of the data set's per-class IoU; classes in neither prediction nor truth are left out, not taken as 0.

    ignored: the id that is no class. NaN where there is no pixel at all.
    """
    return _mean(np.array(list(_class_ious(confusion, ignored).values())))


def f_measure(confusion: np.ndarray, groups: Sequence[Sequence[int]], merge: bool) -> float:
    """F = 2 TP / (predicted + true) of some classes, from counts summed over the groups.

    merge=True: each group is first made one class, so that a mix-up within it (left with right eye, lip with inner
    mouth) is no error. merge=False: a hit is a pixel of exactly its class, so that such a mix-up is an error.
    NaN where the classes are neither in the prediction nor in the truth.
    """
    hit = total = 0
    for group in groups:
        members = list(group)
        inside = confusion[np.ix_(members, members)]
        hit += int(inside.sum() if merge else np.trace(inside))
        total += int(confusion[members].sum() + confusion[:, members].sum())
    return 2 * hit / total if total else float("nan")


def helen_scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
    """F-measures of Helen's 11 classes, in the literature's convention and in one that tells left from right.

    `f_eye_pooled, f_eyebrow_pooled, f_nose_pooled, f_mouth_pooled, f_face_pooled`: the group's classes merged into
    one (left and right; lips and inner mouth), as the papers above report them. `f_overall_pooled`: hits, predictions
    and truths summed over the merged eyes, eyebrows, nose and mouth; face skin, hair and background do not enter.
    Not verified against the papers' text: that 'overall' is over these four without face skin is how Smith et al. are
    quoted; that it sums their counts, rather than merging the four into a single class or averaging four F-measures,
    is our reading. Whether the papers pool counts over the test set or average over images was not found either. So
    compare these to printed numbers with that reserve.

    `f_classmean_pooled`: the mean F of the 10 classes other than background, each for itself: a left eye called right
    is an error here, and nowhere above. Classes in neither prediction nor truth are left out of it.

    ignored: the id that is no class: no group holds it, and a group of nothing else has no score.
    """
    if confusion.shape != (_HELEN_CLASSES, _HELEN_CLASSES):
        raise ValueError(f"Helen has {_HELEN_CLASSES} classes. Got {confusion.shape=}.")
    groups = {name: [k for k in group if k != ignored] for name, group in HELEN_GROUPS.items()}
    scores = {f"f_{name}_pooled": f_measure(confusion, [group], merge=True) for name, group in groups.items() if group}
    scores["f_overall_pooled"] = f_measure(confusion, [groups[name] for name in _OVERALL], merge=True)
    each = [f_measure(confusion, [[k]], merge=False) for k in range(1, _HELEN_CLASSES) if k != ignored]
    scores["f_classmean_pooled"] = _mean(np.array(each))
    return scores


def iou_scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
    """`miou_dataset`, and `iou_<id>` of every class (NaN for one that is in neither prediction nor truth).

    ignored: the id that is no class.
    """
    each = {f"iou_{k}": iou for k, iou in _class_ious(confusion, ignored).items()}
    return {"miou_dataset": mean_iou(confusion, ignored), **each}


def _class_ious(confusion: np.ndarray, ignored: int | None) -> dict[int, float]:
    return {k: float(iou) for k, iou in enumerate(per_class_iou(confusion)) if k != ignored}


class Metric(NamedTuple):
    """scores: (confusion matrix, the id that is no class or None) -> named scores, higher is better.

    primary: the name of the one to choose by.
    """

    scores: Callable[..., dict[str, float]]
    primary: str


METRICS: Mapping[str, Metric] = {
    # Not the papers' overall: merging left with right hides just what a wider receptive field is needed for.
    "helen-f": Metric(helen_scores, "f_classmean_pooled"),
    "mean-iou": Metric(iou_scores, "miou_dataset"),
}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
