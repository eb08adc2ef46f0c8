"""Trainings that find their own dilations first, each at the cost of one training and a third."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, Candidate, Choice, Space


class Fractional:
    """A training that shares its weights between all dilations of the space at first, goes on with the best one and
    learns it on from there as a real number (see `rfsearch.trial.prelude`). Each is a whole search, so what a budget
    leaves after the first is spent on others with fresh training seeds: they tell how sure the first one was, and one
    that went astray is outdone.
    """

    def __init__(self, space: Space, seed: int) -> None:
        if space.form == LSDFN:
            raise SpaceError("fractional finds dilations; lsdfn learns the sample stride of an LS-DFN block.")
        dilations, paths = sorted(space.dilations), space.path_set
        labels = paths.labels or ((),) * len(paths.manual) if paths else ((),)
        middle = dilations[(len(dilations) - 1) // 2]
        self._finder = space.uniform([Choice(middle, labels=names, fractional=True) for names in labels])

    @property
    def candidates(self) -> list[Candidate]:
        """What is known to be tried beforehand."""
        return [self._finder]

    def suggest(self, pending: Sequence[Candidate]) -> Candidate:
        return self._finder

    def observe(self, record: Record) -> None:
        """Nothing: the trainings do not depend on each other."""
