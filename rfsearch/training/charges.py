"""What a trial is charged: the work that its training measures, that of workers it lost, and its time on a device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from rfsearch.ledger import Cost


class Working(Protocol):
    """Train, and know what that has cost."""

    @property
    def flop(self) -> float:
        """What everything that ran has cost so far, what failed included."""

    def epochs(self, steps: int) -> float:
        """Return how many passes over the training images that many steps are."""


class Charges:
    """Keep the account of one trial, an interruption and lost workers included.

    Args:
        lost: How often a worker died on the way to the next look. What it did is charged as that way costs when it is
            gone again.
        lost_s: Seconds for which those workers held their devices.

    Attributes:
        begun: Steps begun, the one in progress included.
        first: The step that the trial itself began with; another one's heir goes on from there.
    """

    def __init__(self, lost: int, lost_s: float) -> None:
        """Begin with nothing charged."""
        self._lost, self._lost_s = lost, lost_s
        self._carried = self._at_look = self._extra = Cost()
        self._loop: Working | None = None
        self._started: float | None = None
        self.begun = self.first = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Charge the time of whatever runs inside."""
        self._started = time.perf_counter()
        try:
            yield
        finally:
            self._carried = replace(self._carried, device_s=self.measured.device_s)
            self._started = None

    def follow(self, loop: Working) -> None:
        """Charge what a loop does from now on."""
        self._loop = loop

    @property
    def measured(self) -> Cost:
        """What this training did, before an interruption too.

        Its steps, whole or begun, its passes, and the time that it held its device for.
        """
        seconds = self._carried.device_s
        if self._started is not None:
            seconds += time.perf_counter() - self._started
        if self._loop is None:
            return replace(self._carried, device_s=seconds)
        return Cost(self._carried.flop + self._loop.flop, seconds, self._loop.epochs(self.begun - self.first))

    @property
    def total(self) -> Cost:
        """What is charged so far."""
        return self.total_of(self.measured)

    def total_of(self, measured: Cost) -> Cost:
        """Return what is charged once that much is measured.

        Lost workers did no more than what it took to go their way again to the next look, and held their devices until
        they were missed.
        """
        if not self._lost:
            return measured + self._extra
        flop, epochs = measured.flop - self._at_look.flop, measured.epochs - self._at_look.epochs
        return measured + self._extra + Cost(self._lost * flop, self._lost_s, self._lost * epochs)

    def settle_look(self) -> tuple[Cost, Cost, Cost]:
        """Charge lost workers for their way to this look.

        Returns:
            What was measured, what is charged beyond that, and the sum.
        """
        measured = self.measured
        total = self.total_of(measured)
        self._extra, self._at_look, self._lost = _less(total, measured), measured, 0
        return measured, self._extra, total

    def resume(self, measured: Cost, extra: Cost) -> None:
        """Go on from what an interrupted training had measured, and was charged beyond that."""
        self._carried, self._extra = measured, extra
        self._at_look = self.measured

    def begin_again(self, charged: Cost | None) -> str:
        """Begin with what was charged up to a look whose checkpoint is damaged.

        Args:
            charged: That; None where it is not known.

        Returns:
            What the trial's record says of it.
        """
        if charged is not None:
            self.resume(Cost(), charged)
        of_before = "is not known" if charged is None else "is charged"
        return f"its checkpoint was damaged, so it began again; what it had cost before {of_before}"


def _less(whole: Cost, part: Cost) -> Cost:
    return Cost(whole.flop - part.flop, whole.device_s - part.device_s, whole.epochs - part.epochs)
