"""Trainings that find their own dilations: one that moves them from a start, then some that look for them first."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.choices import Candidate, Moved, Searched, SitePath
from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, SearchSpace
from rfsearch.strategies.base import Description, Exhausted, Sweep


class Fractional:
    """Try one training that moves a dilation by its gradient, then repeat one that finds it first.

    The first costs one plain training: it starts from the middle of the space's dilations, or from those that the space
    sets by hand for parallel paths, and learns them on as real numbers. Where the start was far off, it may end short
    of the best.

    The other shares its weights between all dilations of the space at first, and goes on likewise with the best one
    (see `rfsearch.training.dilation_search`). Each is a whole search, so what a budget leaves is spent on others with
    fresh training seeds: they show how sure the first one was, and one that went astray is outdone. Where trainings
    cannot look, as a user's own without `look`, the other starts are moved from one after the other instead.

    Raises:
        SpaceError: The space is of LS-DFN blocks.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """Make the two candidates."""
        if space.form == LSDFN:
            raise SpaceError("fractional finds dilations; lsdfn learns the sample stride of an LS-DFN block.")
        dilations, paths = sorted(space.dilations), space.path_set
        labels = paths.labels or ((),) * len(paths.manual) if paths else ((),)
        middle = dilations[(len(dilations) - 1) // 2]
        starts = [min(max(d, dilations[0]), dilations[-1]) for d in paths.manual] if paths else [middle]
        self._finder = space.uniform([SitePath(Searched(middle), names) for names in labels])
        moved = space.uniform([SitePath(Moved(d), names) for d, names in zip(starts, labels, strict=True)])
        self._begun = False
        self._first = [moved] if len(dilations) > 1 else []  # a single one has nowhere to move
        others = [space.uniform([SitePath(Moved(d), names) for names in labels]) for d in dilations]
        listed = list(dict.fromkeys([moved, *others]))
        self._starts = None if space.looks else Sweep(listed, seed, moved, space.direction)

    def describe(self) -> Description:
        """Return the candidates."""
        return Description(tuple(self._starts.candidates) if self._starts else (*self._first, self._finder))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return the one that moves, then the one that finds again and again."""
        if self._starts:
            return self._starts.suggest(pending)
        return self._finder if self._begun or pending or not self._first else self._first[0]

    def observe(self, record: Record) -> None:
        """Note that the first has been tried; beyond that, trainings do not depend on each other."""
        self._begun = True
        if self._starts:
            self._starts.observe(record)
