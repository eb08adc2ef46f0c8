"""A population: who goes on from whom, however its trials come back, and a run that costs what it was to cost."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rfsearch_peers.pbt import PopulationBasedTraining

from rfsearch import testing
from rfsearch.choices import Candidate
from rfsearch.errors import RequestError, SpaceError
from rfsearch.ledger import Assignment, Budget, Cost, Journal, Record, Request, read_history, read_run
from rfsearch.networks import trained
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.forecast import Forecast
from rfsearch.report import summarise
from rfsearch.strategies import Exhausted, Heir
from rfsearch.strategies.guard import Guarded
from tests.orchestration import runs
from tests.planned import planned
from tests.small_run import run_in_process
from tests.toys import helen_space, toy_file

ROOT = Path(__file__).resolve().parents[2]
RFSEARCH = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
SPACE = helen_space()  # dilations 1, 2, 3, 4, 6, 8, 11; 1 is the hand default; rungs = 3: four rounds
ROUNDS = 4
# What a full training costs: three rounds of 24, looks included, and a last one of 28, scoring included.
FULL, STRETCH, LAST = 100.0, 24.0, 28.0


Score = Callable[[Record], float]


def dilation_of(record: Record) -> int:
    ((_, path),) = Candidate.from_json(record.candidate)
    return path.choice.dilations[0]


def number_of(record: Record) -> int:
    return int(record.trial[-3:])


def game(folder: Path, budget: float = 6.5 * FULL, seed: int = 0) -> Contest:
    folder.mkdir(exist_ok=True)
    arm = Arm(Guarded("pbt", PopulationBasedTraining(SPACE, seed)), seed, Budget(f"{budget}flop", "flop", budget))
    forecast = Forecast(Cost(FULL), least=Cost(5.0), stretch=Cost(FULL / ROUNDS), peak_bytes=1, rf_px=50)
    return Contest([arm], Journal(folder), read_history(folder), lambda _: forecast, SPACE.reference_candidate)


def told(contest: Contest, assignment: Assignment, score: Score, failing: frozenset[int], share: float) -> Record:
    """What a stretch comes back as. share: what it cost of what was forecast."""
    handed_out, of, before = contest.arms[0].handed_out, assignment.heir_of, 0
    while of:
        of, before = handed_out[of].heir_of, before + 1
    last = before == ROUNDS - 1
    record = Record(
        assignment.trial, "pbt", assignment.seed, "completed" if last else "pruned", assignment.candidate, 50, 50,
        Cost(share * (LAST if last else STRETCH)), train_seed=assignment.train_seed, heir_of=assignment.heir_of,
    )  # fmt: skip
    assert record.cost.flop <= assignment.limit
    assert assignment.heir_of in ("", *contest.parents)
    if number_of(record) in failing:
        return replace(record, status="failed", cost=Cost(5.0), cause="the loss became nan")
    record = replace(record, val=score(record))
    assert last or not contest.keep(record)
    return record


def by_dilation(record: Record) -> float:
    return 1 / (1 + abs(math.log(dilation_of(record) / 5))) + number_of(record) * 1e-6


def play(
    contest: Contest,
    workers: int = 1,
    score: Score = by_dilation,
    failing: frozenset[int] = frozenset(),
    share: float = 1.0,
    most: int = 10**6,
) -> list[Record]:
    """Run trials `workers` at a time, each batch coming back in reverse order; in the order handed out."""
    records: list[Record] = []
    while len(records) < most:
        batch = [a for a in (contest.next() for _ in range(workers)) if a is not None]
        if not batch:
            break
        for assignment in reversed(batch):
            records.append(contest.finish(told(contest, assignment, score, failing, share)))
    assert contest.done or len(records) >= most
    return sorted(records, key=lambda record: record.trial)


def by_the_rule(records: list[Record], members: int, seed: int, first: int = 0) -> list[tuple[int, str]]:
    """Dilation and parent of each trial of a population after its first round, from the round before alone."""
    expected = []
    for begin in range(first + members, first + members * ROUNDS, members):
        before = records[begin - members : begin]
        # From the best to the worst; the first of equals stands before the others, the failed behind all.
        order = sorted(range(members), key=lambda i: (before[i].status == "failed", -(before[i].val or 0.0), i))
        taken = math.ceil(members / 4)
        best, worst = [before[i] for i in order[:taken]], set(order[-taken:])
        best = [record for record in best if record.status != "failed"]
        for i, mine in enumerate(before):
            if i not in worst and mine.status != "failed":
                expected.append((dilation_of(mine), mine.trial))
                continue
            draw = random.Random(f"{seed}/{begin + i}")
            donor = draw.choice(best)
            step = draw.choice((-1, 1))
            if draw.random() < 0.25:
                dilation = draw.choice(sorted(SPACE.dilations))
            else:
                above = [d for d in sorted(SPACE.dilations) if d > dilation_of(donor)]
                below = [d for d in sorted(SPACE.dilations) if d < dilation_of(donor)]
                dilation = (min(above, default=11)) if step > 0 else (max(below, default=1))
            expected.append((dilation, donor.trial))
    return expected


@pytest.mark.parametrize("check", testing.STRATEGY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("sites", [("conv6",), ("conv6", "conv7")])
def test_it_keeps_to_what_every_strategy_does(check, sites) -> None:
    check(PopulationBasedTraining, SPACE.with_(sites=sites))


def test_each_site_moves_by_itself() -> None:
    strategy, seen = PopulationBasedTraining(SPACE.with_(sites=("conv6", "conv7")), 0), []
    for number in range(12):
        suggested = strategy.suggest([])
        assert not isinstance(suggested, Exhausted)
        candidate = suggested.candidate if isinstance(suggested, Heir) else suggested
        seen.append(tuple(path.choice.dilations[0] for _, path in candidate))
        name = f"pbt-0-{number:03d}"
        strategy.observe(Record(name, "pbt", 0, "pruned", candidate.to_json(), 1, 1, Cost(), val=number / 100))
    assert all(len(set(dilations)) == 1 for dilations in seen[:4])
    assert any(len(set(dilations)) == 2 for dilations in seen[4:])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("failing", [frozenset(), frozenset({2, 13}), frozenset({0, 1, 2, 3})])
@pytest.mark.parametrize("score", [by_dilation, lambda record: round(by_dilation(record), 1)], ids=["", "ties"])
def test_who_goes_on_from_whom_is_the_rule(tmp_path, seed, failing, score) -> None:
    records = play(game(tmp_path, seed=seed), failing=failing, score=score)
    starts = [dilation_of(record) for record in records[:6]]
    assert starts[0] == SPACE.reference
    assert len(set(starts)) == 6
    assert {record.heir_of for record in records[:6]} == {""}
    assert [(dilation_of(r), r.heir_of) for r in records[6:24]] == by_the_rule(records, 6, seed)
    assert [r.status for r in records[18:24]] == ["completed"] * 6


@pytest.mark.parametrize("workers", [2, 5, 9])
def test_out_of_order_it_is_the_same_population(tmp_path, workers) -> None:
    alone = play(game(tmp_path / "alone"))
    assert play(game(tmp_path / "many"), workers=workers) == alone


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("finished", range(0, 24, 5))
def test_resumed_it_is_the_same_population(tmp_path, finished, workers) -> None:
    whole = play(game(tmp_path / "whole"))
    half = game(tmp_path / "half")
    play(half, most=finished)
    for _ in range(workers):
        half.next()  # handed out, never back: the interrupt
    play(game(tmp_path / "half"), workers=workers)
    history = read_history(tmp_path / "half")
    assert [history.records[name] for name in sorted(history.records)] == whole


@pytest.mark.parametrize(("budget", "members"), [(4.0, 4), (4.9, 4), (6.5, 6), (13.0, 13)])
def test_there_are_as_many_members_as_full_trainings_fit(tmp_path, budget, members) -> None:
    records = play(game(tmp_path, budget * FULL))
    assert [record.status for record in records] == ["pruned"] * members * 3 + ["completed"] * members
    assert sum(record.cost.flop for record in records) == members * FULL


@pytest.mark.parametrize("workers", [1, 4])
def test_only_stretches_are_reserved_and_the_budget_is_kept_to_its_last_flop(tmp_path, workers) -> None:
    contest = game(tmp_path, 4 * FULL)
    assert len([a for a in (contest.next() for _ in range(workers)) if a is not None]) == workers
    assert sum(record.cost.flop for record in play(game(tmp_path, 4 * FULL), workers)) == 4 * FULL


def test_what_a_population_leaves_trains_another_one_by_fresh_seeds(tmp_path) -> None:
    """Trainings at half of their forecast: 11 members, then 5 of what is left, and no room for 4 after that."""
    contest = game(tmp_path, 11 * FULL)
    records = play(contest, share=0.5)
    assert len(records) == 11 * ROUNDS + 5 * ROUNDS
    assert [(dilation_of(r), r.heir_of) for r in records[11:44]] == by_the_rule(records, 11, 0)
    assert {record.heir_of for record in records[44:49]} == {""}
    assert [(dilation_of(r), r.heir_of) for r in records[49:]] == by_the_rule(records, 5, 0, first=44)
    begun = [(record.candidate, record.train_seed) for record in records if not record.heir_of]
    assert len(set(begun)) == len(begun) == 16
    assert contest.arms[0].exhausted == "a population has been trained and the budget has no room for another one"


def test_only_what_heirs_may_go_on_from_is_kept(tmp_path) -> None:
    contest = game(tmp_path)
    for _ in range(24):
        assignment = contest.next()
        assert assignment is not None
        contest.finish(told(contest, assignment, by_dilation, frozenset(), 1.0))
        number = int(assignment.trial[-3:]) + 1
        since = (number // 6 - 1) * 6  # the round before the one that goes on next
        assert contest.parents == {f"pbt-0-{i:03d}" for i in range(max(0, since), min(number, 18))}
    assert not contest.parents


def test_a_population_of_failures_ends(tmp_path) -> None:
    contest = game(tmp_path, 4 * FULL)
    assert len(play(contest, failing=frozenset(range(4)))) == 4
    assert contest.arms[0].exhausted == "no member of the population could be trained to its next rung"


@pytest.fixture(scope="module")
def whole(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run beside a sweep, one trial at a time."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        (root / "told.txt").write_text(run_in_process(*words(root)))
    return root


def words(root: Path) -> list[object]:
    return ["run", "--space", toy_file(root, budget="10.1x", steps=8), "--strategies", "exhaustive,pbt",
            "--out", root / "run"]  # fmt: skip


def environment(site: Path) -> dict[str, str]:
    return {**runs.environment(), "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def test_a_run_trains_charges_and_reports_it_beside_a_sweep(whole) -> None:
    ledger = read_run(whole / "run")
    limit = ledger.manifest.budget.limit
    records = [record for record in ledger.records if record.strategy == "pbt"]
    full = next(r.forecast.flop for r in ledger.records if r.strategy == "exhaustive" and r.forecast)
    members = int(limit / full)
    assert members >= 4
    assert [r.status for r in records] == ["pruned"] * 3 * members + ["completed"] * members
    assert sum(r.cost.flop for r in records) == members * full <= limit
    assert [r.steps for r in records] == [steps for steps in (2, 4, 6, 8) for _ in range(members)]
    assert sum(r.cost.epochs for r in records) == pytest.approx(members * 8 * 2 / 12)
    assert {r.forecast for r in records if r.heir_of} == {None}
    sweep = {r.candidate: r.rf_px for r in ledger.records if r.strategy == "exhaustive"}
    assert {(r.rf_px, r.rf_init_px) for r in records} <= {(px, px) for px in sweep.values()}
    assert all(r.rf_px == sweep[r.candidate] for r in records)
    best = max(records[-members:], key=lambda record: record.val or 0.0)
    network = trained(whole / "run", best.trial)
    assert network.get_submodule("conv6").dilation == (dilation_of(best),) * 2
    kept = {path.name for path in (whole / "run" / "checkpoints").iterdir()}
    assert best.trial in kept
    assert len(kept) == 2  # the leader of each arm
    curve = pd.read_csv(whole / "run" / "anytime.csv").query("strategy == 'pbt'")
    assert curve.val.notna().sum() == members
    assert curve.spent_flop.iloc[-1] == members * full
    assert f"{members} completed" in (whole / "run" / "report.html").read_text()
    assert "pruned    pbt-0-000" in (whole / "told.txt").read_text()
    assert "exhaustive" in str(summarise(ledger))


@pytest.mark.slow
def test_interrupted_and_resumed_it_ends_as_if_uninterrupted(site, whole, tmp_path) -> None:
    events = 24  # four trials of the sweep, seven of sixteen of the population
    child = subprocess.Popen(
        [*RFSEARCH, *map(str, words(tmp_path))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(site),
    )
    ledger = tmp_path / "run" / "ledger.jsonl"
    try:
        give_up = time.monotonic() + 120
        while not (ledger.exists() and ledger.read_bytes().count(b"\n") >= events) and time.monotonic() < give_up:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130, err.decode()
    again = [*RFSEARCH, "resume", str(tmp_path / "run")]
    done = subprocess.run(again, capture_output=True, text=True, env=environment(site), timeout=300)
    assert done.returncode == 0, done.stderr

    def timeless(folder: Path) -> list[tuple[object, ...]]:
        return [
            (r.trial, r.status, r.candidate, r.heir_of, r.train_seed, r.cost.flop, r.val, r.test)
            for r in read_run(folder / "run").records
        ]

    assert timeless(tmp_path) == timeless(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budget": "2x"},
            r"pbt needs room for 4 full trainings with their looks; 2x has room for 0\. Smallest: (\S+)x\.",
        ),
        ({"strategies": ("pbt@bi",)}, "pbt searches the form single only"),
    ],
)
def test_what_cannot_be_is_one_message(site, tmp_path, monkeypatch, changes, message) -> None:
    monkeypatch.syspath_prepend(str(site))
    request = Request(str(toy_file(tmp_path)), **{"strategies": ("pbt",), "budget": "16x", **changes})
    with pytest.raises(RequestError, match=message) as raised:
        planned(request, tmp_path)
    if enough := re.search(message, str(raised.value)):
        for budget in enough.groups():  # what the message names is enough
            planned(replace(request, budget=f"{budget}x"), tmp_path)


def test_a_recipe_without_looks_is_refused() -> None:
    with pytest.raises(SpaceError, match="the recipe needs at least rungs = 1"):
        PopulationBasedTraining(SPACE.with_(recipe=SPACE.recipe.model_copy(update={"rungs": 0})), 0)
