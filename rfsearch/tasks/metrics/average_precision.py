"""Average precision of detections as PASCAL VOC defines it.

Everingham, Van Gool, Williams, Winn, Zisserman, "The PASCAL Visual Object Classes (VOC) challenge", IJCV 2010, and the
development kit's VOCevaldet.m. A detection is right if its intersection over union with an object of its class, the one
that it covers best, is at least 0.5, and no surer detection of that object came before. It counts neither as right nor
as wrong where that object is difficult; difficult objects need not be found. Of detections that are equally sure, those
of earlier images come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfsearch.data.box_rows import intersections

MIN_IOU = 0.5


@dataclass(frozen=True)
class Found:
    """Hold detections of one image.

    Attributes:
        boxes: n x 4, px.
        scores: n.
        labels: n class ids.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Truth:
    """Hold objects of one image.

    Attributes:
        boxes: m x 4, px.
        labels: m class ids.
        difficult: m, whether each need not be found.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def precision_and_recall(
    found: Sequence[Found], truths: Sequence[Truth], label: int, min_iou: float = MIN_IOU
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return precision and recall of one class after each of its detections, the surest first.

    Args:
        found: Of each image.
        truths: Likewise.
        label: The class.
        min_iou: Intersection over union from which a detection is right.

    Returns:
        Two arrays of one length; None where the class has no object that must be found.
    """
    wanted = sum(int(((truth.labels == label) & ~truth.difficult).sum()) for truth in truths)
    if not wanted:
        return None
    scores, right, counted = [], [], []
    for seen, truth in zip(found, truths, strict=True):
        ours, theirs = seen.labels == label, truth.labels == label
        order = np.argsort(-seen.scores[ours], kind="stable")
        hits, counts = _judge(seen.boxes[ours][order], truth.boxes[theirs], truth.difficult[theirs], min_iou)
        scores.append(seen.scores[ours][order])
        right.append(hits)
        counted.append(counts)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit, counts = np.concatenate(right)[order], np.concatenate(counted)[order]
    hit = hit[counts]
    hits = np.cumsum(hit)
    return hits / np.arange(1, len(hit) + 1), hits / wanted


def _judge(
    boxes: np.ndarray, objects: np.ndarray, difficult: np.ndarray, min_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which detections of one image are right, and which count; boxes are sorted, the surest first."""
    right, counts = np.zeros(len(boxes), bool), np.ones(len(boxes), bool)
    if not len(objects):
        return right, counts
    overlaps, taken = intersections(boxes, objects), np.zeros(len(objects), bool)
    for i, best in enumerate(overlaps.argmax(axis=1)):
        if overlaps[i, best] < min_iou:
            continue
        if difficult[best]:
            counts[i] = False
        else:
            right[i], taken[best] = not taken[best], True
    return right, counts


def area_under_curve(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the area below precision over recall, each precision raised to the largest at any higher recall."""
    raised = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * raised).sum())


def eleven_points(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the mean of the largest precisions at recalls of at least 0, 0.1 ... 1, as VOC did up to 2009."""
    # A recall of 3 / 10 reaches the point 3 * 0.1, which in double precision is a little more.
    reached = [precision[recall >= point / 10 - 1e-9] for point in range(11)]
    return sum(float(values.max()) if len(values) else 0.0 for values in reached) / 11


def voc_scores(found: Sequence[Found], truths: Sequence[Truth], num_classes: int) -> dict[str, float]:
    """Return the mean average precisions over all classes that have objects, and `ap_K`, the area of class K.

    Nothing is returned where no class has an object that must be found.
    """
    curves = {k: precision_and_recall(found, truths, k) for k in range(num_classes)}
    known = {k: curve for k, curve in curves.items() if curve is not None}
    if not known:
        return {}
    areas = {k: area_under_curve(*curve) for k, curve in known.items()}
    points = [eleven_points(*curve) for curve in known.values()]
    means = {"map50_classmean": sum(areas.values()) / len(areas), "map50_11pt_classmean": sum(points) / len(points)}
    return {**means, **{f"ap_{k}": area for k, area in areas.items()}}
