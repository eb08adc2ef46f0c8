"""F-measures of Helen's classes, against counting and by hand."""

import numpy as np
import pytest

from rfsearch.tasks.metrics.confusion import confusion_matrix
from rfsearch.tasks.metrics.helen import HELEN_GROUPS, f_measure, helen_scores
from rfsearch.tasks.metrics.iou import mean_iou
from tests.references.class_counts import counted, pixels


def matrix(**counts):
    """A Helen confusion matrix from `t4p5=3`: 3 pixels of class 4 called 5."""
    confusion = np.zeros((11, 11), np.int64)
    for key, n in counts.items():
        true, pred = key[1:].split("p")
        confusion[int(true), int(pred)] = n
    return confusion


def test_nothing_to_score_is_nan():
    empty = np.zeros((11, 11), np.int64)
    assert np.isnan(mean_iou(empty))
    assert np.isnan(f_measure(empty, [[1]], merge=True))
    assert all(np.isnan(value) for value in helen_scores(empty).values())


def test_f_measures_by_counting():
    pred, label = pixels(2)
    scores = helen_scores(confusion_matrix(pred, label, 11, 255))
    overall = np.zeros(3)
    for name, members in HELEN_GROUPS.items():
        counts = np.array(counted(pred, label, 255, set(members)))
        np.testing.assert_allclose(scores[f"f_{name}_pooled"], 2 * counts[0] / (counts[1] + counts[2]))
        overall += counts * (name != "face")
    np.testing.assert_allclose(scores["f_overall_pooled"], 2 * overall[0] / (overall[1] + overall[2]))
    each = [counted(pred, label, 255, {k}) for k in range(1, 11)]
    np.testing.assert_allclose(scores["f_classmean_pooled"], np.mean([2 * h / (p + t) for h, p, t in each]))


def test_f_measure_is_the_harmonic_mean_of_precision_and_recall():
    confusion = matrix(t6p6=6, t6p1=2, t1p6=4)
    precision, recall = 6 / 10, 6 / 8
    np.testing.assert_allclose(helen_scores(confusion)["f_nose_pooled"], 2 / (1 / precision + 1 / recall))


def test_a_left_right_swap_is_an_error_only_where_it_is_said_to_be():
    swapped = matrix(t4p5=7, t5p4=7, t2p3=5, t3p2=5, t6p6=9)
    scores = helen_scores(swapped)
    assert scores["f_eye_pooled"] == scores["f_eyebrow_pooled"] == scores["f_overall_pooled"] == 1
    np.testing.assert_allclose(scores["f_classmean_pooled"], 1 / 5)  # of the classes present only the nose is right
    assert f_measure(swapped, [HELEN_GROUPS["eye"]], merge=False) == 0


def test_lip_for_mouth_is_no_error_once_merged():
    confusion = matrix(t7p8=3, t8p9=3, t9p9=4)
    assert helen_scores(confusion)["f_mouth_pooled"] == 1
    np.testing.assert_allclose(f_measure(confusion, [HELEN_GROUPS["mouth"]], merge=False), 8 / 20)


def test_overall_leaves_skin_hair_and_background_out_and_keeps_groups_apart():
    base = matrix(t4p4=6, t6p6=6)
    skin = base + matrix(t1p10=50, t0p1=50, t10p0=50)
    assert helen_scores(skin)["f_overall_pooled"] == 1
    brow_for_eye = base + matrix(t4p2=6)
    np.testing.assert_allclose(helen_scores(brow_for_eye)["f_overall_pooled"], 2 * 12 / (18 + 18))


def test_only_helen_has_helen_scores():
    with pytest.raises(ValueError, match="11 classes"):
        helen_scores(np.zeros((3, 3)))
