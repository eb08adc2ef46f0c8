"""Trainings that were made before, advanced from look to look as if they were made now."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from rfsearch.ledger import Cost, Record
from rfsearch.ledger.record import Status
from rfsearch.replay.table import ReplayTable
from rfsearch.training.order import Order

# A training that ends knows what its last step and its scores cost only once they are there, and may go over its limit
# by that much.
_WHOLE = 0.99


class ReplayedTraining:
    """Advance one training of a table; see `RunningTraining`.

    It is charged what the training had cost. Where that is over its limit, it is cut: it is charged the limit, and has
    no score, since nobody knows what it would have scored there.

    Args:
        made: The training, None where the table has none.
        order: What to train.
    """

    def __init__(self, made: Record | None, order: Order) -> None:
        """Begin before the first look."""
        self._made, self._order, self._looks = made, order, 0

    def advance(self) -> Record:
        """Go to the next look, the end, or the limit."""
        made, order = self._made, self._order
        if made is None:
            cause = "the replayed run has no whole training of it"
            return order.record("failed", rf_px=0, rf_init_px=0, cost=Cost(), cause=cause)
        if self._looks < len(made.rungs) and not order.exceeded_by(made.rungs[self._looks].cost):
            self._looks += 1
            return self._stopped("pruned", made.rungs[self._looks - 1].cost)
        share = order.assignment.limit / getattr(made.cost, order.currency)
        if share >= _WHOLE:
            return self._of_order(made)
        return replace(self._stopped("cut", Cost(*(share * part for part in astuple(made.cost)))), val=None)

    def close(self) -> None:
        """Hold nothing."""

    def _stopped(self, status: Status, cost: Cost) -> Record:
        """Return the record at the last look, as far as it is known of a training that did not stop there."""
        assert self._made is not None
        rungs = self._made.rungs[: self._looks]
        step, val = (rungs[-1].step, rungs[-1].val) if rungs else (0, None)
        trace = tuple(point for point in self._made.trace if point[0] <= step)
        at_look = replace(self._made, status=status, cost=cost, val=val, steps=step, rungs=rungs, trace=trace)
        return self._of_order(replace(at_look, test=None, scores={}))

    def _of_order(self, record: Record) -> Record:
        # Outcome and seed stay those of the training, so that one training is no two, however often it is looked up.
        of = self._order.assignment
        return replace(
            record,
            trial=of.trial,
            strategy=of.strategy,
            seed=of.seed,
            candidate=of.candidate,
            forecast=None,
            forecast_peak_bytes=None,
        )


@dataclass(frozen=True)
class ReplayTrainings:
    """Look up trainings in a table.

    Attributes:
        table: The table.

    Example:
        >>> ReplayTrainings(table).begin(order).advance().status
        'pruned'
    """

    table: ReplayTable

    def begin(self, order: Order) -> ReplayedTraining:
        """Return the training of an order; see `Trainings`."""
        return ReplayedTraining(self.table.training_of(order.assignment), order)
