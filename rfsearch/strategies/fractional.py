"""Dilations found within one training, at the cost of one convolution, and then trained on their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, Candidate, Choice, Space
from rfsearch.strategies.base import Exhausted, Sweep


class Fractional:
    """One training that shares its weights between all dilations of the space and narrows down to one a path (see
    `rfsearch.trial.narrowing`). What a budget leaves goes to plain trainings: of what was found, of its neighbours in
    the space, one place up and down on every path, and then of the leaders again (see `Sweep`). A worker that is free
    while the dilations are still being found trains the hand default.
    """

    def __init__(self, space: Space, seed: int) -> None:
        if space.form == LSDFN:
            raise SpaceError("fractional finds dilations; lsdfn learns the sample stride of an LS-DFN block.")
        self._dilations, self._seed = sorted(space.dilations), seed
        paths = space.path_set
        labels = paths.labels or ((),) * len(paths.manual) if paths else ((),)
        middle = self._dilations[(len(self._dilations) - 1) // 2]
        finder = space.uniform([Choice(middle, labels=names, fractional=True) for names in labels])
        self.candidates = [finder]
        self._default = space.default_candidate
        self._sweep: Sweep | None = None

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        if self._sweep is not None:
            return self._sweep.suggest(pending)
        finder = self.candidates[0]
        return self._default if finder in pending else finder

    def observe(self, record: Record) -> None:
        if self._sweep is not None:
            self._sweep.observe(record)
        elif Candidate.from_json(record.candidate) == self.candidates[0] and record.scored:
            found, *near = (self._plain(record.f, shift) for shift in (0, -1, 1))
            self._sweep = Sweep(list(dict.fromkeys([found, *near])), self._seed, first=found)

    def _plain(self, f: Mapping[str, float], shift: int) -> Candidate:
        """What was found, every path `shift` dilations of the space farther up; f: of each path, start over found."""
        finder, last = self.candidates[0], len(self._dilations) - 1
        chosen: dict[str, list[Choice]] = {}
        for path, choice in finder:
            found = choice.dilation / f.get(path, 1.0)
            place = min(range(last + 1), key=lambda i: abs(self._dilations[i] - found))
            dilation = self._dilations[min(max(place + shift, 0), last)]
            site = path if path in dict(finder.choices) else path.rpartition("/")[0]
            chosen.setdefault(site, []).append(Choice(dilation, labels=choice.labels))
        return Candidate.of(chosen)
