"""A second contest, behind the first: the best outcomes trained again, with seeds that chose nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rfsearch.choices import Candidate
from rfsearch.ledger import Budget, Journal, read_history
from rfsearch.ledger.journal import require_replayable
from rfsearch.planning.contest import Arm, Contest
from rfsearch.planning.request import SEEDS_MOST
from rfsearch.planning.search_plan import SearchPlan
from rfsearch.storage import storage_of
from rfsearch.strategies.guard import Guarded
from rfsearch.strategies.listed import Listed

CONFIRMED = "confirmed"
SEEDS = 4
"""Trainings of each outcome: the fewest of which an interval and a separation of all are quoted."""
_UNLIMITED = Budget("no limit", "flop", 1e30)


def confirming_contest(the_plan: SearchPlan, outcomes: Sequence[Candidate], folder: Path) -> Contest:
    """Set up the contest of a run's confirmation as its ledger left it, or a new one.

    All outcomes have a training under the first seed before any has one under the second. The seeds are above those of
    all arms.

    Args:
        the_plan: The plan of the run.
        outcomes: What is trained.
        folder: Of its ledger and checkpoints.

    Raises:
        RunDirectoryError: The ledger is damaged.
    """
    folder.mkdir(exist_ok=True)
    if storage := storage_of(folder.parent):
        storage.within(folder.name)
    journal, history = Journal(folder), read_history(folder)
    seeds = range(SEEDS_MOST, SEEDS_MOST + SEEDS)
    arms = [Arm(Guarded(CONFIRMED, Listed(outcomes)), seed, _UNLIMITED) for seed in seeds]
    require_replayable(history, {(arm.name, arm.seed) for arm in arms}, journal.path)
    space = the_plan.space
    return Contest(arms, journal, history, the_plan.forecaster, space.reference_candidate, space.direction)
