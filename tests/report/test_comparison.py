"""Several runs side by side, from made-up ledgers: ranks, what is put together, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rfsearch.errors import RequestError
from rfsearch.ledger import Record
from rfsearch.report.compare_page import render_comparison, say_comparison, write_comparison
from rfsearch.report.comparison import compare_runs
from tests.report.made_up import MakeDirectory, record
from tests.report.test_page import Page, hostile

NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)


def arm(strategy: str, level: float, seeds: int = 5, dilation: int = 2) -> list[Record]:
    return [
        record(f"{strategy}-{seed}".replace("/", "|"), dilation, val=level + NOISE[seed], test=level + NOISE[seed],
               strategy=strategy, seed=seed, train_seed=1000 * seed)
        for seed in range(seeds)
    ]  # fmt: skip


def other_data(name: str) -> dict[str, Any]:
    return {"data": {"name": name, "fingerprint": name * 4}}


def test_ranks_are_averaged_over_problems(directory: MakeDirectory) -> None:
    runs = [
        directory("a", arm("x", 0.9), arm("y", 0.8), arm("z", 0.7)),
        directory("b", arm("x", 0.6), arm("y", 0.7), arm("z", 0.5), **other_data("b")),
        directory("c", arm("x", 0.6), arm("y", 0.6), arm("only here", 0.9), arm("z", 0.5), **other_data("c")),
    ]
    found = compare_runs(runs)
    assert found.mean_ranks == {"x": (1 + 2 + 1.5) / 3, "y": (2 + 1 + 1.5) / 3, "z": 3.0}
    assert [entry.rank for entry in found.problems[2].entries] == [1, 2.5, 2.5, 4]
    said = say_comparison(found)
    assert said[0] == "Mean rank over 3 problems: x 1.5, y 1.5 and z 3.0."
    assert said[1] == "Not ranked, since they were not scored on every problem: only here."


def test_a_lower_score_ranks_first_where_it_is_the_better_one(directory: MakeDirectory) -> None:
    down = {"space": {"direction": "minimize"}}
    runs = [
        directory("a", arm("x", 0.9), arm("y", 0.8), **down),
        directory("b", arm("x", 0.9), arm("y", 0.8), **down, **other_data("b")),
    ]
    assert compare_runs(runs).mean_ranks == {"y": 1.0, "x": 2.0}


def test_runs_of_one_problem_are_put_together_and_told_apart_by_noise(directory: MakeDirectory) -> None:
    found = compare_runs([directory("a", arm("x", 0.70)), directory("b", arm("y", 0.702), arm("z", 0.6))])
    (problem,) = found.problems
    assert [(e.strategy, e.standing) for e in problem.entries] == [("y", "best"), ("x", "alike"), ("z", "apart")]
    assert len(problem.view.records) == 15
    assert say_comparison(found) == [
        "On rendered-faces y ended best, at 0.702 (mean of 5, 95 % interval 0.698 to 0.706) on the test images; z "
        "ended worse by more than noise; x cannot be told apart from it."
    ]


def test_strategies_that_two_runs_of_one_problem_share_are_named_after_their_run(directory: MakeDirectory) -> None:
    found = compare_runs([directory("a", arm("x", 0.7)), directory("b", arm("x", 0.6))])
    assert [entry.strategy for entry in found.problems[0].entries] == ["x (a)", "x (b)"]


def test_other_networks_and_recipes_are_other_problems(directory: MakeDirectory) -> None:
    runs = [directory("a", arm("x", 0.7)), directory("b", arm("x", 0.6), space={"backbone": "another"})]
    assert [problem.name for problem in compare_runs(runs).problems] == ["rendered-faces", "rendered-faces, another"]


def network(backbone: str, files: dict[str, str], tensors: str = "t") -> dict[str, Any]:
    return {"space": {"backbone": backbone}, "network": {"tensors": tensors, "parameters": 9, "sources": files}}


NAMED = network("/home/ann/search.py:make", {"/home/ann/search.py": "1"})


@pytest.mark.parametrize(
    ("other", "problems"),
    [
        (network("__main__:make", {"/home/ann/search.py": "1"}), ["search.py:make"]),
        (network("__main__:make", {"/home/ann/search.py": "2"}), ["search.py:make"]),  # edited: other strategies, say
        (network("/mnt/copy.py:make", {"/mnt/copy.py": "1"}), ["search.py:make"]),
        (
            network("__main__:make", {"/home/bob/search.py": "2"}),
            ["/home/ann/search.py:make", "/home/bob/search.py:make"],
        ),
        (network("__main__:make", {"/home/bob/other.py": "2"}), ["search.py:make", "other.py:make"]),
        (network("__main__:make_wide", {"/home/ann/search.py": "1"}), ["search.py:make", "search.py:make_wide"]),
        (network("__main__:make", {"/home/ann/search.py": "2"}, "u"), ["search.py:make (a)", "search.py:make (b)"]),
        (network("__main__:make", {}), ["search.py:make", "__main__:make"]),
        (network("__main__:make", {"/x/rfsearch/own_loop/planning.py": "3"}), ["search.py:make", "__main__:make"]),
    ],
)
def test_a_network_is_the_same_however_it_was_named(
    directory: MakeDirectory, other: dict[str, Any], problems: list[str]
) -> None:
    found = compare_runs([directory("a", arm("x", 0.7), **NAMED), directory("b", arm("y", 0.6), **other)])
    names = [problem.name.removeprefix("rendered-faces, ") for problem in found.problems]
    if problems[0].endswith(" (a)"):  # the full name tells them no more apart
        problems = [f"/home/ann/{name}" for name in problems]
    assert names == problems


def refused(directory: MakeDirectory, **changes: Any) -> str:
    runs = [directory("a", arm("x", 0.7)), directory("b", arm("x", 0.6), **changes)]
    with pytest.raises(RequestError) as error:
        compare_runs(runs)
    return str(error.value)


def test_unlike_budgets_are_refused_with_the_reason(directory: MakeDirectory) -> None:
    said = refused(directory, budget={"text": "8x", "limit": 8e12})
    assert said == (
        "strategies are compared on equal budgets. Got 4x of each arm in a and 8x in b. Run one of them again with "
        "--budget 4x."
    )


@pytest.mark.parametrize(
    "budget",
    [{"text": "30min", "currency": "device_s", "limit": 4e12}, {"limit": None}],
    ids=["currency", "unknown"],
)
def test_budgets_of_another_currency_or_none_are_refused(directory: MakeDirectory, budget: dict[str, Any]) -> None:
    assert "30min" in (said := refused(directory, budget=budget)) or "does not say what its arms may spend" in said


def test_equal_multiples_of_unlike_networks_are_equal_budgets(directory: MakeDirectory) -> None:
    larger = {"budget": {"limit": 8e12, "reference_flop": 2e12}, **other_data("b")}
    assert len(compare_runs([directory("a", arm("x", 0.7)), directory("b", arm("x", 0.6), **larger)]).problems) == 2


def test_other_splits_of_the_same_data_are_refused(directory: MakeDirectory) -> None:
    said = refused(directory, data={"splits": {"train": 8, "val": 2, "test": 6}, "fingerprint": "other"})
    assert "rendered-faces is split differently: train 8, val 4, test 4 in a, train 8, val 2, test 6 in b" in said


def test_other_images_of_the_same_name_are_refused(directory: MakeDirectory) -> None:
    assert "fingerprints are abc123 and other" in refused(directory, data={"fingerprint": "other"})


def test_test_scores_are_not_held_against_validation_scores(directory: MakeDirectory) -> None:
    untested = [record(f"y-{k}", val=0.7, test=None, strategy="y", seed=k) for k in range(2)]
    runs = [directory("a", arm("x", 0.7)), directory("b", untested, **other_data("b"))]
    with pytest.raises(RequestError, match="a reports on test images, b on validation images"):
        compare_runs(runs)


def test_one_run_and_the_same_run_twice_are_refused(directory: MakeDirectory) -> None:
    run = directory("a", arm("x", 0.7))
    with pytest.raises(RequestError, match="two runs or more"):
        compare_runs([run])
    with pytest.raises(RequestError, match="names each run once"):
        compare_runs([run, run.parent / "." / "a"])


def test_the_page_stands_alone_and_names_stay_text(directory: MakeDirectory, tmp_path: Path) -> None:
    runs = [
        directory("a", arm(hostile("strategy"), 0.7), arm("y", 0.6)),
        directory("b", arm(hostile("strategy"), 0.7), arm("y", 0.6), **other_data(hostile("data"))),
    ]
    write_comparison(compare_runs(runs), tmp_path / "compare.html")
    page = Page(tmp_path / "compare.html")
    assert "alert('strategy')" in page.text
    assert "alert('data')" in page.text
    assert page.tags.count("script") == 3
    assert all(target.startswith("data:") for target in page.points_to)
    assert set(page.figures) == {
        f"{name}-{k}" for name in ("anytime", "against-rf", "pareto", "budget-use") for k in (0, 1)
    }
    assert page.tags.count("svg") == 8


def test_runs_without_a_scored_trial_have_a_page(directory: MakeDirectory) -> None:
    lost = [record("y-0", val=None, test=None, status="failed", cause="boom", strategy="y")]
    found = compare_runs([directory("a", lost), directory("b", lost, **other_data("b"))])
    assert "No strategy was scored on every problem" in render_comparison(found)
