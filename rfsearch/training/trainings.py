"""What makes the training of a trial: the seam between whoever runs trials and whoever trains them.

A run has one maker of trainings. It can be pickled, is sent to every worker once, and makes the training of each trial
there: the built-in one, or one that calls its user's own loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from rfsearch.data import ImageSet
from rfsearch.ledger import Assignment, Cost, Record
from rfsearch.space import Space
from rfsearch.training.training import Training


class RunningTraining(Protocol):
    """Train one assignment, from look to look."""

    def advance(self) -> Record:
        """Train to the next look, the end, or the limit.

        Returns:
            The record as it stands there. With status `pruned` it is provisional: the training can go on. Any other
            status is final.

        Raises:
            RunDirectoryError: A checkpoint cannot be written. Nothing else leaves this method but an interrupt: what a
                user's model or data raises becomes a record with status `failed`.
        """

    def close(self) -> None:
        """Let go of a training that does not go on, ended or not."""


class Trainings(Protocol):
    """Make the training of each assignment of a run."""

    def begin(
        self,
        assignment: Assignment,
        currency: str,
        device: torch.device,
        directory: Path,
        lost: int = 0,
        lost_s: float = 0.0,
        step: Cost | None = None,
    ) -> RunningTraining:
        """Return the training of an assignment; what an interrupted one has left in its directory goes on.

        Args:
            assignment: What to train.
            currency: Of the assignment's limit, a field of `Cost`.
            device: Where it trains.
            directory: Of this trial's checkpoints, beside those of the other trials.
            lost: How often a worker died on the way to the next look.
            lost_s: Seconds for which those held their devices.
            step: Forecast of its first step, so that the limit holds before anything has been metered.
        """


@dataclass(frozen=True)
class ImageTrainings:
    """Make built-in trainings of a space on an image set.

    Attributes:
        space: Network, task and recipe.
        data: All splits.

    Example:
        >>> ImageTrainings(space, data).begin(assignment, "flop", torch.device("cpu"), directory).advance().status
        'pruned'
    """

    space: Space
    data: ImageSet

    def begin(
        self,
        assignment: Assignment,
        currency: str,
        device: torch.device,
        directory: Path,
        lost: int = 0,
        lost_s: float = 0.0,
        step: Cost | None = None,
    ) -> Training:
        """Return the training of an assignment; see `Trainings`."""
        return Training(self.space, self.data, assignment, currency, device, directory, lost, lost_s, step)
