"""Exhaustive search: the manual sweep of the papers (Wei Tables 2-4, the sample strides of Wu et al.)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rfsearch.choices import Candidate, Dilated, Given
from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, SearchSpace
from rfsearch.strategies.base import Description, Exhausted, Sweep

_MOST = 10_000


class Exhaustive:
    """Train every combination over the sites of a space, then repeat the leaders (see `Sweep`).

    A site gets each dilation of the space, each set of different dilations for its parallel paths, or each sample
    stride.

    Raises:
        SpaceError: There are too many combinations.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """List the combinations."""
        options = choices_at_a_site(space)
        sites = len(space.sites)
        if len(options) ** sites > _MOST:
            raise SpaceError(
                f"exhaustive: {len(options)} choices at {sites} sites are {len(options) ** sites:.3g} candidates; "
                f"it takes at most {_MOST}. Name fewer sites, or use random or optuna."
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


def choices_at_a_site(space: SearchSpace) -> list[Given]:
    """Return what one site may get in a sweep of fixed values.

    Raises:
        SpaceError: There are too many sets of dilations.
    """
    if space.form == LSDFN:
        strides = [space.sampled(gamma, s) for s in space.sampling.regions for gamma in space.sampling.gammas]
        return [*dict.fromkeys(strides)]
    if space.path_set is None:
        return [*space.options]
    count = len(space.path_set.manual)
    by_hand = tuple(sorted(space.path_set.manual))
    if math.comb(len(space.dilations), count) > _MOST:
        raise SpaceError(f"exhaustive: {count} of {len(space.dilations)} dilations are more than {_MOST} candidates.")
    swept = itertools.combinations(sorted(space.dilations), count)
    return [tuple(Dilated(d) for d in row) for row in dict.fromkeys([by_hand, *swept])]
