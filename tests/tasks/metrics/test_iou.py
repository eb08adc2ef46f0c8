"""Mean intersection over union, against counting and by hand."""

import numpy as np

from rfsearch.tasks.metrics.confusion import confusion_matrix
from rfsearch.tasks.metrics.iou import MeanIou, mean_iou, per_class_iou
from tests.references.class_counts import counted, pixels


def test_iou_by_counting():
    pred, label = pixels(1)
    each = []
    for k in range(11):
        hits, predicted, true = counted(pred, label, 255, {k})
        each.append(hits / (predicted + true - hits))
    confusion = confusion_matrix(pred, label, 11, 255)
    np.testing.assert_allclose(per_class_iou(confusion), each)
    np.testing.assert_allclose(mean_iou(confusion), sum(each) / 11)


def test_iou_by_hand():
    confusion = np.array([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    iou = per_class_iou(confusion)
    np.testing.assert_allclose(iou, [3 / 6, 4 / 8, np.nan, 0])
    np.testing.assert_allclose(mean_iou(confusion), (0.5 + 0.5 + 0) / 3)  # class 2 is nowhere, class 3 was missed


def test_the_mean_is_over_the_data_set_and_not_over_images():
    """One image all right in a small object, one all wrong in a large one: pooled, the large one weighs more."""
    small, large = np.array([[9, 0], [0, 1]]), np.array([[0, 0], [9, 1]])
    pooled = mean_iou(small + large)
    np.testing.assert_allclose(pooled, (9 / 18 + 2 / 11) / 2)
    assert abs(pooled - (mean_iou(small) + mean_iou(large)) / 2) > 0.1


def test_the_metric_gives_the_mean_and_every_class():
    confusion = confusion_matrix(*pixels(), 11, 255)
    scores = MeanIou.scores(confusion, ignored=4)
    assert set(scores) == {"miou_dataset", *(f"iou_{k}" for k in range(11) if k != 4)}
    assert scores["iou_3"] == per_class_iou(confusion)[3]
    assert scores["miou_dataset"] == mean_iou(confusion, ignored=4)
