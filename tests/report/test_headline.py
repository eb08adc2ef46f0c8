"""The table of the headline benchmark, from made-up runs; its protocols, and what its intervals cover."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from rfsearch.choices import Candidate, Fractional
from rfsearch.cli.app import app
from rfsearch.cli.options import make_request
from rfsearch.ledger import Cost, Record, Run
from rfsearch.planning.request import resolve_space
from rfsearch.report.view import build_view
from tests.report.made_up import MakeRun, record

BENCHMARKS = Path(__file__).parents[2] / "baselines" / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, ModuleType]]:
    names = ("comparison", "protocol", "anytime", "intervals", "interval_coverage", "retrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield {name: importlib.import_module(name) for name in names}


def compare(benchmarks: dict[str, ModuleType], runs: dict[str, Run], retrained=None, times: int = 1):
    dataset = benchmarks["protocol"].DataSet("made-up", "made up", "", {}, dict.fromkeys(runs, ""))
    views = {name: build_view(run) for name, run in runs.items()}
    return benchmarks["comparison"].compare(dataset, views, retrained or {}, times)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_target_is_reached_in_the_spaces_direction(make_run: MakeRun, benchmarks, direction: str) -> None:
    """A sweep of three trainings whose second one is the best, and a random search that finds it at once."""

    def trained(name: str, dilation: int, good: float, strategy: str) -> Record:
        score = good if direction == "maximize" else 1 - good
        return record(name, dilation, score, score, strategy=strategy)

    run = make_run(
        [
            trained("e0", 1, 0.5, "exhaustive"),
            trained("e1", 2, 0.7, "exhaustive"),
            trained("e2", 4, 0.6, "exhaustive"),
            trained("r0", 2, 0.7, "random"),
            trained("r1", 1, 0.5, "random"),
        ],
        space={"direction": direction, "dilations": [1, 2, 4]},
        arms=[{"strategy": name, "seed": 0} for name in ("exhaustive", "random")],
    )
    found = compare(benchmarks, {"search": run})
    rows = [row for row in found.rows() if row["start"] == "any"]
    best = 0.7 if direction == "maximize" else 0.3
    assert {row["strategy"]: row["compute_to_target"] for row in rows} == {"exhaustive": 0.6667, "random": 0.3333}
    assert {row["strategy"]: row["of_sweeps_own"] for row in rows} == {"exhaustive": 1.0, "random": 0.5}
    assert {row["final_score"] for row in rows} == {best}
    assert found.details()["target"] == best


SWEEP = {1: 0.5, 2: 0.7, 4: 0.6}


def sweep(seed: int, shift: float, strategy: str = "exhaustive") -> list[Record]:
    return [
        record(f"{strategy}{seed}{d}", d, score + shift, score + shift, strategy=strategy, seed=seed,
               train_seed=1000 * seed)
        for d, score in SWEEP.items()
    ]  # fmt: skip


def arms(*strategies: str, seeds: int) -> list[dict[str, object]]:
    return [{"strategy": name, "seed": seed} for name in strategies for seed in range(seeds)]


SHIFTS = [0.0, 0.01, -0.01, 0.02, -0.02]


def test_controls_stand_beside_the_sweep_with_their_single_trainings(make_run: MakeRun, benchmarks) -> None:
    space = {"dilations": [1, 2, 4]}
    searched = [one for seed, shift in enumerate(SHIFTS) for one in sweep(seed, shift)]
    longer = [one for seed, shift in enumerate(SHIFTS) for one in sweep(seed, shift + 0.1)]
    runs = {
        "search": make_run(searched, space=space, arms=arms("exhaustive", seeds=5)),
        "longer trainings": make_run(longer, space=space, arms=arms("exhaustive", seeds=5)),
    }
    found = compare(benchmarks, runs)
    rows = {(row["strategy"], row["start"]): row for row in found.rows()}
    assert set(rows) == {
        ("exhaustive", "any"), ("exhaustive, longer trainings", "any"), ("hand default", "1"),
        *(("plain training", str(d)) for d in SWEEP), *(("exhaustive, longer trainings", str(d)) for d in SWEEP),
    }  # fmt: skip
    assert rows["plain training", "2"]["compute_to_target"] == 0.3333
    assert rows["plain training", "1"]["compute_to_target"] == math.inf
    assert (rows["hand default", "1"]["final_score"], rows["hand default", "1"]["spent"]) == (0.5, 0.3333)
    assert rows["exhaustive, longer trainings", "4"]["compute_to_target"] == 0.3333
    # Student's t with four degrees of freedom, 2.776, on a standard deviation of 0.0158
    ends = [rows["exhaustive", "any"][name] for name in ("final_low", "final_score", "final_high")]
    assert ends == [0.6804, 0.7, 0.7196]


def test_a_seed_without_a_whole_sweep_is_left_out(make_run: MakeRun, benchmarks) -> None:
    records = [*sweep(0, 0.0), *sweep(1, 0.0)[:2], *sweep(0, 0.1, "random"), *sweep(1, 0.9, "random")]
    run = make_run(records, space={"dilations": [1, 2, 4]}, arms=arms("exhaustive", "random", seeds=2))
    found = compare(benchmarks, {"search": run})
    assert {row["seeds"] for row in found.rows()} == {1}
    row = next(row for row in found.rows() if row["strategy"] == "random")
    assert (row["seeds"], row["final_score"]) == (1, 0.8)
    assert (row["low"], row["final_low"]) == (None, None)
    assert len([*found.trials()]) == 11


def test_a_start_that_not_every_seed_reached_stands_with_those_that_did(make_run: MakeRun, benchmarks) -> None:
    learned = [*sweep(0, 0.1, "inflation"), *sweep(1, 0.2, "inflation")[:2]]  # the second budget held two starts
    records = [*sweep(0, 0.0), *sweep(1, 0.1), *learned]
    run = make_run(records, space={"dilations": [1, 2, 4]}, arms=arms("exhaustive", "inflation", seeds=2))
    found = compare(benchmarks, {"search": run})
    rows = {row["start"]: row for row in found.rows() if row["strategy"] == "inflation"}
    assert {start: row["seeds"] for start, row in rows.items()} == {"any": 2, "1": 2, "2": 2, "4": 1}
    assert (rows["2"]["final_score"], rows["4"]["final_score"]) == (pytest.approx(0.85), pytest.approx(0.7))
    # Held against the sweep of its own seed, which ended at 0.7.
    assert rows["4"]["compute_to_target"] == 0.3333


def test_outcomes_are_worth_what_they_score_from_scratch(make_run: MakeRun, benchmarks) -> None:
    space, train = {"dilations": [1, 2, 4]}, benchmarks["retrained"]
    searched = [one for seed in range(4) for one in sweep(seed, 0.0)]
    real = Candidate({"conv6": Fractional(2.5)}).to_json()
    finds = [
        record(f"f{seed}", candidate=real, strategy="fractional", seed=seed, val=0.9, test=0.9) for seed in range(4)
    ]
    run = make_run(searched + finds, space=space, arms=arms("exhaustive", "fractional", seeds=4))
    best = Candidate.from_json(record("x", 2).candidate).to_json()
    again = {
        (text, seed): record(f"again{seed}", candidate=text, test=score + 0.01 * number, cost=Cost(1e12, 1, 1))
        for text, score in ((best, 0.6), (real, 0.65))
        for arm in range(4)
        for number, seed in enumerate(train.seeds_of(arm, 2))
    }
    rows = {
        row["strategy"]: row for row in compare(benchmarks, {"search": run}, again, 2).rows() if row["start"] == "any"
    }
    assert rows["exhaustive"]["retrained_score"] == 0.605
    assert rows["fractional"]["retrained_score"] == 0.655
    again.pop((real, train.seeds_of(3, 2)[1]))
    rows = {
        row["strategy"]: row for row in compare(benchmarks, {"search": run}, again, 2).rows() if row["start"] == "any"
    }
    assert rows["fractional"]["retrained_score"] is None


def test_no_arm_trains_with_a_seed_of_a_training_from_scratch(benchmarks) -> None:
    train = benchmarks["retrained"]
    seeds = [seed for arm in range(1000) for seed in train.seeds_of(arm, 1000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) > 999 * 1000 + 999


PROTOCOLS = [path for path in sorted(BENCHMARKS.glob("*.toml")) if "[datasets." in path.read_text()]


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_every_command_of_a_protocol_is_one_that_the_command_line_takes(benchmarks, path: Path) -> None:
    """Its options are known, and what they change in the space is sound."""
    run = typer.main.get_command(app).commands["run"]
    protocol = benchmarks["protocol"].read_protocol(path)
    for dataset in protocol.datasets:
        for name in dataset.runs:
            program, command, *options = dataset.command(name, protocol.seeds)
            assert (program, command) == ("rfsearch", "run")
            given = run.make_context("run", options).params
            assert given["seeds"] == protocol.seeds
            assert given.pop("out") == dataset.folder(name)
            given.pop("as_json")
            assert resolve_space(make_request(**given)).budget == given["budget"]


def test_few_seeds_get_no_interval(benchmarks) -> None:
    intervals = benchmarks["intervals"]
    assert intervals.mean_interval([0.1, 0.2, 0.3]) is None
    low, high = intervals.mean_interval([0.1, 0.2, 0.3, 0.4])
    assert (round(low, 3), round(high, 3)) == (0.045, 0.455)


def test_intervals_of_five_seeds_cover_what_they_say(benchmarks) -> None:
    """In small what the table interval_coverage measures; 400 simulations know a share of 0.95 within 0.02."""
    rows = benchmarks["interval_coverage"].coverage_of_means(5, 400)
    covered = {(row["of"], row["interval"]): row["covered"] for row in rows}
    assert covered["mean, normal", "Student's t"] == pytest.approx(0.95, abs=0.025)
    assert all(share > 0.9 for (_, interval), share in covered.items() if interval == "Student's t")
    assert covered["mean, normal", "percentile bootstrap"] < 0.89
    rows = benchmarks["interval_coverage"].coverage_of_spendings(5, 200, many=1000)
    assert all(row["covered"] > 0.91 for row in rows), rows


def test_a_spending_that_may_never_reach_the_target_has_an_open_interval(benchmarks) -> None:
    anytime = benchmarks["anytime"]
    ends = dict(enumerate([0.70, 0.71, 0.69, 0.70, 0.70]))
    curves = {seed: [(1.0, 0.6), (2.0, end + 0.02 * (-1) ** seed)] for seed, end in ends.items()}
    assert anytime.first_reached(curves, ends) == 2.0
    assert anytime.reached_between(curves, ends) == (2.0, math.inf)
    assert anytime.reached_between({0: curves[0]}, ends) is None
    assert anytime.ratio_between((2.0, math.inf), (1.0, 4.0)) == (0.5, math.inf)
    assert anytime.ratio_between((2.0, 3.0), (1.0, math.inf)) == (0.0, 3.0)
