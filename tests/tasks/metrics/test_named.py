"""Metrics by the name that a space file gives."""

import pytest
import torch

from rfsearch.errors import SpaceError
from rfsearch.tasks.metrics import METRICS, Metric, make_metric
from rfsearch.tasks.metrics.named import metric_spec
from tests.references.class_counts import IGNORE, pixels
from tests.toys import toy_faces

PRIMARY = {
    "boundary-iou": "boundary_miou_dataset",
    "dice": "mdice_dataset",
    "helen-f": "f_classmean_pooled",
    "mean-iou": "miou_dataset",
}


def test_the_registry():
    assert {name: make_metric(name, toy_faces()).primary for name in METRICS} == PRIMARY


@pytest.mark.parametrize("name", METRICS)
def test_each_scores_within_0_and_1_with_the_truth_best_whatever_the_batches(name):
    pred, label = (torch.from_numpy(part) for part in pixels(ignore=IGNORE))
    metric: Metric = make_metric(name, toy_faces())

    def scored(called: torch.Tensor, size: int) -> float:
        metric.reset()
        for batch in zip(called.split(size), label.split(size), strict=True):
            metric.update(*batch)
        return metric.compute()[metric.primary]

    assert 0 < scored(pred, 1) == scored(pred, 2) == scored(pred, 3) < 1
    assert scored(label.clamp(min=0), 2) == 1
    assert metric.direction == "maximize"


def test_underscores_will_do():
    assert (metric_spec("boundary_iou"), metric_spec("mean_iou")) == ("boundary-iou", "mean-iou")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean-iuo", "unknown metric 'mean-iuo'. Did you mean 'mean-iou'"),
        ("score.py", "unknown metric 'score.py'. A callable of a file is named score.py:my_metric"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest(name, message):
    with pytest.raises(SpaceError, match=message):
        make_metric(name, toy_faces())


def test_scores_of_faces_are_of_eleven_classes(tmp_path):
    from dataclasses import replace

    few = replace(toy_faces(), classes=("a", "b"), flip_pairs=())
    with pytest.raises(SpaceError, match="'helen-f' scores the 11 classes of Helen, and this data has 2"):
        make_metric("helen-f", few)
