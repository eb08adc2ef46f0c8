"""Where a cost is an objective, strategies of fixed values try choices of every kind."""

import pytest

from rfsearch.choices import Candidate, Dilated, Inflated
from rfsearch.errors import SpaceError
from rfsearch.ledger import Cost, Record, Request
from rfsearch.space.objectives import check_objectives
from rfsearch.strategies.bayesian import Bayesian
from rfsearch.strategies.exhaustive import Exhaustive
from rfsearch.strategies.kinds import choices_at_a_site
from rfsearch.strategies.random import RandomSearch
from tests.calls import wrong
from tests.planned import planned
from tests.toys import helen_space, toy_file

BOTH = ("val", "infer_mac")


def space_of(*objectives):
    return helen_space().with_(objectives=objectives)


def observed(strategy, candidate, number, val, mac, status="completed"):
    strategy.observe(
        Record(f"t{number}", "optuna", 0, status, candidate.to_json(), 1, 1, Cost(1.0), val=val, infer_mac=mac)
    )


def test_a_site_gets_every_kind_that_the_space_knows():
    space = space_of(*BOTH)
    sizes = [len(paths) for paths in choices_at_a_site(space)]
    single = [paths[0].choice for paths in choices_at_a_site(space) if len(paths) == 1]
    assert {size: sizes.count(size) for size in (2, 3)} == {2: 1, 3: 1}  # by hand
    assert [choice for choice in single if isinstance(choice, Dilated)] == [Dilated(d) for d in space.dilations]
    fixed = {(choice.dilation, choice.f) for choice in single if isinstance(choice, Inflated)}
    assert fixed == {(d, f) for d in space.dilations for f in space.f_search}
    strides = {choice.numbers["gamma"] for choice in single if "gamma" in choice.numbers}
    assert strides == set(space.sampling.gammas)
    assert [*choices_at_a_site(space_of("val"))] == [*choices_at_a_site(helen_space())]
    assert len(choices_at_a_site(helen_space())) == len(space.dilations)


def test_a_sweep_tries_each_of_them_once():
    space, tried = space_of(*BOTH), []
    sweep, count = Exhaustive(space, 0), len(choices_at_a_site(space))
    for number in range(count):
        tried.append(sweep.suggest([]))
        observed(sweep, tried[-1], number, 0.5, 1e6)
    assert len(set(tried)) == count
    assert tried[0] == space.default_candidate
    assert sweep.suggest([]) in tried


@pytest.mark.parametrize("strategy", [Bayesian, RandomSearch])
def test_what_is_drawn_is_among_them(strategy):
    space = space_of(*BOTH)
    known = {space.uniform(paths) for paths in choices_at_a_site(space)}
    drawing, seen = strategy(space, 3), set()
    for number in range(25):
        seen.add(drawing.suggest([]))
        observed(drawing, drawing.suggest([]), number, 0.1 * (number % 7), 1e6 * (number % 5))
    assert seen <= known
    assert len(seen) > 5


def test_several_objectives_draw_cheap_candidates_and_dear_ones():
    """Score rises with cost: whoever goes by the score alone ends where both are high."""
    space = space_of(*BOTH)
    strategy, known, places = Bayesian(space, 0), choices_at_a_site(space), []
    for number in range(60):
        candidate = strategy.suggest([])
        places.append(known.index(candidate.sites[0][1]) / len(known))
        observed(strategy, candidate, number, places[-1], 1.0 + 10 * places[-1])
    thirds = [sum(low <= place < low + 1 / 3 for place in places[20:]) / 40 for low in (0, 1 / 3, 2 / 3)]
    assert all(third > 0.2 for third in thirds), thirds  # by the score alone: 0.05 and 0.9


def test_with_a_cost_nothing_is_pruned_and_what_has_no_cost_says_nothing():
    strategy = Bayesian(space_of(*BOTH), 0)
    for number in range(8):
        candidate = strategy.suggest([])
        observed(strategy, candidate, number, 0.9, None if number == 3 else 1e6, "cut" if number == 5 else "completed")
    assert not strategy.prune(strategy.suggest([]), ())
    assert isinstance(strategy.suggest([strategy.suggest([])]), Candidate)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["val", "infer_macs"], "Got 'infer_macs'. Did you mean 'infer_mac'"),
        (["infer_mac"], "val,infer_mac. Got 'infer_mac'"),
        (["val", "params", "params"], "each named once"),
    ],
)
def test_objectives_that_are_none_are_refused(names, message):
    with pytest.raises(SpaceError, match=message):
        check_objectives(names)


def test_the_command_line_refuses_them_before_anything_is_read(call):
    wrong(call("plan", "--space", "helen", "--objectives", "val,cost"), "objectives are val, infer_mac", "'cost'")


def test_a_plan_leaves_out_what_does_not_fit_and_says_so(tmp_path):
    request = Request(str(toy_file(tmp_path)), strategies=("exhaustive", "optuna"), objectives=BOTH)
    plan = planned(request, tmp_path)
    (notice,) = [text for text in plan.notices if text.startswith("Left out")]
    assert "2 parallel paths, d=4 beside d=6" in notice, "their kernel spans 13 px of a map of 12"
    assert plan.space.costs == ("infer_mac",)
    assert set(plan.candidates) == {plan.space.uniform(paths) for paths in choices_at_a_site(plan.space)}
    assert all(len(tuple(candidate)) == 1 for candidate in plan.candidates)
