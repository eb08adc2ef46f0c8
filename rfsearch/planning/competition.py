"""Hold the contest of a plan: set it up as its ledger left it, train, and keep the checkpoints that matter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rfsearch.errors import RfsearchError, RunDirectoryError
from rfsearch.ledger import Journal, Record, read_history
from rfsearch.ledger.journal import require_replayable
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.plan import Plan


def contest_of(the_plan: Plan, run_dir: Path) -> Contest:
    """Set up the contest of a plan as its ledger left it, or a new one."""
    journal = Journal(run_dir)
    arms = [Arm(entrant.enter(the_plan.space, seed), seed, the_plan.budget) for entrant, seed in the_plan.arms]
    history = read_history(run_dir)
    require_replayable(history, {(arm.name, arm.seed) for arm in arms}, journal.path)
    try:
        return Contest(arms, journal, history, the_plan.forecaster, the_plan.space.reference_candidate)
    except RfsearchError:
        raise
    except Exception as error:  # what a strategy raises for records that it can never have asked for
        raise RunDirectoryError(
            f"{journal.path}: its trials cannot be replayed, so one is damaged: {type(error).__name__}: {error}."
        ) from error


def keep_leaders(run_dir: Path, contest: Contest) -> None:
    """Delete the checkpoints of finished trials that lead no arm, which alone are ever shown or exported, and that no
    other trial goes on from."""
    needed = {arm.best.trial for arm in contest.arms if arm.best} | set(contest.running) | contest.parents
    for folder in (run_dir / "checkpoints").glob("*"):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def compete(
    the_plan: Plan,
    contest: Contest,
    run_dir: Path,
    engine: Any,
    watch: Callable[[Record, Contest], None],
    check: Callable[[], None],
) -> None:
    """Train until every arm has spent its budget.

    Args:
        watch: Called with every record, those of looks on the way included, and the contest.
        check: Called all the time; what it raises ends the contest.
    """

    def seen(record: Record) -> None:
        if record.trial not in contest.running:
            keep_leaders(run_dir, contest)
        watch(record, contest)

    engine.run(contest, the_plan.space, the_plan.data, run_dir, the_plan.budget.currency, seen, check)
