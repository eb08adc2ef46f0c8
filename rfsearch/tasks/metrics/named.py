"""Metrics by the name or SPEC that a space file gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from rfsearch.data import ImageSet
from rfsearch.errors import SpaceError, nearest
from rfsearch.sources import absolute
from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics.base import Metric
from rfsearch.tasks.metrics.boundary_iou import BoundaryIou
from rfsearch.tasks.metrics.dice import Dice
from rfsearch.tasks.metrics.helen import HelenF
from rfsearch.tasks.metrics.iou import MeanIou
from rfsearch.tasks.metrics.own import own_metric

METRICS: Mapping[str, Callable[[int, int | None], Metric]] = {
    "boundary-iou": BoundaryIou,
    "dice": Dice,
    "helen-f": HelenF,
    "mean-iou": MeanIou,
}


def metric_spec(text: str) -> str:
    """Return the name or SPEC of a metric as it is meant in every directory and process; `mean_iou` is `mean-iou`.

    Raises:
        SpaceError: It is neither a name nor a SPEC.
    """
    if ":" in text:
        return absolute(text)
    name = text.replace("_", "-")
    if name in METRICS:
        return name
    hint = f" A callable of a file is named {text}:my_metric." if text.endswith(".py") else nearest(name, METRICS)
    raise SpaceError(f"unknown metric {text!r}.{hint}")


def make_metric(spec: str, data: ImageSet) -> Metric:
    """Make the metric behind a name or SPEC for a data set whose targets are class maps.

    One behind a SPEC is tried on an image of the validation split, so that it fails before anything is trained.

    Raises:
        SpaceError: The name is unknown, or the metric is of other classes.
        ModelError: There is nothing behind the SPEC, or it fails; see `own_metric`.
    """
    spec, ignored = metric_spec(spec), data.ignore_index
    if spec in METRICS:
        return METRICS[spec](data.num_classes, ignored if ignored is not None and ignored < data.num_classes else None)
    labels = torch.from_numpy(data.splits["val"].targets[:1].astype("int64"))
    labels = labels if ignored is None else labels.where(labels != ignored, IGNORE)
    offered = {"num_classes": data.num_classes, "ignore_index": IGNORE}
    return own_metric(spec, offered, predicted=labels.clamp(min=0), target=labels)
