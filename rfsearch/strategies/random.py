"""Random search: the baseline that any cleverer search has to beat."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from rfsearch.choices import Candidate
from rfsearch.ledger.record import Record
from rfsearch.space import SearchSpace
from rfsearch.strategies.base import Description
from rfsearch.strategies.encoding import Encoding, Ordered


class RandomSearch:
    """Try the hand default first, then independent draws per site.

    A path gets a dilation and a fixed real f, a block a gamma; reals are drawn evenly in their logarithm.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """Begin before the first draw."""
        self._space, self._seed, self._observed = space, seed, 0
        self._encoding = Encoding(space)

    def describe(self) -> Description:
        """Return the hand default and what is drawn."""
        return Description((self._space.default_candidate,), self._encoding.ranges)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate:
        """Return the draw that the number of trials so far stands for."""
        number = self._observed + len(pending)
        if number == 0:
            return self._space.default_candidate
        draw = random.Random(f"{self._seed}/{number}")
        return self._encoding.candidate(
            {
                name: draw.randrange(len(dimension.values))
                if isinstance(dimension, Ordered)
                else math.exp(draw.uniform(math.log(dimension.low), math.log(dimension.high)))
                for name, dimension in self._encoding.dimensions.items()
            }
        )

    def observe(self, record: Record) -> None:
        """Count a finished trial."""
        self._observed += 1
