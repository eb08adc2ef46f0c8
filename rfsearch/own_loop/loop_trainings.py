"""What makes the trainings of a search in a user's own loop."""

from __future__ import annotations

from dataclasses import dataclass

from rfsearch.own_loop.group_training import GroupTraining
from rfsearch.own_loop.loop_training import LoopTraining, Train
from rfsearch.space import OwnSpace
from rfsearch.training.order import Order


@dataclass(frozen=True)
class LoopTrainings:
    """Make trainings that call a user's function.

    Attributes:
        space: What is searched.
        train: The function, or its SPEC.
        processes: How many train a trial together.

    Example:
        >>> LoopTrainings(space, train).begin(order).advance().status
        'pruned'
    """

    space: OwnSpace
    train: Train | str
    processes: int = 1

    def begin(self, order: Order) -> LoopTraining | GroupTraining:
        """Return the training of an order; see `Trainings`."""
        if self.processes == 1:
            return LoopTraining(self.space, self.train, order)
        return GroupTraining(self.space, self.train, order, self.processes)
