"""Hold the contest of a plan: set it up as its ledger left it, train, and keep the checkpoints that matter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rfsearch.data import ImageSet
from rfsearch.errors import RfsearchError, RunDirectoryError
from rfsearch.ledger import Journal, Record, read_history
from rfsearch.ledger.journal import require_replayable
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.plan import Plan
from rfsearch.space import Space


class Engine(Protocol):
    """Run the trials of a contest.

    Attributes:
        workers: Number of trials at a time.
    """

    @property
    def workers(self) -> int:
        """Number of trials at a time."""

    def run(
        self,
        contest: Contest,
        space: Space,
        data: ImageSet,
        run_dir: Path,
        currency: str,
        watch: Callable[[Record], None],
        check: Callable[[], None],
    ) -> None:
        """Train until the contest is done.

        Args:
            contest: Says what to train, and takes the records.
            space: What the candidates are of.
            data: What they are trained on.
            run_dir: Where checkpoints go.
            currency: What the budgets count.
            watch: Called with every record, those of rungs included.
            check: Called many times a second; what it raises ends the run.
        """


def contest_of(the_plan: Plan, run_dir: Path) -> Contest:
    """Set up the contest of a plan as its ledger left it, or a new one.

    Raises:
        RunDirectoryError: The ledger is damaged, or is of another run.
        StrategyError: A strategy fails.
    """
    journal = Journal(run_dir)
    arms = [Arm(entrant.enter(the_plan.space, seed), seed, the_plan.budget) for entrant, seed in the_plan.arms]
    history = read_history(run_dir)
    require_replayable(history, {(arm.name, arm.seed) for arm in arms}, journal.path)
    try:
        space = the_plan.space
        return Contest(arms, journal, history, the_plan.forecaster, space.reference_candidate, space.direction)
    except RfsearchError:
        raise
    except Exception as error:  # what a strategy raises for records that it can never have asked for
        raise RunDirectoryError(
            f"{journal.path}: its trials cannot be replayed, so one is damaged: {type(error).__name__}: {error}."
        ) from error


def keep_leaders(run_dir: Path, contest: Contest) -> None:
    """Delete the checkpoints of finished trials that lead no arm and that no other trial goes on from.

    Leaders alone are ever shown or exported.
    """
    needed = {arm.best.trial for arm in contest.arms if arm.best} | set(contest.running) | contest.parents
    for folder in (run_dir / "checkpoints").glob("*"):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def compete(
    the_plan: Plan,
    contest: Contest,
    run_dir: Path,
    engine: Engine,
    watch: Callable[[Record, Contest], None],
    check: Callable[[], None],
) -> None:
    """Train until every arm has spent its budget.

    Args:
        the_plan: The plan of the run.
        contest: Its contest.
        run_dir: Its directory.
        engine: What runs the trials.
        watch: Called with every record, those of rungs included, and the contest.
        check: Called many times a second; what it raises ends the contest.
    """

    def take(record: Record) -> None:
        if record.trial not in contest.running:
            keep_leaders(run_dir, contest)
        watch(record, contest)

    engine.run(contest, the_plan.space, the_plan.data, run_dir, the_plan.budget.currency, take, check)
