"""What makes the training of a trial: the seam between whoever runs trials and whoever trains them.

A run has one maker of trainings. It can be pickled, is sent to every worker once, and makes the training of each trial
there: the built-in one, or one that calls its user's own loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rfsearch.data import ImageSet
from rfsearch.ledger import Record
from rfsearch.space import Space
from rfsearch.training.order import Order
from rfsearch.training.training import Training


class RunningTraining(Protocol):
    """Train one assignment, from look to look."""

    def advance(self) -> Record:
        """Train to the next look, the end, or the limit.

        Returns:
            The record as it stands there. With status `pruned` it is provisional: the training can go on. Any other
            status is final.

        Raises:
            RunDirectoryError: A checkpoint cannot be written. Nothing else leaves this method but an interrupt and the
                next error: what a user's model or data raises becomes a record with status `failed`.
            LostProcessError: One of several processes that train it together has died: whoever runs the trial takes
                that for the death of its worker.
        """

    def close(self) -> None:
        """Let go of a training that does not go on, ended or not."""


class Trainings(Protocol):
    """Make the training of each assignment of a run."""

    def begin(self, order: Order) -> RunningTraining:
        """Return the training of an order; what an interrupted one has left in its directory goes on."""


@dataclass(frozen=True)
class ImageTrainings:
    """Make built-in trainings of a space on an image set.

    Attributes:
        space: Network, task and recipe.
        data: All splits.

    Example:
        >>> ImageTrainings(space, data).begin(order).advance().status
        'pruned'
    """

    space: Space
    data: ImageSet

    def begin(self, order: Order) -> Training:
        """Return the training of an order; see `Trainings`."""
        return Training(self.space, self.data, order)
