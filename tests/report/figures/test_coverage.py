"""What was tested how often: of many candidates, those that were."""

from dataclasses import replace

from rfsearch.choices import Candidate, Dilated
from rfsearch.report.figures import coverage
from rfsearch.report.view import build_view
from tests.report.made_up import MakeRun, record


def drawn(make_run: MakeRun, planned: int, tested: dict[int, int]):
    names = [Candidate({"conv6": Dilated(d)}).to_json() for d in range(1, planned + 1)]
    trials = [record(f"t{d}-{k}", d, train_seed=k) for d, times in tested.items() for k in range(times)]
    view = build_view(make_run(trials))
    view = replace(view, facts=replace(view.facts, planned=frozenset(names)))
    return coverage.build(view), coverage.caption(view)


def test_few_candidates_are_all_there_the_least_tested_first(make_run: MakeRun) -> None:
    figure, said = drawn(make_run, 4, {1: 2, 3: 1})
    assert list(figure.data[0].y) == ["conv6: d=2", "conv6: d=4", "conv6: d=3", "conv6: d=1"]
    assert list(figure.data[0].x) == [0, 0, 1, 2]
    assert said == "Not tested: 2 candidates of 4 in the plan."


def test_of_many_candidates_those_that_were_tested_are_shown(make_run: MakeRun) -> None:
    figure, said = drawn(make_run, 100, {60: 1, 99: 3})
    assert list(figure.data[0].x)[:3] == [3, 1, 0]
    assert list(figure.data[0].y)[:2] == ["conv6: d=99", "conv6: d=60"]
    assert len(figure.data[0].x) == 40
    assert said == "Not tested: 98 candidates of 100 in the plan. The 40 most tested ones are shown."
