"""Hypervolume, knee and the price of one more per cent, against areas that are counted and fronts that are drawn up."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from rfsearch.report.figures.hypervolume import HYPERVOLUME
from rfsearch.report.front import COST_AXES
from rfsearch.report.latency import how_measured
from rfsearch.report.page import render
from rfsearch.report.trade import Box, axis_of, box_of, hypervolume, knee_of
from rfsearch.report.verdict import verdict_of
from rfsearch.report.view import build_view
from rfsearch.space.objectives import COSTS
from tests.report.made_up import record

MAC = axis_of("infer_mac")


def counted_area(points, reference, cells=400):
    """The share of a grid's cells, below the reference in cost and above it in merit, that some point dominates."""
    centres = (np.arange(cells) + 0.5) / cells
    cost, merit = np.meshgrid(centres * reference[0], centres)
    dominated = np.zeros_like(cost, dtype=bool)
    for x, y in points:
        dominated |= (cost >= x) & (merit <= y)
    return dominated.mean() * reference[0]


@pytest.mark.parametrize("seed", range(6))
def test_hypervolume_is_the_area_that_is_counted(seed):
    random = np.random.default_rng(seed)
    points = [tuple(point) for point in random.random((7, 2)) * (2.4, 1.0)]
    assert hypervolume(points, (2.0, 0.0)) == pytest.approx(counted_area(points, (2.0, 0.0)), abs=0.02)


def test_order_and_what_is_dominated_make_no_difference():
    points = [(1.0, 0.5), (1.5, 0.7), (1.2, 0.4)]
    areas = {round(hypervolume(order, (2.0, 0.1)), 12) for order in itertools.permutations(points)}
    assert areas == {round(1.0 * 0.4 + 0.5 * 0.2, 12)}
    assert hypervolume([(2.0, 0.9), (3.0, 0.9), (1.0, 0.1)], (2.0, 0.1)) == 0
    assert Box((2.0, 0.0), (1.0, 0.5)).share([(1.0, 0.25)]) == pytest.approx(0.5)


def view_of(make_run, *trials, **changes):
    """A run that went by MAC: trials are (strategy, dilation, MAC, validation score)."""
    records = [
        record(f"{strategy}-{k}", dilation, val, val - 0.01, strategy=strategy, infer_mac=mac, train_seed=k)
        for k, (strategy, dilation, mac, val) in enumerate(trials)
    ]
    arms = [{"strategy": name, "seed": 0} for name in dict.fromkeys(strategy for strategy, *_ in trials)]
    changes["space"] = {"costs": ["infer_mac"], **changes.get("space", {})}
    return build_view(make_run(records, arms=arms, **changes))


FRONT = [("a", 1, 100e6, 0.50), ("a", 2, 110e6, 0.60), ("b", 4, 200e6, 0.62), ("b", 8, 150e6, 0.40)]


def test_the_knee_is_furthest_above_the_line_and_each_per_cent_has_its_price(make_run):
    view = view_of(make_run, *FRONT)
    knee = knee_of(view, MAC)
    assert [contender.best.trial for contender in knee.contenders] == ["a-0", "a-1", "b-2"]
    assert knee.contenders[knee.at].best.trial == "a-1"
    assert knee.bought(1) == pytest.approx(0.1 / 10)  # 10 per cent more MAC
    assert knee.bought(2) == pytest.approx(0.02 / (100 * 90 / 110))
    (sentence,) = [text for text in verdict_of(view).findings if "knee" in text]
    assert (
        "the front of score against inference MAC has 3 candidates, each trained once; its knee is dilation 2 at conv6"
        in sentence
    )
    assert "(110 MMAC, validation 0.600). Up to it one more per cent of cost bought 0.010 of score." in sentence
    assert "Beyond it one more per cent of cost buys 0.00024 of score." in sentence


def test_repeats_count_with_their_mean(make_run):
    trials = [*FRONT, ("b", 4, 220e6, 0.70)]
    assert knee_of(view_of(make_run, *trials), MAC).points[2] == pytest.approx((210e6, 0.66))


def test_lower_scores_may_be_the_better_ones(make_run):
    flipped = [(strategy, dilation, mac, 1 - val) for strategy, dilation, mac, val in FRONT]
    knee = knee_of(view_of(make_run, *flipped, space={"direction": "minimize"}), MAC)
    assert knee.contenders[knee.at].best.trial == "a-1"
    assert knee.bought(1) == pytest.approx(0.01)


def test_fronts_without_a_knee_are_said_to_have_none(make_run):
    two = view_of(make_run, *FRONT[:2])
    assert knee_of(two, MAC) is None
    assert any("fewer than three candidates" in text for text in verdict_of(two).findings)


def test_trials_that_cost_alike_are_said_to_be_no_choice(make_run):
    alike = view_of(make_run, ("a", 1, 1e8, 0.5), ("a", 2, 1e8, 0.6))
    assert box_of(alike, MAC) is None
    assert any("do not differ in it" in text for text in verdict_of(alike).findings)
    assert HYPERVOLUME.build(alike) is None


def test_the_figure_shows_what_each_strategy_dominates_after_each_trial(make_run):
    view = view_of(make_run, *FRONT)
    figure = HYPERVOLUME.build(view)
    box = box_of(view, MAC)
    assert (box.worst, box.best) == ((200e6, 0.40), (100e6, 0.62))
    area = 100e6 * 0.22
    a, b = figure.data
    assert [trace.name for trace in (a, b)] == ["a", "b"]
    assert list(a.y) == pytest.approx([100e6 * 0.10 / area, (100e6 * 0.10 + 90e6 * 0.10) / area])
    assert list(b.y) == pytest.approx([0.0, 0.0])
    assert list(a.x) == pytest.approx([1.0, 2.0])  # of one reference training
    assert "200 MMAC at 0.400" in HYPERVOLUME.caption(view)


def test_a_search_for_the_score_alone_has_none_of_it(make_run):
    view = view_of(make_run, *FRONT)
    plain = replace(view, facts=replace(view.facts, costs=()))
    assert HYPERVOLUME.build(plain) is None
    assert not any("knee" in text for text in verdict_of(plain).findings)
    assert json.dumps("hypervolume") not in render(plain)
    assert json.dumps("hypervolume") in render(view)


def test_latencies_that_the_search_went_by_are_said_to_be_those_until_they_are_measured_anew(make_run):
    view = view_of(make_run, *FRONT)
    gone_by = replace(view, facts=replace(view.facts, costs=("infer_latency_ms",)))
    assert how_measured(gone_by).startswith("The latencies are those that the search went by")
    assert "older version" in how_measured(view)


def test_every_cost_that_can_be_an_objective_has_an_axis():
    assert set(COSTS) <= {axis.name for axis in COST_AXES}
