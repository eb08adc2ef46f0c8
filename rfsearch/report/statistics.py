"""How sure a comparison is: the noise of a training, intervals over seeds, and a test where there are enough of them.

n seeds can give a two-sided Wilcoxon p of at best 2 / 2^n: below 7 seeds no test is made.
Probability of improvement: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice"
(NeurIPS 2021). Several tests against one strategy are corrected by Holm (1979).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import finite

SEEDS_FOR_A_TEST = 7

# Two-sided 95 % quantile of Student's t at 1, 2, ... 30 degrees of freedom; above that, the normal one.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL95 = 1.960


@dataclass(frozen=True)
class Noise:
    """Say how much a score varies between trainings of one candidate under different training seeds.

    Attributes:
        std: Pooled standard deviation, in units of the score.
        trainings: Number of trainings that it was estimated from.
        candidates: Number of candidates that these were trainings of.

    Example:
        >>> f"{Noise(std=0.01, trainings=4, candidates=2).smallest_difference(2, 2):.3f}"
        '0.043'
    """

    std: float
    trainings: int
    candidates: int

    def smallest_difference(self, n: int, m: int) -> float:
        """Return the difference between means of n and of m trainings that noise exceeds in only 5 % of cases."""
        freedom = self.trainings - self.candidates
        t = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL95
        return t * self.std * math.sqrt(1 / n + 1 / m)


def replicates(
    records: Iterable[Record], score: Callable[[Record], float | None]
) -> Mapping[tuple[str, int], Mapping[int, float]]:
    """Return the scores of completed trainings, by what was trained, then by training seed.

    The same candidate under the same training seed is one training, however many arms asked for it. An heir is left
    out: its candidate is what its network ended with, and others may have gone before.
    """
    found: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    for record in records:
        value = finite(score(record))
        if record.status == "completed" and value is not None and not record.heir_of:
            found[training_of(record)].setdefault(record.train_seed, value)
    return found


def training_of(record: Record) -> tuple[str, int]:
    """Return what a record is a training of: a candidate as JSON, and a number of steps.

    Dilations that training found are rounded to whole ones, so that trainings that found about the same are one.
    """
    known = parsed(record.candidate)
    if known is None:
        return record.candidate, record.steps
    ended = record.found
    found = known.changed(lambda path, choice: ended.get(path, choice) if choice.moves == "dilation" else choice)
    return found.nearest.to_json(), record.steps


def noise(records: Iterable[Record], score: Callable[[Record], float | None]) -> Noise | None:
    """Estimate the noise of a score; None where no candidate was trained twice."""
    groups = [list(g.values()) for g in replicates(records, score).values() if len(g) > 1]
    if not groups:
        return None
    trainings = sum(len(g) for g in groups)
    squares = sum(float(np.var(g, ddof=1)) * (len(g) - 1) for g in groups)
    return Noise(math.sqrt(squares / (trainings - len(groups))), trainings, len(groups))


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean. Equal values give equal intervals.

    Args:
        values: At least two.
        level: Probability that the interval covers.
        resamples: Number of resamples.
        seed: Of the random numbers.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: There are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least 2 values. Got {len(values)}.")
    sample = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(0, len(sample), (resamples, len(sample)))
    low, high = np.quantile(sample[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
