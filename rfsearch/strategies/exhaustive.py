"""Exhaustive search: the manual sweep of the papers (Wei Tables 2-4, the sample strides of Wu et al.)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rfsearch.choices import Candidate
from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import SearchSpace
from rfsearch.strategies.base import Description, Exhausted, Sweep
from rfsearch.strategies.kinds import MOST, choices_at_a_site


class Exhaustive:
    """Train every combination over the sites of a space, then repeat the leaders (see `Sweep`).

    A site gets each dilation of the space, each set of different dilations for its parallel paths, or each sample
    stride; and each of every kind where a cost is an objective.

    Raises:
        SpaceError: There are too many combinations.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """List the combinations."""
        options = choices_at_a_site(space)
        sites = len(space.sites)
        if len(options) ** sites > MOST:
            raise SpaceError(
                f"exhaustive: {len(options)} choices at {sites} sites are {len(options) ** sites:.3g} candidates; "
                f"it takes at most {MOST}. Name fewer sites, or use random or optuna."
            )
        self._candidates = [
            Candidate(dict(zip(space.sites, row, strict=True))) for row in itertools.product(options, repeat=sites)
        ]
        self._sweep = Sweep(self._candidates, seed, space.default_candidate, space.direction)

    def describe(self) -> Description:
        """Return all combinations."""
        return Description(tuple(self._candidates))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return the combination tried least often."""
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        """Count a finished trial."""
        self._sweep.observe(record)
