"""Workers that are stopped for good, which only the process that runs the search can end."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from rfsearch.ledger import read_run
from rfsearch.orchestration import deadline
from rfsearch.orchestration.deadline import Deadline
from rfsearch.orchestration.trainable import PATIENCE
from tests.orchestration.runs import call, environment, wait, wait_for_events
from tests.toys import toy_file


class Clock:
    """A clock that only the test moves."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def watch(monkeypatch):
    """A deadline of 1.5 x 100 s and 300 s, with a function that lets time pass and returns which workers were ended."""
    clock, noted, ended = Clock(), [], []
    monkeypatch.setattr(deadline, "time", clock)
    monkeypatch.setattr(deadline, "end_worker", lambda trial: ended.append(trial.trial_id))
    trials = [SimpleNamespace(trial_id=name, config={PATIENCE: 100.0}) for name in ("one", "two")]
    made = Deadline(lambda name, waited: noted.append((name, waited)))

    def passed(seconds, every=0.1):
        for _ in range(round(seconds / every)):
            clock.now += every
            made.on_step_begin(0, trials)
        assert [name for name, _ in noted] == ended
        return ended

    return made, trials, passed, noted


def test_a_worker_from_which_nothing_comes_is_ended_once_and_late(watch):
    made, trials, passed, noted = watch
    made.on_trial_start(0, trials, trials[0])
    assert passed(449) == []
    assert passed(3) == ["one"]
    assert passed(1000) == ["one"]
    assert noted[0][1] == pytest.approx(450, abs=1)


def test_a_report_begins_the_wait_anew_and_an_end_ends_it(watch):
    made, trials, passed, _ = watch
    for trial in trials:
        made.on_trial_start(0, trials, trial)
    assert passed(400) == []
    made.on_trial_result(0, trials, trials[0], {})
    made.on_trial_complete(0, trials, trials[1])
    assert passed(400) == []
    assert passed(60) == ["one"]


def test_a_trial_that_waits_for_a_worker_is_not_waited_for(watch):
    assert watch[2](10_000, every=1.0) == []


def test_time_for_which_this_process_was_stopped_too_does_not_count(watch):
    made, trials, passed, _ = watch
    made.on_trial_start(0, trials, trials[0])
    assert passed(50) == []
    assert passed(3600, every=3600) == []  # a machine that slept
    assert passed(380) == []
    assert passed(20) == ["one"]


# The command, with a deadline that a test can wait for.
SOON = "from rfsearch.orchestration import deadline; deadline._GRACE_S = 5.0; from rfsearch.cli import main; main()"


def worker_of(child: subprocess.Popen[bytes]) -> psutil.Process:
    """Return the process that trains for a run."""
    children = psutil.Process(child.pid).children(recursive=True)
    return next(one for one in children if any("Trainable" in part for part in one.cmdline()))


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_good_is_ended_and_its_trial_goes_on(tmp_path):
    words = ["run", "--space", toy_file(tmp_path, budget="4x", steps=60), "--strategies", "exhaustive"]
    run_dir, errors = tmp_path / "run", tmp_path / "errors.txt"
    with errors.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-c", SOON, *map(str, words), "--trial-timeout", "20s", "--out", str(run_dir)],
            env=environment(), stdout=subprocess.DEVNULL, stderr=file,
        )  # fmt: skip
    try:
        wait_for_events(run_dir, 4, child)  # the second trial is handed out
        wait(lambda: any(run_dir.glob("checkpoints/exhaustive-0-001/progress.pt")), 60)
        stopped = worker_of(child)
        os.kill(stopped.pid, signal.SIGSTOP)
        assert child.wait(240) == 0, errors.read_text()
    finally:
        child.kill()
    assert not stopped.is_running()
    assert call(*words, "--out", tmp_path / "whole").returncode == 0
    ours, whole = (pd.read_csv(tmp_path / name / "trials.csv").set_index("trial") for name in ("run", "whole"))
    assert (ours.status[ours.index[:2]] == "completed").all()
    assert ours.val["exhaustive-0-001"] == whole.val["exhaustive-0-001"]
    assert ours.train_flop["exhaustive-0-001"] > whole.train_flop["exhaustive-0-001"]  # what was lost is charged
    assert ours.train_flop.sum() <= read_run(run_dir).manifest.budget.limit
