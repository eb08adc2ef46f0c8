"""A list of candidates, each trained once, in its order: what a published table asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rfsearch.ledger.record import Record
from rfsearch.space import Candidate
from rfsearch.strategies.base import Exhausted


@dataclass
class Listed:
    """Every candidate of a list once, in the order given."""

    candidates: Sequence[Candidate]
    _left: dict[Candidate, None] = field(init=False)

    def __post_init__(self) -> None:
        self._left = dict.fromkeys(self.candidates)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        left = (candidate for candidate in self._left if candidate not in pending)
        return next(left, Exhausted("every candidate of the list has been trained"))

    def observe(self, record: Record) -> None:
        self._left.pop(Candidate.from_json(record.candidate), None)
