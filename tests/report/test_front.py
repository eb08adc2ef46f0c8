from __future__ import annotations

import random

import pytest

from rfsearch.ledger import Cost
from rfsearch.report.front import AXES, PARETO_COLUMNS, held_against, pareto_front, pareto_table
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
    latency = next(axis for axis in AXES if axis.name == "infer_latency_ms")
    shown, front = held_against(latency, records)
    assert [r.trial for r in shown] == [r.trial for r in front] == ["good"]


def test_table_has_its_columns_and_every_axis() -> None:
    table = pareto_table([record("a", 1, val=0.6), record("b", 2, val=0.7), record("c", 4, val=0.5)])
    assert tuple(table.columns) == PARETO_COLUMNS == ("axis", "trial", "strategy", "candidate", "cost", "val", "test")
    assert set(table["axis"]) == {"infer_latency_ms", "infer_peak_bytes", "infer_mac", "rf_px", "train_flop"}
    by_axis = table.groupby("axis")["trial"].apply(list).to_dict()
    assert by_axis["rf_px"] == by_axis["infer_latency_ms"] == ["a", "b"]
    assert by_axis["infer_mac"] == ["b"]
    assert tuple(pareto_table([]).columns) == PARETO_COLUMNS


def test_what_an_heir_cost_is_not_what_its_network_took() -> None:
    """Its own stretch is cheap: on the axis of training compute it would beat every full training."""
    heir = record("heir", 4, val=0.9, cost=Cost(0.1e12), heir_of="parent")
    table = pareto_table([record("full", 2, val=0.8), heir])
    assert list(table[table.axis == "train_flop"].trial) == ["full"]
    assert "heir" in set(table[table.axis == "rf_px"].trial)
