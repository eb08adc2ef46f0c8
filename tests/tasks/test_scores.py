import numpy as np
import pytest

from rfsearch.tasks.scores import (
    HELEN_GROUPS,
    METRICS,
    confusion_matrix,
    f_measure,
    helen_scores,
    iou_scores,
    mean_iou,
    per_class_iou,
)

LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, NOSE, UPPER, INNER, LOWER = range(2, 10)


def pixels(seed=0, classes=11, ignore=255):
    """(prediction, label) that agree in about half of the pixels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (3, 13, 17))
    pred = np.where(rng.random(label.shape) < 0.5, label, rng.integers(0, classes, label.shape))
    label[rng.random(label.shape) < 0.1] = ignore
    return pred, label


def counted(pred, label, ignore, same):
    """(hits, predictions, truths) of a class, pixel by pixel. same: the ids that are this class."""
    hits = predicted = true = 0
    for p, t in zip(pred.ravel().tolist(), label.ravel().tolist(), strict=True):
        if t == ignore:
            continue
        hits += p in same and t in same
        predicted += p in same
        true += t in same
    return hits, predicted, true


def matrix(**counts):
    """A Helen confusion matrix from `t4p5=3`: 3 pixels of class 4 called 5."""
    confusion = np.zeros((11, 11), np.int64)
    for key, n in counts.items():
        true, pred = key[1:].split("p")
        confusion[int(true), int(pred)] = n
    return confusion


def test_confusion_matrix_by_counting():
    pred, label = pixels()
    confusion = confusion_matrix(pred, label, 11, ignore=255)
    for true in range(11):
        for guess in range(11):
            assert confusion[true, guess] == sum(
                t == true and p == guess for p, t in zip(pred.ravel().tolist(), label.ravel().tolist(), strict=True)
            )


def test_confusion_matrices_add_up():
    pred, label = pixels()
    parts = sum(confusion_matrix(p, t, 11, 255) for p, t in zip(pred, label, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(pred, label, 11, 255))


def test_a_negative_ignore_index_and_small_types():
    pred, label = np.array([[1, 0]], np.uint8), np.array([[1, -100]], np.int64)
    assert confusion_matrix(pred, label, 2, -100).tolist() == [[0, 0], [0, 1]]
    large = np.full((1, 3), 200, np.uint8)  # 200 * 201 + 200 is beyond 8 and 16 bits
    assert confusion_matrix(large, large, 201)[200, 200] == 3


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        ([0, 1], [0, 1, 1], "same shape"),
        ([0, 3], [0, 1], r"prediction must be in 0\.\.2"),
        ([0, 1], [0, 3], r"label must be in 0\.\.2"),
        ([0, 1], [0, -1], "Got ids from -1 to 0"),
    ],
)
def test_ids_out_of_range_are_refused(pred, label, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(pred), np.array(label), 3, ignore=255)


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


def test_the_registry():
    confusion = confusion_matrix(*pixels(), 11, 255)
    assert set(METRICS) == {"helen-f", "mean-iou"}
    for scores, primary in METRICS.values():
        assert 0 < scores(confusion)[primary] < 1
    assert METRICS["helen-f"].primary == "f_classmean_pooled"
    assert METRICS["mean-iou"].primary == "miou_dataset"
    assert iou_scores(confusion)["iou_3"] == per_class_iou(confusion)[3]


def test_only_helen_has_helen_scores():
    with pytest.raises(ValueError, match="11 classes"):
        helen_scores(np.zeros((3, 3)))
