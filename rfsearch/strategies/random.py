"""Random search: the baseline that any cleverer search has to beat."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from rfsearch.ledger.record import Record
from rfsearch.space import Candidate, Choice, Space
from rfsearch.strategies.base import Exhausted


class RandomSearch:
    """The hand default first, then independent draws per site: a dilation, and a fixed real f, evenly in log f."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed, self._observed = space, seed, 0

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        number = self._observed + len(pending)
        if number == 0:
            return self._space.reference_candidate
        draw = random.Random(f"{self._seed}/{number}")
        low, high = map(math.log, self._space.f_search)
        return Candidate.of(
            {
                site: Choice(draw.choice(self._space.dilations), f=round(math.exp(draw.uniform(low, high)), 4))
                for site in self._space.sites
            }
        )

    def observe(self, record: Record) -> None:
        self._observed += 1
