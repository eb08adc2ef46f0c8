"""Boundary IoU, against its definition written out for every pixel, and by hand."""

import math

import numpy as np
import pytest
import torch

from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics.boundary_iou import BoundaryIou, band_distance
from tests.references.class_counts import boundary_counts, mean_of_defined


def blobs(seed, classes, height, width, ignored_share=0.0):
    """(prediction, label), 2 x H x W, of patches a few px large: noise alone would be all boundary."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (2, 2, -(-height // 7), -(-width // 9)))
    pred, label = coarse.repeat(7, axis=2).repeat(9, axis=3)[:, :, :height, :width]
    pred = np.where(rng.random(pred.shape) < 0.7, label, pred)
    label = np.where(rng.random(label.shape) < ignored_share, IGNORE, label)
    return pred.astype(np.int64), label.astype(np.int64)


def scored(metric, *batches):
    for pred, label in batches:
        metric.update(torch.from_numpy(pred), torch.from_numpy(label))
    return metric.compute()


@pytest.mark.parametrize(
    ("height", "width", "ignored_share"), [(24, 31, 0.0), (31, 24, 0.02), (70, 60, 0.005), (3, 40, 0.0), (1, 1, 0.0)]
)
def test_it_is_the_iou_of_the_bands_pooled_over_the_data_set(height, width, ignored_share):
    batches = [blobs(seed, 4, height, width, ignored_share) for seed in range(2)]
    scores = scored(BoundaryIou(4), *batches)
    distance = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    each = []
    for k in range(4):
        pairs = [
            boundary_counts(called, true, IGNORE, k, distance)
            for pred, label in batches
            for called, true in zip(pred, label, strict=True)
        ]
        both, either = (sum(part) for part in zip(*pairs, strict=True))
        each.append(both / either if either else math.nan)
    assert [scores[f"boundary_iou_{k}"] for k in range(4)] == pytest.approx(each, nan_ok=True)
    assert scores["boundary_miou_dataset"] == pytest.approx(mean_of_defined(each))


@pytest.mark.parametrize(
    ("height", "width", "distance"), [(480, 640, 16), (96, 96, 3), (24, 31, 1), (8, 8, 1), (1024, 2048, 46)]
)
def test_the_distance_is_two_percent_of_the_diagonal(height, width, distance):
    assert band_distance(height, width) == distance


def test_a_shifted_square_by_hand():
    """A 6 x 6 square of a 16 x 16 image, called one column too far right; d = 1, so a band is a ring of 20 px."""
    label, pred = np.zeros((2, 1, 16, 16), np.int64)
    label[0, 5:11, 4:10] = 1
    pred[0, 5:11, 5:11] = 1
    # The rings have the 5 px of their upper and of their lower rows in common; the columns between lie side by side.
    scores = scored(BoundaryIou(2), (pred, label))
    assert scores["boundary_iou_1"] == pytest.approx(10 / 30)
    assert scored(BoundaryIou(2), (label, label)) == {
        "boundary_miou_dataset": 1,
        "boundary_iou_0": 1,
        "boundary_iou_1": 1,
    }


def test_errors_inside_an_object_are_of_a_hole_and_large_objects_gain_nothing_by_their_area():
    label = np.zeros((1, 64, 64), np.int64)
    label[0, 8:56, 8:56] = 1
    pred = label.copy()
    pred[0, 8:56, 8:11] = 0  # a margin of 3 px: hardly an error of area, a large one of the contour
    scores = scored(BoundaryIou(2), (pred, label))
    area = (45 * 48) / (48 * 48)
    assert area > 0.93
    assert scores["boundary_iou_1"] < 0.8


def test_pixels_without_a_class_bound_both_masks_and_are_not_counted():
    label, pred = np.zeros((2, 1, 20, 20), np.int64)
    label[0, 9:11] = IGNORE  # void along a contour
    label[0, 11:] = 1
    pred[0, 10:] = 1  # the contour lies within the void: nothing is wrong
    assert scored(BoundaryIou(2), (pred, label))["boundary_miou_dataset"] == 1
    everywhere = np.full_like(label, IGNORE)
    assert math.isnan(scored(BoundaryIou(2), (pred, everywhere))["boundary_miou_dataset"])


def test_an_ignored_class_has_no_score_and_calling_it_is_a_miss():
    label = np.full((1, 12, 12), 1, np.int64)
    pred = label.copy()
    pred[0, :, :6] = 0
    scores = scored(BoundaryIou(3, ignored=0), (pred, label))
    assert set(scores) == {"boundary_miou_dataset", "boundary_iou_1", "boundary_iou_2"}
    assert 0 < scores["boundary_miou_dataset"] == scores["boundary_iou_1"] < 1


def test_it_forgets_what_it_was_given():
    metric = BoundaryIou(4)
    first = scored(metric, blobs(0, 4, 20, 20))
    metric.reset()
    assert scored(metric, blobs(0, 4, 20, 20)) == first
    assert scored(metric, blobs(1, 4, 20, 20)) != first
