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
    _tried: list[Candidate] = field(default_factory=list)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        taken = [*self._tried, *pending]
        left = [candidate for candidate in self.candidates if candidate not in taken]
        return left[0] if left else Exhausted("every candidate of the list has been trained")

    def observe(self, record: Record) -> None:
        self._tried.append(Candidate.from_json(record.candidate))
