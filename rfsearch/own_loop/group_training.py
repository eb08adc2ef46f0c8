"""A trial that several processes train together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import torch

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Record
from rfsearch.own_loop.group import Group
from rfsearch.own_loop.loop_training import LoopTraining, Train
from rfsearch.own_loop.member import Line
from rfsearch.space import OwnSpace
from rfsearch.training.order import Order

if TYPE_CHECKING:
    from rfsearch.orchestration.members import Members


class GroupTraining:
    """Train one assignment by its user's function in several processes; see `rfsearch.training.RunningTraining`.

    Args:
        space: What is searched, with the length of a full training.
        train: The user's function, or its SPEC.
        order: What to train.
        processes: How many train it.
    """

    def __init__(self, space: OwnSpace, train: Train | str, order: Order, processes: int) -> None:
        """Start nothing yet: `advance` does."""
        self._work = partial(_train, space, train, order)
        self._processes, self._device = processes, order.device
        self._members: Members | None = None

    def advance(self) -> Record:
        """Train to the next report, the end, or the limit.

        Raises:
            LostProcessError: A process has died.
        """
        from rfsearch.orchestration.members import Members

        if self._members is None:
            self._members = Members(self._work, self._processes, self._device)
        else:
            self._members.tell("go on")
        said = self._members.answer().what
        if isinstance(said, RunDirectoryError):
            raise said
        return cast(Record, said)

    def close(self) -> None:
        """End all processes, whatever they do."""
        if self._members is not None:
            self._members.close()
            self._members = None


def _train(space: OwnSpace, train: Train | str, order: Order, group: Group, line: Line, device: torch.device) -> None:
    """Be one of the processes; the first sends a record at each report."""
    training = LoopTraining(space, train, replace(order, device=device), group)
    if group.rank:
        training.follow()
        return
    line.abandon = training.abandon
    while True:
        try:
            record = training.advance()
        except RunDirectoryError as error:
            line.say(error)
            return
        line.say(record, failed=record.status == "failed")
        if record.status != "pruned":
            return
        line.hear()
