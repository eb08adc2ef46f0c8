"""The receptive field learned by gradient: the inflation factor of Wei et al., single path, from several starts."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.ledger.record import Record
from rfsearch.space import Candidate, Choice, Space
from rfsearch.strategies.base import Exhausted, Sweep


class LearnedInflation:
    """One training from each initial dilation of the space with f = 1 free to move (Wei sec. 5.1), then repeats of the
    leaders (see `Sweep`). How f moves (its rate, delay and bounds) is the recipe's."""

    def __init__(self, space: Space, seed: int) -> None:
        self.candidates = [space.uniform(Choice(d, f=1.0, learned=True)) for d in space.dilations]
        self._sweep = Sweep(self.candidates, seed)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        self._sweep.observe(record)
