"""Colours of classes, for pictures of class maps. It imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

IGNORED = 255  # in a map of bytes: pixels without a class

# Class 0 is most often background: a quiet grey. The others differ in hue and in lightness, for eyes that see few.
PALETTE = (
    (58, 62, 70), (230, 159, 0), (0, 114, 178), (0, 170, 120), (213, 80, 30), (204, 121, 167), (86, 190, 240),
    (240, 228, 66), (128, 60, 160), (160, 20, 70), (150, 210, 120), (120, 95, 45), (255, 180, 170), (0, 80, 110),
    (170, 170, 230), (140, 150, 0), (255, 100, 150), (0, 220, 210), (200, 190, 160), (20, 120, 20), (90, 70, 220),
    (190, 90, 240), (255, 235, 200), (0, 60, 255),
)  # fmt: skip
_IGNORED_COLOUR = (255, 255, 255)


def colour(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class; beyond the palette it repeats, darker."""
    if class_id == IGNORED:
        return _IGNORED_COLOUR
    r, g, b = PALETTE[class_id % len(PALETTE)]
    rounds = class_id // len(PALETTE)
    return (r, g, b) if rounds == 0 else (r * 2 // (2 + rounds), g * 2 // (2 + rounds), b * 2 // (2 + rounds))


def coloured(labels: np.ndarray) -> np.ndarray:
    """Return class maps, N x H x W uint8, as RGB pictures, N x H x W x 3 uint8."""
    result: np.ndarray = np.array([colour(k) for k in range(256)], np.uint8)[labels]
    return result


def legend(maps: Sequence[np.ndarray], classes: Sequence[str]) -> Mapping[str, tuple[int, int, int]]:
    """Return the colours of the classes that occur in some maps, by name and in the order of the ids.

    Args:
        maps: uint8 arrays of any shape.
        classes: Names in the order of the ids.
    """
    present = np.unique(np.concatenate([labels.ravel() for labels in maps])).tolist()
    return {_name(k, classes): colour(k) for k in present}


def _name(class_id: int, classes: Sequence[str]) -> str:
    if class_id == IGNORED:
        return "ignored"
    return classes[class_id] if class_id < len(classes) else f"class {class_id}"


def agreements(truth: np.ndarray, prediction: np.ndarray) -> tuple[float | None, ...]:
    """Return the share of labelled pixels of each map, N x H x W uint8, where truth and prediction agree."""
    shares: list[float | None] = []
    for true, called in zip(truth, prediction, strict=True):
        labelled = true != IGNORED
        shares.append(float((true == called)[labelled].mean()) if labelled.any() else None)
    return tuple(shares)
