"""A whole run directory of the earliest version is read, reported and resumed as if today's version had made it.

`old_runs/first` is what the first version left of a search of toy faces: its manifest, its ledger of schema 1, and the
table that it made of them.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from rfsearch.ledger import Record, read_history, read_run
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.ledger.record import TRIAL_COLUMNS
from rfsearch.planning.competition import contest_of
from rfsearch.planning.directory import reopen_run
from rfsearch.report import summarise, write
from rfsearch.training import Order, Training
from tests.small_run import CPU

OLD_RUNS = sorted((Path(__file__).parent / "old_runs").iterdir())


@pytest.fixture(params=OLD_RUNS, ids=lambda path: path.name)
def old(request) -> Path:
    return request.param


@pytest.fixture
def run_dir(old, tmp_path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(old, tmp_path / "run"))


def interrupt(run_dir: Path, trials: int) -> dict[str, Record]:
    """Take a run back to where that many trials had finished; returns the records of all of them."""
    records = read_history(run_dir).records
    lines, finished = [], 0
    for line in (run_dir / LEDGER_FILE).read_text().splitlines(keepends=True):
        finished += json.loads(line)["event"] == "finish"
        if finished > trials:
            break
        lines.append(line)
    (run_dir / LEDGER_FILE).write_text("".join(lines))
    return dict(records)


def table(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as lines:
        return {row["trial"]: row for row in csv.DictReader(lines)}


def test_it_is_read_and_every_trial_has_its_outcome(run_dir):
    run = read_run(run_dir)
    assert {record.strategy for record in run.records} == {"exhaustive", "random", "optuna", "inflation"}
    for record in run.records:
        assert record.ended is not None
        assert not record.ended.learned
        assert (record.outcome == record.candidate) == (record.strategy != "inflation")


def test_its_report_has_the_numbers_that_the_old_version_reported(old, run_dir):
    write(run_dir)
    now, then = table(run_dir / "trials.csv"), table(old / "trials.csv")
    assert list(now) == list(then)
    for trial, row in then.items():
        assert tuple(now[trial]) == TRIAL_COLUMNS
        numbers = {**row, "f": row["f"].removeprefix("conv6=")}  # a plain number today, where there is one site
        assert {column: now[trial][column] for column in row} == numbers
    assert (run_dir / "anytime.csv").read_text() == (old / "anytime.csv").read_text()
    assert "<html" in (run_dir / "report.html").read_text()
    best = summarise(read_run(run_dir)).best
    assert best is not None
    assert best.trial == "exhaustive-0-000"


def test_resuming_it_finds_nothing_left_to_train(run_dir):
    before = (run_dir / LEDGER_FILE).read_text()
    contest = contest_of(reopen_run(run_dir, CPU), run_dir)
    assert contest.next() is None
    assert contest.done
    assert (run_dir / LEDGER_FILE).read_text().startswith(before)


@pytest.mark.parametrize(("trials", "no_longer"), [(1, {"optuna-0-002"}), (5, {"optuna-0-002"}), (10, set())])
def test_an_interrupted_one_goes_on_with_the_trials_that_the_old_version_went_on_with(run_dir, trials, no_longer):
    """Only a trial that the old version began with too little left, and had to cut, is not begun today."""
    then = interrupt(run_dir, trials)
    contest = contest_of(reopen_run(run_dir, CPU), run_dir)
    resumed: dict[str, Record] = {}
    while assignment := contest.next():
        record = then[assignment.trial]
        assert (assignment.candidate, assignment.train_seed) == (record.candidate, record.train_seed)
        resumed[record.trial] = record
        contest.finish(record)
    assert set(then) - set(read_history(run_dir).records) == no_longer
    assert len(resumed) == len(then) - trials - len(no_longer)


def test_an_interrupted_one_is_trained_on(run_dir):
    then = interrupt(run_dir, 9)
    plan = reopen_run(run_dir, CPU)
    contest = contest_of(plan, run_dir)
    assignment = contest.next()
    assert assignment is not None
    folder = run_dir / "checkpoints" / assignment.trial
    work = Training(plan.space, plan.data, Order(assignment, plan.budget.currency, CPU, folder))
    while (record := work.advance()).status == "pruned":
        pass
    contest.finish(record)
    assert record.status == "completed"
    assert (record.rf_init_px, record.params) == (then[record.trial].rf_init_px, then[record.trial].params)
    assert len(read_history(run_dir).records) == 10
