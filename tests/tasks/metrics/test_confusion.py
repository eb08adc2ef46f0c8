"""Counting pixels by their true and their predicted class."""

import numpy as np
import pytest

from rfsearch.tasks.metrics.confusion import confusion_matrix
from tests.references.class_counts import pixels


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
