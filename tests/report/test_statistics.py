from __future__ import annotations

import itertools
import math
import statistics

import pytest

from rfsearch.choices import Candidate, Searched
from rfsearch.ledger import Record
from rfsearch.report.statistics import (
    bootstrap_interval,
    holm,
    noise,
    probability_of_improvement,
    replicates,
    wilcoxon_p,
)
from tests.report.made_up import record


def test_interval_holds_the_mean_and_repeats() -> None:
    values = [0.61, 0.65, 0.70, 0.66]
    low, high = bootstrap_interval(values)
    assert min(values) <= low < statistics.mean(values) < high <= max(values)
    many = [math.sqrt(i) for i in range(20)]
    assert bootstrap_interval(many) == bootstrap_interval(many) != bootstrap_interval(many, seed=1)
    wider = bootstrap_interval(values, level=0.99)
    assert wider[0] <= low < high <= wider[1]
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_interval_of_two_values_is_the_exact_one() -> None:
    """A resample of two values has a low, middle or high mean with chances 1/4, 1/2, 1/4: 95 % reach both ends."""
    assert bootstrap_interval([0.2, 0.4]) == (0.2, 0.4)
    low, high = bootstrap_interval([0.2, 0.4], level=0.4)
    assert (low, high) == pytest.approx((0.3, 0.3))


def test_interval_needs_two_values() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_interval([0.5])


def test_interval_covers_about_as_often_as_it_says() -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(list(rng.normal(0.5, 0.1, 30)), resamples=500)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_trainings_that_found_different_dilations_are_no_replicates() -> None:
    searched = Candidate({"conv6": Searched(4)}).to_json()

    def found(name: str, seed: int, dilation: float) -> Record:
        return record(name, train_seed=seed, candidate=searched, ends={"conv6": dilation}, steps=125)

    ended = [found("a", 0, 4), found("b", 1, 6), found("c", 2, 3.7), record("plain", 4, train_seed=3)]
    groups = replicates(ended, lambda r: r.test)
    assert sorted(map(sorted, groups.values())) == [[0, 2], [1], [3]]


def test_noise_pools_candidates_and_knows_real_replicates() -> None:
    records = [
        record("a0", 1, test=0.60, train_seed=0),
        record("a1", 1, test=0.64, train_seed=1),
        record("a1 again", 1, test=0.64, train_seed=1, strategy="random"),  # the same training in another arm
        record("b0", 2, test=0.70, train_seed=0),
        record("b1", 2, test=0.76, train_seed=1),
        record("b2", 2, test=0.73, train_seed=2),
        record("b cut", 2, test=0.10, train_seed=3, status="cut"),
        record("b short", 2, test=0.20, train_seed=4, steps=50),
        record("c", 4, test=0.99),
    ]
    found = noise(records, lambda r: r.test)
    assert found is not None
    squares = statistics.variance([0.60, 0.64]) + 2 * statistics.variance([0.70, 0.76, 0.73])
    assert found.std == pytest.approx(math.sqrt(squares / 3))
    assert (found.trainings, found.candidates) == (5, 2)
    # 3 degrees of freedom: t = 3.182
    assert found.smallest_difference(1, 1) == pytest.approx(3.182 * found.std * math.sqrt(2))
    assert found.smallest_difference(4, 4) == pytest.approx(3.182 * found.std * math.sqrt(0.5))


def test_noise_is_unknown_without_replicates() -> None:
    assert noise([record("a", 1), record("b", 2), record("a again", 1)], lambda r: r.test) is None


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
