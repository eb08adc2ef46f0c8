"""What whoever runs trials orders of whoever trains them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rfsearch.ledger import Assignment, Cost, Record
from rfsearch.ledger.record import Status


@dataclass(frozen=True)
class Order:
    """Say what to train, where, and within which limit.

    Attributes:
        assignment: What to train, and how much it may cost.
        currency: Of that limit, a field of `Cost`.
        device: Where it trains.
        directory: Of this trial's checkpoints, beside those of the other trials; a training that was interrupted goes
            on from there.
        lost: How often a worker died on the way to the next look.
        lost_s: Seconds for which those held their devices.
        step: Forecast of the first step, so that the limit holds before anything has been metered.

    Example:
        >>> Order(assignment, "flop", torch.device("cpu"), run_dir / "checkpoints" / assignment.trial)
    """

    assignment: Assignment
    currency: str
    device: torch.device
    directory: Path
    lost: int = 0
    lost_s: float = 0.0
    step: Cost = field(default_factory=Cost)

    def exceeded_by(self, charged: Cost) -> bool:
        """Return whether what is charged would be over the limit."""
        return bool(getattr(charged, self.currency) > self.assignment.limit)

    def record(self, status: Status, **measured: Any) -> Record:
        """Return the record of this trial.

        Args:
            status: Of the trial.
            measured: All else that a record holds.
        """
        of = self.assignment
        return Record(
            trial=of.trial,
            strategy=of.strategy,
            seed=of.seed,
            status=status,
            candidate=of.candidate,
            train_seed=of.train_seed,
            heir_of=of.heir_of,
            **measured,
        )
