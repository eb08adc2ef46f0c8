"""Example pictures of boxes: objects and detections as frames in the colours of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from rfsearch.data.box_rows import intersections
from rfsearch.tasks.colours import colour
from rfsearch.tasks.metrics.average_precision import MIN_IOU, Found, Truth
from rfsearch.tasks.pictures import Pictures, shown

SHOWN_FROM = 0.5  # score of the detections that are drawn
_DIFFICULT = (255, 255, 255)
_DIMMED = 0.5  # share of an image's brightness behind its frames


def of_boxes(images: np.ndarray, truths: Sequence[Truth], found: Sequence[Found], classes: Sequence[str]) -> Pictures:
    """Draw objects, and detections whose score is at least SHOWN_FROM, over the dimmed images.

    Args:
        images: N x C x H x W uint8.
        truths: Of each image.
        found: Likewise.
        classes: Names in the order of the ids.
    """
    pictures = shown(images)
    dimmed = (pictures * _DIMMED).astype(np.uint8)
    sure = [_sure(seen) for seen in found]
    true = [_framed(image, truth.boxes, _colours(truth)) for image, truth in zip(dimmed, truths, strict=True)]
    called = [
        _framed(image, seen.boxes, [colour(k + 1) for k in seen.labels.tolist()])
        for image, seen in zip(dimmed, sure, strict=True)
    ]
    labels = [*(truth.labels for truth in truths), *(seen.labels for seen in sure)]
    present = sorted({k for found_labels in labels for k in found_labels.tolist()})
    legend = {classes[k]: colour(k + 1) for k in present}
    if any(truth.difficult.any() for truth in truths):
        legend["difficult"] = _DIFFICULT
    return Pictures(
        pictures,
        np.stack(true),
        np.stack(called),
        tuple(_caption(truth, seen) for truth, seen in zip(truths, sure, strict=True)),
        legend or {"no object": colour(0)},
        f"The figures are how many objects are found, and how many detections are wrong, among those of a score from "
        f"{SHOWN_FROM:g}.",
    )


def _sure(found: Found) -> Found:
    kept = found.scores >= SHOWN_FROM
    return Found(found.boxes[kept], found.scores[kept], found.labels[kept])


def _colours(truth: Truth) -> list[tuple[int, int, int]]:
    pairs = zip(truth.labels.tolist(), truth.difficult.tolist(), strict=True)
    return [_DIFFICULT if difficult else colour(k + 1) for k, difficult in pairs]


def _framed(image: np.ndarray, boxes: np.ndarray, colours: Iterable[tuple[int, int, int]]) -> np.ndarray:
    """Return an image, H x W x 3 uint8, with frames on it."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(image.shape[:2]) / 160))
    for (left, upper, right, lower), line in zip(boxes.round().astype(int).tolist(), colours, strict=True):
        pen.rectangle((left, upper, max(left, right - 1), max(upper, lower - 1)), outline=line, width=width)
    return np.asarray(picture)


def _caption(truth: Truth, found: Found) -> str:
    """Say how many objects are found, each by one detection of its class that covers it, and how many are wrong."""
    left = [i for i in range(len(truth.boxes)) if not truth.difficult[i]]
    wanted, wrong = len(left), 0
    overlaps = intersections(found.boxes, truth.boxes)
    for place in np.argsort(-found.scores, kind="stable").tolist():
        same = overlaps[place] * (truth.labels == found.labels[place]) if len(truth.boxes) else np.zeros(0)
        best = int(same.argmax()) if len(same) else -1
        if best < 0 or same[best] < MIN_IOU or not (best in left or truth.difficult[best]):
            wrong += 1
        elif best in left:
            left.remove(best)
    return f"{wanted - len(left)}/{wanted}, {wrong} wrong"
