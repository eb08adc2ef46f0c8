"""Exhaustive search over integer dilations: the manual sweep of the papers (Wei Tables 2-4)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import Candidate, Choice, Space
from rfsearch.strategies.base import Exhausted, Sweep

_MOST = 10_000


class Exhaustive:
    """Every combination of the space's dilations over its sites, then repeats of the leaders (see `Sweep`)."""

    def __init__(self, space: Space, seed: int) -> None:
        count = len(space.dilations) ** len(space.sites)
        if count > _MOST:
            raise SpaceError(
                f"exhaustive: {len(space.dilations)} dilations at {len(space.sites)} sites are {count:.3g} candidates; "
                f"it takes at most {_MOST}. Name fewer sites, or use random or optuna."
            )
        choices = [Choice(d) for d in space.dilations]
        product = itertools.product(choices, repeat=len(space.sites))
        self.candidates = [Candidate.of(dict(zip(space.sites, row, strict=True))) for row in product]
        self._sweep = Sweep(self.candidates, seed)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        self._sweep.observe(record)
