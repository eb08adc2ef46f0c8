"""A run directory as a real run leaves it, made in this process: one worker, no Ray."""

from pathlib import Path

import torch

from rfsearch.ledger import Request
from rfsearch.planning.competition import contest_of
from rfsearch.planning.directory import start_run
from rfsearch.planning.plan import Plan
from rfsearch.training import Training
from tests.planned import planned
from tests.toys import toy_file

CPU = torch.device("cpu")


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
        work = Training(plan.space, plan.data, assignment, plan.budget.currency, CPU, folder)
        while (record := work.advance()).status == "pruned":
            pass
        contest.finish(record)
    assert contest.next()
