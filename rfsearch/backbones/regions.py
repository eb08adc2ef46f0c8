"""Match regions with objects, and turn them into boxes: what R-CNN and its successors do with the regions of an image.

Girshick, "Fast R-CNN", ICCV 2015; Dai, Li, He, Sun, "R-FCN", NIPS 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from rfsearch.detector import Detected, Objects

MIN_IOU = 0.5  # from which a region is one of an object
SUPPRESSED_FROM = 0.3  # intersection over union (R-FCN sec. 3)
LEAST_SCORE = 0.05
MOST_DETECTIONS = 100
_SHIFT_SCALES = (10.0, 10.0, 5.0, 5.0)  # of the four shifts of a box, as in Fast R-CNN
_LARGEST_GROWTH = 4.0  # of a side, as its logarithm: e^4 = 55


def matched(regions: Tensor, objects: Objects) -> tuple[Tensor, Tensor]:
    """Return the class of each region, 0 for the background, and the shifts to its object, 0 where it has none."""
    if not len(objects.boxes):
        return regions.new_zeros(len(regions), dtype=torch.int64), torch.zeros_like(regions)
    overlap, place = box_iou(regions, objects.boxes).max(dim=1)
    inside = overlap >= MIN_IOU
    labels = torch.where(inside, objects.labels[place] + 1, 0)
    return labels, torch.where(inside[:, None], shifts_between(regions, objects.boxes[place]), 0.0)


def shifts_between(boxes: Tensor, others: Tensor) -> Tensor:
    """Return n x 4 shifts that make n x 4 boxes of others: of the centre in sides, and the logarithm of the growth."""
    (centre, side), (goal, goal_side) = _centred(boxes), _centred(others)
    plain = torch.cat([(goal - centre) / side, (goal_side / side).log()], dim=1)
    return plain * plain.new_tensor(_SHIFT_SCALES)


def shifted(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Return n x 4 boxes that n x 4 shifts make of others."""
    centre, side = _centred(boxes)
    plain = shifts / shifts.new_tensor(_SHIFT_SCALES)
    goal, half = centre + plain[:, :2] * side, side * plain[:, 2:].clamp(max=_LARGEST_GROWTH).exp() / 2
    return torch.cat([goal - half, goal + half], dim=1)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres and sides of boxes; a side is 1e-3 px at least."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)


def twice_as_wide(boxes: Tensor) -> Tensor:
    """Return n x 4 boxes of the same centres and of twice the sides."""
    centre, side = _centred(boxes)
    return torch.cat([centre - side, centre + side], dim=1)


def best(boxes: Tensor, scores: Tensor) -> Detected:
    """Return the detections of n x 4 boxes with n x classes scores, suppressed class by class, best first."""
    place, label = (scores >= LEAST_SCORE).nonzero(as_tuple=True)
    kept = batched_nms(boxes[place], scores[place, label], label, SUPPRESSED_FROM)[:MOST_DETECTIONS]
    return Detected(boxes[place[kept]], scores[place[kept], label[kept]], label[kept])
