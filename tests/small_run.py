"""Real runs made in this process, one trial at a time: without Ray, whose start costs more than small trainings do."""

import io
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import pytest
import torch

from rfsearch import cli
from rfsearch.ledger import Request
from rfsearch.planning.competition import contest_of
from rfsearch.planning.directory import start_run
from rfsearch.planning.plan import Plan
from rfsearch.replay import OneAtATime
from rfsearch.training import Order, Training
from tests.planned import planned
from tests.toys import toy_file

CPU = torch.device("cpu")


def train_in_process(patch: pytest.MonkeyPatch) -> None:
    """Let commands that are called in this process train here too."""
    patch.setattr("rfsearch.conduct.start_engine", lambda request: nullcontext(OneAtATime()))


def run_in_process(*words: object) -> str:
    """Call a command that succeeds, and return its standard output. For fixtures of a module."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        train_in_process(patch)
        patch.setattr(sys, "argv", ["rfsearch", *map(str, words)])
        with pytest.raises(SystemExit) as leave:
            cli.main()
    assert not leave.value.code, out.getvalue()
    return out.getvalue()


def begin(folder: Path, backbone: str = "wei-small") -> tuple[Path, Plan]:
    """Write the manifest of a run of two short trainings; returns its directory and its plan."""
    request = Request(
        space=str(toy_file(folder, backbone, budget="60x", steps=2)),
        strategies=("exhaustive", "optuna"),
        gpus_per_trial=0,
    )
    run_dir = folder / "run"
    run_dir.mkdir()
    plan = planned(request, folder)
    start_run(plan, run_dir, "rfsearch run", 1, "cpu")
    return run_dir, plan


def train(run_dir: Path, plan: Plan, trials: int) -> None:
    """Train that many trials, and hand out one more."""
    contest = contest_of(plan, run_dir)
    for _ in range(trials):
        assignment = contest.next()
        assert assignment
        folder = run_dir / "checkpoints" / assignment.trial
        work = Training(plan.space, plan.data, Order(assignment, plan.budget.currency, CPU, folder))
        while (record := work.advance()).status == "pruned":
            pass
        contest.finish(record)
    assert contest.next()
