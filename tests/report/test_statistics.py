from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
from scipy import stats

from rfsearch.report.statistics import compare, holm, mean_interval, probability_of_improvement, wilcoxon_p


@pytest.mark.parametrize("values", [[0.61, 0.65], [0.61, 0.65, 0.70, 0.66], [math.sqrt(i) for i in range(40)]])
def test_interval_is_that_of_students_t(values: list[float]) -> None:
    spread = statistics.stdev(values) / math.sqrt(len(values))
    expected = stats.t.interval(0.95, len(values) - 1, statistics.mean(values), spread)
    assert mean_interval(values) == pytest.approx(expected, rel=0.01)


def test_interval_needs_two_values() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([0.5])


def test_interval_covers_as_often_as_it_says() -> None:
    draw = random.Random(1)
    samples = [[draw.gauss(0.5, 0.1) for _ in range(5)] for _ in range(1000)]
    covered = sum(low <= 0.5 <= high for low, high in map(mean_interval, samples))
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (1, 4), (8, 8)])
def test_noise_that_is_compared_with_is_that_of_a_t_test(n: int, m: int) -> None:
    """The smallest difference that counts lies where the p of scipy's test of two samples crosses 5 %."""
    draw = random.Random(n * m)
    ours, theirs = ([draw.gauss(0.7, 0.02) for _ in range(count)] for count in (n, m))
    found = compare(ours, theirs)
    assert found.gap == pytest.approx(statistics.mean(ours) - statistics.mean(theirs))
    assert found.least is not None
    for factor, below in ((1.01, True), (0.99, False)):
        moved = [value - found.gap + factor * found.least for value in ours]
        assert (stats.ttest_ind(moved, theirs).pvalue < 0.05) == below


CASES = {
    "one training each": ([0.9], [0.1], "open"),
    "two that overlap": ([0.70, 0.72], [0.71, 0.73], "alike"),
    "two that do not, with much noise": ([0.70, 0.76], [0.60, 0.69], "open"),
    "three far apart": ([0.70, 0.71, 0.72], [0.60, 0.61, 0.62], "apart"),
    "one inside of five": ([0.71], [0.70, 0.72, 0.69, 0.73, 0.71], "alike"),
    "one above of two": ([0.75], [0.70, 0.72], "open"),
    "every one of four above": ([0.70, 0.90, 0.70, 0.90], [0.69, 0.60, 0.50, 0.69], "apart"),
    "equal and without noise": ([0.5, 0.5], [0.5, 0.5], "alike"),
    "unlike, without noise, twice": ([0.6, 0.6], [0.5, 0.5], "open"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_can_be_told_apart(case: str) -> None:
    ours, theirs, expected = CASES[case]
    assert compare(ours, theirs).standing == compare(theirs, ours).standing == expected


def test_equal_candidates_are_told_apart_in_about_one_case_of_twenty() -> None:
    draw = random.Random(2)
    pairs = [([draw.gauss(0, 1) for _ in range(5)], [draw.gauss(0, 1) for _ in range(5)]) for _ in range(1000)]
    apart = sum(compare(ours, theirs).standing == "apart" for ours, theirs in pairs)
    assert 0.03 <= apart / 1000 <= 0.075


def test_probability_of_improvement() -> None:
    assert probability_of_improvement([2, 3], [1, 1]) == 1
    assert probability_of_improvement([1, 2], [1, 2]) == 0.5
    assert probability_of_improvement([1, 4], [2, 3]) == 0.5
    assert probability_of_improvement([1], [2, 1]) == 0.25


def literal_wilcoxon(differences: list[float]) -> float:
    """Every assignment of signs, counted one by one."""
    sizes = sorted(abs(d) for d in differences)
    ranks = [statistics.mean(i + 1 for i, s in enumerate(sizes) if s == abs(d)) for d in differences]
    observed = sum(r for r, d in zip(ranks, differences, strict=True) if d > 0)
    middle = sum(ranks) / 2
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return sum(abs(s - middle) >= abs(observed - middle) - 1e-9 for s in sums) / len(sums)


@pytest.mark.parametrize(
    "differences", [[1, 2, 3, 4, 5, 6, 7], [1, -2, 3, 4, -5, 6, 7, 8], [1, 1, -1, 2, 2, 3, -3], [-1, -2, -3]]
)
def test_wilcoxon_is_the_count_of_all_signs(differences: list[float]) -> None:
    assert wilcoxon_p(differences, [0.0] * len(differences)) == pytest.approx(literal_wilcoxon(differences))


def test_wilcoxon_at_its_best_and_without_differences() -> None:
    assert wilcoxon_p([1.0, 2, 3, 4, 5, 6, 7], [0.0] * 7) == pytest.approx(2 / 2**7)
    assert wilcoxon_p([1.0, 2.0], [1.0, 2.0]) == 1.0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
