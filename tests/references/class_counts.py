"""Scores of class maps, counted pixel by pixel."""

from __future__ import annotations

import math

import numpy as np

IGNORE = -100


def pixels(seed: int = 0, classes: int = 11, ignore: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Draw (prediction, label), 3 x 13 x 17, that agree in about half of the pixels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (3, 13, 17))
    pred = np.where(rng.random(label.shape) < 0.5, label, rng.integers(0, classes, label.shape))
    label[rng.random(label.shape) < 0.1] = ignore
    return pred, label


def counted(pred: np.ndarray, label: np.ndarray, ignore: int, same: set[int]) -> tuple[int, int, int]:
    """Count (hits, predictions, truths) of a class, pixel by pixel. same: the ids that are this class."""
    hits = predicted = true = 0
    for p, t in zip(pred.ravel().tolist(), label.ravel().tolist(), strict=True):
        if t == ignore:
            continue
        hits += p in same and t in same
        predicted += p in same
        true += t in same
    return hits, predicted, true


def boundary_counts(pred: np.ndarray, label: np.ndarray, ignore: int, one: int, distance: int) -> tuple[int, int]:
    """Count (intersection, union) of a class's bands in one image, H x W, by the definition of Cheng et al., eq. 2.

    A pixel of a mask is in its band where one that is not of the mask, or beyond the image, is at most `distance` away
    in rows and in columns.
    """
    height, width = label.shape

    def inside(ids: np.ndarray, y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width and bool(label[y, x] != ignore) and bool(ids[y, x] == one)

    def in_band(ids: np.ndarray, y: int, x: int) -> bool:
        reach = range(-distance, distance + 1)
        return inside(ids, y, x) and not all(inside(ids, y + dy, x + dx) for dy in reach for dx in reach)

    both = either = 0
    for y in range(height):
        for x in range(width):
            true, called = in_band(label, y, x), in_band(pred, y, x)
            both += true and called
            either += true or called
    return both, either


def mean_of_defined(values: list[float]) -> float:
    """Average the values that are numbers."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan
