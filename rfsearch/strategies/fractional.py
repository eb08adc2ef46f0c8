"""Trainings that find their own dilations first, each at the cost of one training and a third."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.choices import Candidate, Searched, SitePath
from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, Space
from rfsearch.strategies.base import Description


class Fractional:
    """Repeat a training that finds its own dilations (see `rfsearch.training.dilation_search`).

    It shares its weights between all dilations of the space at first, goes on with the best one and learns it on from
    there as a real number. Each is a whole search, so what a budget leaves after the first is spent on others with
    fresh training seeds: they show how sure the first one was, and one that went astray is outdone.

    Raises:
        SpaceError: The space is of LS-DFN blocks.
    """

    def __init__(self, space: Space, seed: int) -> None:
        """Make the one candidate."""
        if space.form == LSDFN:
            raise SpaceError("fractional finds dilations; lsdfn learns the sample stride of an LS-DFN block.")
        dilations, paths = sorted(space.dilations), space.path_set
        labels = paths.labels or ((),) * len(paths.manual) if paths else ((),)
        middle = dilations[(len(dilations) - 1) // 2]
        self._finder = space.uniform([SitePath(Searched(middle), names) for names in labels])

    def describe(self) -> Description:
        """Return the one candidate."""
        return Description((self._finder,))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate:
        """Return the one candidate."""
        return self._finder

    def observe(self, record: Record) -> None:
        """Do nothing: the trainings do not depend on each other."""
