"""The mean Dice coefficient, against counting and by hand."""

import numpy as np
import pytest
import torch

from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics.confusion import confusion_matrix
from rfsearch.tasks.metrics.dice import Dice, per_class_dice
from rfsearch.tasks.metrics.helen import f_measure
from rfsearch.tasks.metrics.iou import per_class_iou
from tests.references.class_counts import counted, pixels


def test_dice_by_counting():
    pred, label = pixels(1, ignore=IGNORE)
    metric = Dice(11, ignored=None)
    for called, true in zip(pred, label, strict=True):
        metric.update(torch.from_numpy(called)[None], torch.from_numpy(true)[None])
    each = []
    for k in range(11):
        hits, predicted, true = counted(pred, label, IGNORE, {k})
        each.append(2 * hits / (predicted + true))
    scores = metric.compute()
    assert [scores[f"dice_{k}"] for k in range(11)] == pytest.approx(each)
    assert scores["mdice_dataset"] == pytest.approx(sum(each) / 11)
    assert set(scores) == {"mdice_dataset", *(f"dice_{k}" for k in range(11))}


def test_dice_by_hand():
    confusion = np.array([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_allclose(per_class_dice(confusion), [6 / 9, 8 / 12, np.nan, 0])
    scores = Dice.scores(confusion)
    assert scores["mdice_dataset"] == pytest.approx((6 / 9 + 8 / 12 + 0) / 3)  # class 2 is nowhere, class 3 was missed


def test_dice_is_the_f_measure_of_a_class_and_follows_from_its_iou():
    confusion = confusion_matrix(*pixels(3), 11, 255)
    iou = per_class_iou(confusion)
    np.testing.assert_allclose(per_class_dice(confusion), 2 * iou / (1 + iou))
    assert per_class_dice(confusion)[5] == pytest.approx(f_measure(confusion, [[5]], merge=False))


def test_an_ignored_class_has_no_score():
    confusion = np.array([[0, 0, 0], [2, 4, 0], [0, 0, 5]])
    assert Dice.scores(confusion, ignored=0) == {
        "mdice_dataset": pytest.approx((8 / 10 + 1) / 2),
        "dice_1": pytest.approx(8 / 10),
        "dice_2": 1,
    }
    assert np.isnan(Dice.scores(np.zeros((3, 3), int))["mdice_dataset"])
