"""A list of candidates, each trained once, in its order: what a published table asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rfsearch.choices import Candidate
from rfsearch.ledger.record import Record
from rfsearch.strategies.base import Description, Exhausted


@dataclass
class Listed:
    """Train every candidate of a list once, in the order given.

    Attributes:
        candidates: The list.
    """

    candidates: Sequence[Candidate]
    _left: dict[Candidate, None] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with all of them left."""
        self._left = dict.fromkeys(self.candidates)

    def describe(self) -> Description:
        """Return the list."""
        return Description(tuple(self.candidates))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return the first candidate that is neither trained nor in training."""
        left = (candidate for candidate in self._left if candidate not in pending)
        return next(left, Exhausted("every candidate of the list has been trained"))

    def observe(self, record: Record) -> None:
        """Strike a candidate off the list."""
        self._left.pop(Candidate.from_json(record.candidate), None)
