"""Dilations found within one training, at the cost of one convolution, and then trained on their own."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, Candidate, Choice, Space
from rfsearch.strategies.base import Exhausted


class Fractional:
    """One training that shares its weights between all dilations of the space and narrows down to one a path (see
    `rfsearch.trial.narrowing`). What a budget leaves goes to plain trainings: of what was found, then of the neighbours
    of whatever leads, one place down and up on every path, until the leader has none left to try; then of everything
    again with fresh training seeds, the leaders first. While the dilations are still being found, workers that are free
    are left to other arms: what they would train is not known yet.
    """

    def __init__(self, space: Space, seed: int) -> None:
        if space.form == LSDFN:
            raise SpaceError("fractional finds dilations; lsdfn learns the sample stride of an LS-DFN block.")
        self._dilations = sorted(space.dilations)
        self._order = (-1, 1) if seed % 2 == 0 else (1, -1)
        paths = space.path_set
        labels = paths.labels or ((),) * len(paths.manual) if paths else ((),)
        middle = self._dilations[(len(self._dilations) - 1) // 2]
        self._finder = space.uniform([Choice(middle, labels=names, fractional=True) for names in labels])
        self._found: dict[str, float] | None = None
        self._scores: dict[Candidate, list[float]] = {}
        self._tries: dict[Candidate, int] = {}

    @property
    def candidates(self) -> list[Candidate]:
        """What is known to be tried beforehand."""
        return [self._finder]

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        if self._found is None:
            return Exhausted("the dilations are still being found") if self._finder in pending else self._finder
        tries = {c: self._tries.get(c, 0) + list(pending).count(c) for c in {**self._tries, **dict.fromkeys(pending)}}
        ladder = [self._plain(shift) for shift in range(-len(self._dilations), len(self._dilations) + 1)]
        ladder = list(dict.fromkeys(ladder))
        climbed = [c for c in ladder if self._scores.get(c)]
        leader = max(climbed, key=self._mean) if climbed else self._plain(0)
        at = ladder.index(leader)
        near = [ladder[at + step] for step in (0, *self._order) if 0 <= at + step < len(ladder)]
        fresh = [candidate for candidate in near if not tries.get(candidate)]
        if fresh:
            return fresh[0]
        tried = [candidate for candidate in ladder if tries.get(candidate)]
        if not climbed and not pending:
            return Exhausted("none of the dilations around the one that was found could be scored")
        fewest = min(tries[candidate] for candidate in tried)
        return max((c for c in tried if tries[c] == fewest), key=self._mean)

    def observe(self, record: Record) -> None:
        candidate = Candidate.from_json(record.candidate)
        self._tries[candidate] = self._tries.get(candidate, 0) + 1
        if not record.scored or record.val is None:
            return
        if candidate != self._finder:
            self._scores.setdefault(candidate, []).append(record.val)
        elif self._found is None:
            self._found = dict(record.f)

    def _mean(self, candidate: Candidate) -> float:
        scores = self._scores.get(candidate, [])
        return sum(scores) / len(scores) if scores else float("-inf")

    def _plain(self, shift: int) -> Candidate:
        """What was found, every path `shift` dilations of the space farther up. The ledger's f is start over found."""
        assert self._found is not None
        chosen: dict[str, list[Choice]] = {}
        sites = {site for site, _ in self._finder.choices}
        for path, choice in self._finder:
            found = choice.dilation / self._found.get(path, 1.0)
            place = min(range(len(self._dilations)), key=lambda i: abs(self._dilations[i] - found)) + shift
            dilation = self._dilations[min(max(place, 0), len(self._dilations) - 1)]
            site = path if path in sites else path.rpartition("/")[0]
            chosen.setdefault(site, []).append(Choice(dilation, labels=choice.labels))
        return Candidate.of(chosen)
