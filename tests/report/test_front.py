from __future__ import annotations

import random

import pytest

from rfsearch.ledger import Cost
from rfsearch.report.front import COST_AXES, PARETO_COLUMNS, pareto_front, pareto_table, trials_and_front
from tests.report.made_up import record


def dominated(point: tuple[float, float], points: list[tuple[float, float]]) -> bool:
    """The definition itself, one comparison after the other."""
    cost, score = point
    return any(c <= cost and s >= score and (c < cost or s > score) for c, s in points)


@pytest.mark.parametrize("seed", range(40))
def test_front_is_what_the_definition_says(seed: int) -> None:
    draw = random.Random(seed)
    # A coarse grid, so that equal costs, equal scores and equal points all occur.
    points = [(float(draw.randint(0, 6)), float(draw.randint(-3, 3))) for _ in range(draw.randint(0, 25))]
    expected = [i for i, point in enumerate(points) if not dominated(point, points)]
    found = pareto_front(points)
    assert sorted(found) == expected
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_equal_cost_leaves_one_score() -> None:
    assert pareto_front([(5.0, 0.1), (5.0, 0.9), (5.0, 0.5)]) == [1]


def test_front_leaves_out_trials_that_cannot_win() -> None:
    records = [
        record("good", 2, val=0.7),
        record("pruned", 1, val=0.9, status="pruned"),
        record("failed", 1, val=None, test=None, status="failed"),
        record("costless", 1, val=0.8, infer_latency_ms=None),
    ]
    latency = next(axis for axis in COST_AXES if axis.name == "infer_latency_ms")
    shown, front = trials_and_front(latency, records, "maximize")
    assert [r.trial for r in shown] == [r.trial for r in front] == ["good"]


def test_table_has_its_columns_and_every_axis() -> None:
    table = pareto_table([record("a", 1, val=0.6), record("b", 2, val=0.7), record("c", 4, val=0.5)], "maximize")
    assert tuple(table.columns) == PARETO_COLUMNS == ("axis", "trial", "strategy", "candidate", "cost", "val", "test")
    assert set(table["axis"]) == {"infer_latency_ms", "infer_peak_bytes", "infer_mac", "rf_px", "train_flop"}
    by_axis = table.groupby("axis")["trial"].apply(list).to_dict()
    assert by_axis["rf_px"] == by_axis["infer_latency_ms"] == ["a", "b"]
    assert by_axis["infer_mac"] == ["b"]
    assert tuple(pareto_table([], "maximize").columns) == PARETO_COLUMNS


def test_what_an_heir_cost_is_not_what_its_network_took() -> None:
    """Its own stretch is cheap: on the axis of training compute it would beat every full training."""
    heir = record("heir", 4, val=0.9, cost=Cost(0.1e12), heir_of="parent")
    table = pareto_table([record("full", 2, val=0.8), heir], "maximize")
    assert list(table[table.axis == "train_flop"].trial) == ["full"]
    assert "heir" in set(table[table.axis == "rf_px"].trial)


def beats(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Lower end, upper end and score of two trials: the definition, with ties where spreads overlap."""
    (low, high, score), (other_low, other_high, other_score) = one, other
    cheaper, dearer = high < other_low, other_high < low
    return not dearer and score >= other_score and (cheaper or score > other_score)


@pytest.mark.parametrize("seed", range(40))
def test_a_front_with_spreads_beats_what_it_leaves_out_and_nothing_of_itself(seed: int) -> None:
    draw = random.Random(seed)
    ends = [sorted((draw.randint(0, 20), draw.randint(0, 20))) for _ in range(draw.randint(0, 25))]
    trials = [(float(low), float(high), float(draw.randint(0, 6))) for low, high in ends]
    points = [((low + high) / 2, score) for low, high, score in trials]
    front = pareto_front(points, [(low, high) for low, high, _ in trials])
    for i, trial in enumerate(trials):
        assert any(beats(trials[k], trial) for k in front) == (i not in front)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_the_cheapest_of_a_chain_of_ties_stays_on_the_front() -> None:
    """Each ties with the next one only: the middle one loses to the dearest, the cheapest does not."""
    assert pareto_front([(2.0, 0.5), (3.5, 0.6), (5.0, 0.7)], [(1, 3), (2, 5), (4, 6)]) == [0, 2]


def test_an_equal_latency_is_a_tie_that_the_score_decides() -> None:
    latency = next(axis for axis in COST_AXES if axis.name == "infer_latency_ms")
    records = [
        record("slow", 1, val=0.6, infer_latency_ms=4.5, infer_latency_spread_ms=(4.0, 5.0)),
        record("noisy", 2, val=0.7, infer_latency_ms=4.6, infer_latency_spread_ms=(4.4, 5.5)),
    ]
    assert [r.trial for r in trials_and_front(latency, records, "maximize")[1]] == ["noisy"]


def test_a_latency_is_not_what_the_front_opens_on() -> None:
    assert COST_AXES[0].name == "rf_px"
    assert [axis.name for axis in COST_AXES if axis.spread] == ["infer_latency_ms"]
