"""Exhaustive search: the manual sweep of the papers (Wei Tables 2-4, the sample strides of Wu et al.)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, Candidate, Choice, Space
from rfsearch.strategies.base import Exhausted, Sweep

_MOST = 10_000


class Exhaustive:
    """Every combination of the space's dilations, of its sets of different dilations for parallel paths, or of its
    sample strides, over its sites; then repeats of the leaders (see `Sweep`)."""

    def __init__(self, space: Space, seed: int) -> None:
        options = choices_at_a_site(space)
        sites = len(space.sites)
        if len(options) ** sites > _MOST:
            raise SpaceError(
                f"exhaustive: {len(options)} choices at {sites} sites are {len(options) ** sites:.3g} candidates; "
                f"it takes at most {_MOST}. Name fewer sites, or use random or optuna."
            )
        self.candidates = [
            Candidate.of(dict(zip(space.sites, row, strict=True))) for row in itertools.product(options, repeat=sites)
        ]
        self._sweep = Sweep(self.candidates, seed, first=space.default_candidate)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        self._sweep.observe(record)


def choices_at_a_site(space: Space) -> list[Choice | tuple[Choice, ...]]:
    """What one site may get in a sweep of fixed values."""
    if space.form == LSDFN:
        strides = [space.sampled(gamma, s) for s in space.sampling.regions for gamma in space.sampling.gammas]
        return list(dict.fromkeys(strides))
    if space.path_set is None:
        return [Choice(d) for d in space.dilations]
    count = len(space.path_set.manual)
    by_hand = tuple(sorted(space.path_set.manual))
    if math.comb(len(space.dilations), count) > _MOST:
        raise SpaceError(f"exhaustive: {count} of {len(space.dilations)} dilations are more than {_MOST} candidates.")
    swept = itertools.combinations(sorted(space.dilations), count)
    return [tuple(Choice(d) for d in row) for row in dict.fromkeys([by_hand, *swept])]
