"""How sure a comparison is: what noise can tell apart, intervals over seeds, and a test where there are enough of them.

n seeds can give a two-sided Wilcoxon p of at best 2 / 2^n: below 7 seeds no test is made.
Probability of improvement: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice"
(NeurIPS 2021). Several tests against one strategy are corrected by Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SEEDS_FOR_A_TEST = 7
SEEDS_FOR_AN_INTERVAL = 4

# Two-sided 95 % quantile of Student's t at 1, 2, ... 30 degrees of freedom; above that, the normal one.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL95 = 1.960


Standing = Literal["apart", "alike", "open"]
"""Whether two candidates can be told apart: they can, they cannot, or there are too few trainings to say."""

_ENOUGH = 4  # trainings of each, from which on a complete separation is rare by chance: 2 / C(8, 4) = 0.03


@dataclass(frozen=True)
class Comparison:
    """Say how the trainings of one candidate compare with those of another, against the noise of these trainings alone.

    Attributes:
        gap: By how much the mean merit of ours is higher.
        least: The difference of means that noise exceeds in only 5 % of cases (Student's t, both candidates' variance
            pooled); None where neither was trained twice.
        standing: Whether the two can be told apart.

    Example:
        >>> compare([0.70, 0.72, 0.71], [0.60, 0.61, 0.62]).standing
        'apart'
    """

    gap: float
    least: float | None
    standing: Standing


@dataclass(frozen=True)
class Sample:
    """Sum up the merits of one candidate's trainings, so that comparing takes the same time however many there are.

    Attributes:
        count: Their number.
        mean: Their mean.
        squares: Sum of their squared distances from it.
        low: The lowest one.
        high: The highest one.

    Example:
        >>> Sample.of([1.0, 3.0])
        Sample(count=2, mean=2.0, squares=2.0, low=1.0, high=3.0)
    """

    count: int
    mean: float
    squares: float
    low: float
    high: float

    @classmethod
    def of(cls, merits: Sequence[float]) -> Sample:
        """Sum up at least one merit."""
        middle = mean(merits)
        return cls(len(merits), middle, sum((m - middle) ** 2 for m in merits), min(merits), max(merits))


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Compare the merits of two candidates' trainings; see `compare_samples`."""
    return compare_samples(Sample.of(ours), Sample.of(theirs))


def compare_samples(ours: Sample, theirs: Sample) -> Comparison:
    """Compare the merits of two candidates' trainings.

    They are apart where the gap of their means is larger than noise, or where of at least four trainings each every one
    of the one candidate beats every one of the other. They are alike where it is not, and the trainings are enough to
    know the noise, or at least overlap. Everything else is open.
    """
    n, m = ours.count, theirs.count
    gap, freedom = ours.mean - theirs.mean, n + m - 2
    separate = ours.low > theirs.high or theirs.low > ours.high
    if freedom == 0:
        return Comparison(gap, None, "open")
    squares = ours.squares + theirs.squares
    least = _quantile(freedom) * math.sqrt(squares / freedom * (1 / n + 1 / m))
    if (squares and abs(gap) > least) or (separate and min(n, m) >= _ENOUGH):
        return Comparison(gap, least, "apart")
    overlapping = min(n, m) >= 2 and not separate
    return Comparison(gap, least, "alike" if overlapping or (squares and max(n, m) >= _ENOUGH) else "open")


def _quantile(freedom: int) -> float:
    return _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL95


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t. Percentile bootstraps of few values are too narrow.

    Raises:
        ValueError: There are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least 2 values. Got {len(values)}.")
    middle, freedom = mean(values), len(values) - 1
    variance = sum((value - middle) ** 2 for value in values) / freedom
    half = _quantile(freedom) * math.sqrt(variance / len(values))
    return middle - half, middle + half


def probability_of_improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the share of pairs, one value of each, in which ours is the higher one; a tie counts half."""
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in ours for b in theirs]
    return sum(wins) / len(wins)


def wilcoxon_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the exact two-sided p of Wilcoxon's signed-rank test of pairs.

    Pairs of equal values are left out, and equal differences share a rank.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True) if a != b]
    if not differences:
        return 1.0
    sizes = np.abs(differences)
    # Twice the mid-rank is an integer, so the sums can be counted exactly.
    ranks = [int(2 * (sizes < s).sum() + (sizes == s).sum() + 1) for s in sizes]
    ways = np.zeros(sum(ranks) + 1)
    ways[0] = 1.0
    for rank in ranks:
        ways[rank:] = ways[rank:] + ways[:-rank]
    positive = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    extreme = min(positive, sum(ranks) - positive)
    return min(1.0, 2 * float(ways[: extreme + 1].sum() / ways.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return several p values corrected by Holm's method, in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, so_far = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = so_far
    return corrected
