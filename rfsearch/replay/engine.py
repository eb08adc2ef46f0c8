"""Run the trials of a contest in this process, one at a time: looking a training up needs no worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rfsearch.ledger import Record
from rfsearch.training.order import Order

if TYPE_CHECKING:
    from rfsearch.planning.contest import Contest
    from rfsearch.training import Trainings


class OneAtATime:
    """Advance one training after the other; see `rfsearch.planning.competition.Engine`.

    Example:
        >>> OneAtATime().run(contest, trainings, run_dir, "flop", watch, check)
    """

    workers = 1

    def run(
        self,
        contest: Contest,
        trainings: Trainings,
        run_dir: Path,
        currency: str,
        watch: Callable[[Record], None],
        check: Callable[[], None],
    ) -> None:
        """Go on until the contest is done."""
        while (assignment := contest.next()) is not None:
            check()
            folder, step = run_dir / "checkpoints" / assignment.trial, contest.first_step(assignment)
            training = trainings.begin(Order(assignment, currency, torch.device("cpu"), folder, step=step))
            while (record := training.advance()).status == "pruned":
                check()
                watch(record)
                if not contest.keep(record):
                    break
            training.close()
            watch(contest.finish(record))
