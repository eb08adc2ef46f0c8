"""Train a population over dilations: networks in training, of which the worst take over from the best.

Jaderberg et al., "Population based training of neural networks", arXiv 1711.09846, 2017. Written from the paper, with
the quarters and steps that `ray.tune.schedulers.PopulationBasedTraining` takes; nothing is called.

A dilation changes the shape of no weight. So after each round, which ends at a rung of the recipe, the last quarter of
the population goes on from weights and momentum of one of the first quarter, each site at a neighbouring dilation of
the space or, one time in four, at any. A round of a member is a trial, heir of one of the round before; those of the
last round are scored.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from rfsearch.choices import Candidate, Dilated
from rfsearch.direction import merit
from rfsearch.errors import SpaceError
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.space import SINGLE, Space
from rfsearch.strategies import Description, Exhausted, Heir

_QUARTER = 0.25
_FEWEST = 4  # members, so that a quarter is one
_ANYWHERE = 0.25  # how often a site moves to any dilation: Ray's resample_probability


class PopulationBasedTraining:
    """Train as many members as the budget has room for full trainings, spread over the space's dilations.

    The hand default comes first. While there is room for another population after that, another one is trained. Rounds
    are trained one after the other.

    Raises:
        SpaceError: The recipe has no rung before the end of a training, so members could not be compared.

    Example:
        >>> PopulationBasedTraining(space, seed=0).suggest([])
    """

    form: ClassVar[str] = SINGLE

    def __init__(self, space: Space, seed: int) -> None:
        self._seed, self._dilations, self._direction = seed, sorted(space.dilations), space.direction
        self._rounds = len(space.recipe.rung_steps())
        if self._rounds < 2:
            raise SpaceError("pbt compares networks in training: the recipe needs at least rungs = 1. Got 0.")
        others = [d for d in self._dilations if d != space.reference]
        random.Random(seed).shuffle(others)
        self._members = [space.uniform(Dilated(d)) for d in (space.reference, *others)]
        self._room: Callable[[Cost], int] = lambda spent: _FEWEST  # until it is given a budget
        self._records: dict[int, Record] = {}

    def describe(self) -> Description:
        """Return the members that a population may begin with."""
        return Description(tuple(self._members), fewest=_FEWEST)

    def allot(self, room: Callable[[Cost], int]) -> None:
        """Take what says how many full trainings a budget has room for, once some cost is spent."""
        self._room = room

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Heir | Exhausted:
        """Return the next member of the round in training."""
        first, size = self._population()
        if size < _FEWEST:
            return Exhausted("a population has been trained and the budget has no room for another one")
        number = len(self._records) + len(pending)
        rounds, member = divmod(number - first, size)
        if rounds == 0:
            return self._members[member % len(self._members)]
        if len(self._records) < first + rounds * size:
            return Exhausted("the next round depends on what is in training")
        last = [self._records[i] for i in range(first + (rounds - 1) * size, first + rounds * size)]
        ranked = sorted((r for r in last if math.isfinite(self._look(r))), key=self._look, reverse=True)
        if not ranked:
            return Exhausted("no member of the population could be trained to its next rung")
        quarter = math.ceil(size * _QUARTER)
        if last[member] in ranked[: size - quarter]:
            return Heir(Candidate.from_json(last[member].candidate), last[member].trial)
        draw = random.Random(f"{self._seed}/{number}")
        donor = draw.choice(ranked[:quarter])
        return Heir(self._moved(Candidate.from_json(donor.candidate), draw), donor.trial)

    def observe(self, record: Record) -> None:
        """Take the record of a member's round."""
        # Trials come back out of order; their names carry the order in which they were handed out.
        self._records[int(record.trial.rpartition("-")[2])] = record

    def prune(self, candidate: Candidate, rungs: Sequence[Rung]) -> bool:
        """Stop every training at its rung: its round ends there."""
        return True

    @property
    def awaited(self) -> Collection[str]:
        """Return the trials of the round in training and of the one before."""
        first, size = self._population()
        since = first + size * ((len(self._records) - first) // max(1, size) - 1)
        return [r.trial for number, r in self._records.items() if number >= since and r.status == "pruned"]

    def _population(self) -> tuple[int, int]:
        """Return the number of the first trial of the population in training, or to come, and its number of members."""
        first, size = 0, self._room(Cost())
        while size >= _FEWEST and len(self._records) >= first + size * self._rounds:
            first += size * self._rounds
            size = self._room(sum((self._records[i].cost for i in range(first)), Cost()))
        return first, size

    def _moved(self, candidate: Candidate, draw: random.Random) -> Candidate:
        """Move each site to a neighbouring dilation, which at the ends of the list may be its own, or to any."""
        moved = {}
        for site, path in candidate:
            place = self._dilations.index(path.choice.dilations[0]) + draw.choice((-1, 1))
            place = min(max(place, 0), len(self._dilations) - 1)
            anywhere = draw.random() < _ANYWHERE
            moved[site] = Dilated(draw.choice(self._dilations) if anywhere else self._dilations[place])
        return Candidate(moved)

    def _look(self, record: Record) -> float:
        """Return a member's merit at its rung: worst if it did not reach one, and so left nothing to go on from."""
        return merit(record.val, self._direction) if record.status == "pruned" and record.val is not None else -math.inf
