"""F-measures of Helen's eleven classes, from counts pooled over the data set.

Sources of the convention.
    Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013 (F-measure of parts on Helen).
    Liu, Yang, Huang, Yang, "Multi-objective convolutional learning for face labeling", CVPR 2015.
    Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rfsearch.errors import SpaceError
from rfsearch.tasks.metrics.confusion import ConfusionMetric, mean_of_defined

HELEN_GROUPS: Mapping[str, tuple[int, ...]] = {
    "eye": (4, 5),
    "eyebrow": (2, 3),
    "nose": (6,),
    "mouth": (7, 8, 9),
    "face": (1,),
}
_OVERALL = ("eye", "eyebrow", "nose", "mouth")
_HELEN_CLASSES = 11


class HelenF(ConfusionMetric):
    """Average the F-measures of Helen's ten classes other than background, `f_classmean_pooled`.

    The papers' scores are among the others. A search does not go by their overall one: merging left with right hides
    just what a wider receptive field is needed for.
    """

    primary = "f_classmean_pooled"

    def __init__(self, num_classes: int, ignored: int | None = None) -> None:
        if num_classes != _HELEN_CLASSES:
            raise SpaceError(
                f"metric 'helen-f' scores the {_HELEN_CLASSES} classes of Helen, and this data has {num_classes}. "
                "For other classes: 'mean-iou', 'dice' or 'boundary-iou'."
            )
        super().__init__(num_classes, ignored)

    @staticmethod
    def scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
        """Return the scores that `helen_scores` computes."""
        return helen_scores(confusion, ignored)


def f_measure(confusion: np.ndarray, groups: Sequence[Sequence[int]], merge: bool) -> float:
    """Compute F = 2 TP / (predicted + true) of some classes, from counts summed over the groups.

    Args:
        confusion: C x C counts, [true class, predicted class].
        groups: Class ids of each group.
        merge: Each group is first made one class, so that a mix-up within it (left with right eye, lip with inner
            mouth) is no error. Otherwise a hit is a pixel of exactly its class, and such a mix-up is an error.

    Returns:
        A share of 1, NaN where the classes are neither in the prediction nor in the truth.
    """
    hit = total = 0
    for group in groups:
        members = list(group)
        inside = confusion[np.ix_(members, members)]
        hit += int(inside.sum() if merge else np.trace(inside))
        total += int(confusion[members].sum() + confusion[:, members].sum())
    return 2 * hit / total if total else float("nan")


def helen_scores(confusion: np.ndarray, ignored: int | None = None) -> dict[str, float]:
    """Compute F-measures of Helen's 11 classes, in the literature's convention and in one that tells left from right.

    `f_eye_pooled, f_eyebrow_pooled, f_nose_pooled, f_mouth_pooled, f_face_pooled`: the group's classes merged into
    one (left and right; lips and inner mouth), as the papers above report them. `f_overall_pooled`: hits, predictions
    and truths summed over the merged eyes, eyebrows, nose and mouth; face skin, hair and background do not enter.
    Not verified against the papers' text: that 'overall' is over these four without face skin is how Smith et al. are
    quoted; that it sums their counts, rather than merging the four into a single class or averaging four F-measures,
    is our reading. Whether the papers pool counts over the test set or average over images was not found either. So
    compare these to printed numbers with that reserve.

    `f_classmean_pooled`: the mean F of the 10 classes other than background, each for itself: a left eye called right
    is an error here, and nowhere above. Classes in neither prediction nor truth are left out of it.

    Args:
        confusion: 11 x 11 counts, [true class, predicted class].
        ignored: Id that is no class: no group holds it, and a group of nothing else has no score.
    """
    if confusion.shape != (_HELEN_CLASSES, _HELEN_CLASSES):
        raise ValueError(f"Helen has {_HELEN_CLASSES} classes. Got {confusion.shape=}.")
    groups = {name: [k for k in group if k != ignored] for name, group in HELEN_GROUPS.items()}
    scores = {f"f_{name}_pooled": f_measure(confusion, [group], merge=True) for name, group in groups.items() if group}
    scores["f_overall_pooled"] = f_measure(confusion, [groups[name] for name in _OVERALL], merge=True)
    each = [f_measure(confusion, [[k]], merge=False) for k in range(1, _HELEN_CLASSES) if k != ignored]
    scores["f_classmean_pooled"] = mean_of_defined(np.array(each))
    return scores
