"""Search with a peer's layer: trained from every dilation, or searched with and then trained plainly."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rfsearch.choices import Candidate, Dilated, Guest
from rfsearch.direction import merit
from rfsearch.ledger import Record
from rfsearch.space import SINGLE, Space
from rfsearch.strategies import Description, Exhausted, Sweep
from rfsearch_peers.needs import check_installed


class LayerSweep:
    """Train once from each dilation of the space with a layer in place of the convolution.

    The hand default's dilation comes first; then the leaders are repeated (see `Sweep`). What is trained is the answer.

    Attributes:
        name: Name of the peer and of its extra. A subclass sets it, like the others.
        layer: SPEC of the layer.
        modules: Modules that it calls.
        starts_anywhere: Whether the layer starts at the convolution's dilation; if not, one start is all.

    Example:
        >>> class Deformables(LayerSweep):
        ...     name = "deformable"
        ...     layer = "rfsearch_peers.deformable:deformable"
    """

    form: ClassVar[str] = SINGLE
    name: ClassVar[str]
    layer: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    starts_anywhere: ClassVar[bool] = True

    def __init__(self, space: Space, seed: int) -> None:
        check_installed(self.name, self.modules)
        dilations = space.dilations if self.starts_anywhere else (space.reference,)
        self._starts = [space.uniform(Guest(d, self.layer)) for d in dilations]
        first = space.uniform(Guest(space.reference, self.layer))
        self._sweep = Sweep(self._starts, seed, first, space.direction)

    def describe(self) -> Description:
        """Return the starts."""
        return Description(tuple(self._starts))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return the next dilation's candidate, or a leader's."""
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        """Take the record of a training."""
        self._sweep.observe(record)


class SearchThenTrain:
    """Search a dilation by a layer in training, then train what was found plainly.

    What was found is, at every site, the dilation of the space next to it; it is trained unless it has been. The first
    search starts at the hand default. If a method searches again, the next search starts where the last one ended, and
    once that is no new place, at a dilation that no search has started from, in an order shuffled by the seed. What a
    budget leaves after that is spent on repeating the plain trainings with fresh training seeds, the leaders first.

    Attributes:
        name: As for `LayerSweep`.
        layer: As for `LayerSweep`.
        modules: As for `LayerSweep`.
        searches_again: Whether one search is not all.

    Example:
        >>> class Dash(SearchThenTrain):
        ...     name = "dash"
        ...     layer = "rfsearch_peers.dash:dash"
        ...     searches_again = False
    """

    form: ClassVar[str] = SINGLE
    name: ClassVar[str]
    layer: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    searches_again: ClassVar[bool]

    def __init__(self, space: Space, seed: int) -> None:
        check_installed(self.name, self.modules)
        self._dilations = sorted(space.dilations)
        others = [d for d in self._dilations if d != space.reference]
        random.Random(seed).shuffle(others)
        starts = [space.reference, *others] if self.searches_again else [space.reference]
        self._starts = [space.uniform(Guest(d, self.layer)) for d in starts]
        self._found: dict[Candidate, None] = {}
        self._direction = space.direction
        self._merits: dict[Candidate, list[float]] = {}
        self._tries: dict[Candidate, int] = {}

    def describe(self) -> Description:
        """Return the searches; what is trained after them depends on what they find."""
        return Description(tuple(self._starts))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return a plain training of what was found, else the next search, else a repeat of a leader."""
        tries = {c: self._tries.get(c, 0) + list(pending).count(c) for c in {**self._tries, **dict.fromkeys(pending)}}
        ended = list(reversed(self._found)) if self.searches_again else []
        searches = [self._starts[0], *map(self._search_from, ended), *self._starts]
        fresh = [candidate for candidate in (*self._found, *searches) if not tries.get(candidate)]
        if fresh:
            return fresh[0]
        if not any(self._merits.get(candidate) for candidate in self._found):
            why = "what the searches found is still in training" if pending else "no search found what could be scored"
            return Exhausted(why)
        fewest = min(tries[candidate] for candidate in self._found)
        return max((c for c in self._found if tries[c] == fewest), key=self._mean)

    def observe(self, record: Record) -> None:
        """Take the record of a search or of a plain training."""
        candidate = Candidate.from_json(record.candidate)
        self._tries[candidate] = self._tries.get(candidate, 0) + 1
        if not record.scored or record.val is None or not math.isfinite(record.val):
            return
        if candidate.learned:
            ended = Candidate.from_json(record.outcome)
            ends = {name: path.choice for name, path in ended if isinstance(path.choice, Guest)}
            self._found.setdefault(self._plain({name: guest.found or guest.dilation for name, guest in ends.items()}))
        else:
            self._merits.setdefault(candidate, []).append(merit(record.val, self._direction))

    def _mean(self, candidate: Candidate) -> float:
        merits = self._merits.get(candidate, [])
        return sum(merits) / len(merits) if merits else -math.inf

    def _plain(self, ends: Mapping[str, float]) -> Candidate:
        """Return plain convolutions at the space's dilations next to those that a search ended at, by path."""
        nearest = {path: min((abs(d - end), d) for d in self._dilations)[1] for path, end in ends.items()}
        return Candidate({path: Dilated(dilation) for path, dilation in nearest.items()})

    def _search_from(self, plain: Candidate) -> Candidate:
        return Candidate({name: Guest(path.choice.dilations[0], self.layer) for name, path in plain})
