"""The scores of optical flow as loops over every pixel. Slow and obvious.

aEPE: the mean length of the difference of vectors. Fl-all: an outlier is off by more than 3 px and by more than 5 % of
the true length (Menze and Geiger, CVPR 2015). All over the known pixels of all images together.
"""

from __future__ import annotations

import math

import numpy as np


def scores(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """true, found: N x 2 x H x W; true is NaN where it is unknown."""
    errors: dict[str, list[float]] = {"aepe": [], "aepe_0_10": [], "aepe_10_40": [], "aepe_40_up": []}
    outliers = []
    for image in range(true.shape[0]):
        for y in range(true.shape[2]):
            for x in range(true.shape[3]):
                u, v = (float(value) for value in true[image, :, y, x])
                if math.isnan(u) or math.isnan(v):
                    continue
                length = math.sqrt(u * u + v * v)
                error = math.sqrt((float(found[image, 0, y, x]) - u) ** 2 + (float(found[image, 1, y, x]) - v) ** 2)
                errors["aepe"].append(error)
                name = "aepe_0_10" if length < 10 else "aepe_10_40" if length < 40 else "aepe_40_up"
                errors[name].append(error)
                outliers.append(error > 3 and error > 0.05 * length)
    means = {name: sum(values) / len(values) for name, values in errors.items() if values}
    return means | {"fl_all": sum(outliers) / len(outliers)}


def shrunk(true: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean of the known vectors of each of size's equal cells, NaN where none is known."""
    count, _, height, width = true.shape
    result = np.full((count, 2, *size), np.nan, np.float32)
    down, across = height // size[0], width // size[1]
    for image in range(count):
        for row in range(size[0]):
            for column in range(size[1]):
                cell = true[image, :, row * down : (row + 1) * down, column * across : (column + 1) * across]
                known = cell.reshape(2, -1)[:, np.isfinite(cell).all(axis=0).ravel()]
                if known.size:
                    result[image, :, row, column] = known.mean(axis=1)
    return result
