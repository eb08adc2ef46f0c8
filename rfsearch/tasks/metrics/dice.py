"""The Dice coefficient of every class, over the data set, and their mean.

    Dice, "Measures of the amount of ecologic association between species", Ecology 26, 1945.

Dice = 2 |P and G| / (|P| + |G|), the F-measure of a class's pixels; with its IoU J it is 2 J / (1 + J), so that both
rank a single class alike, but not the mean over several.
"""

from __future__ import annotations

import numpy as np

from rfsearch.tasks.metrics.confusion import ConfusionMetric, by_class, mean_of_defined, ratio


class Dice(ConfusionMetric):
    """Average the Dice coefficients of all classes, each over the data set: `mdice_dataset`."""

    primary = "mdice_dataset"

    @staticmethod
    def scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
        """Return `mdice_dataset`, and `dice_<id>` of every class (NaN for one in neither prediction nor truth)."""
        each = by_class("dice", per_class_dice(confusion), ignored)
        return {"mdice_dataset": mean_of_defined(each), **each}


def per_class_dice(confusion: np.ndarray) -> np.ndarray:
    """Return C coefficients; NaN for a class that is neither in the prediction nor in the truth."""
    return ratio(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))
