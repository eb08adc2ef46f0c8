"""What a strategy is: it decides which candidate comes next. It owns no clock, no GPU and no file.

A strategy is built as `Strategy(space, seed)`. The same seed and the same observed records give the same suggestions,
so resuming a run is replaying its ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rfsearch.ledger.record import Cost, Record, Rung
from rfsearch.space.choice import Candidate


@dataclass(frozen=True)
class Exhausted:
    """A strategy's answer when it has nothing left to try. why: one plain sentence."""

    why: str


@dataclass(frozen=True)
class Heir:
    """A candidate whose training goes on where another trial of its arm was stopped: from its weights, its momentum and
    its step. of: that trial's name, `awaited` by a strategy that is `Relaying`. candidate: the other's, at dilations of
    its own unless training moves them: a dilation changes the shape of no weight.
    """

    candidate: Candidate
    of: str


@runtime_checkable
class Strategy(Protocol):
    """The contract of every strategy."""

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Heir | Exhausted:
        """The next candidate, given those still in training. Changes no state. Exhausted while others are in training
        means that what comes next depends on them."""

    def observe(self, record: Record) -> None:
        """Take in a finished trial of this arm, whatever its status."""


@runtime_checkable
class Pruning(Protocol):
    """A strategy that may also stop a training on the way."""

    def prune(self, candidate: Candidate, rungs: Sequence[Rung]) -> bool:
        """Whether the training with these validations so far is not worth finishing. Changes no state."""


@runtime_checkable
class Relaying(Pruning, Protocol):
    """A strategy that prunes every trial at its next look, if it has one, for heirs to go on from there."""

    @property
    def awaited(self) -> Collection[str]:
        """Names of the pruned trials that may yet have heirs: what those go on from is kept."""


@runtime_checkable
class Budgeted(Protocol):
    """A strategy that plans by what its arm may spend. fewest: the full trainings that it needs room for."""

    fewest: int

    def allot(self, room: Callable[[Cost], int]) -> None:
        """Told at most once, before anything else. room: how many full trainings of the space's reference, looks and
        scoring included, the arm's budget has room for once that much is spent."""


@runtime_checkable
class Listing(Protocol):
    """A strategy whose candidates are known beforehand."""

    candidates: Sequence[Candidate]


@runtime_checkable
class Formed(Protocol):
    """A strategy that searches one form of a space only, whatever the form of the run."""

    form: str


@dataclass
class Sweep:
    """Every candidate of a list once, in an order shuffled by the seed, so that a budget that ends early has not
    favoured one end of it; `first` goes first if it is there. What a budget leaves after that is spent on repeating the
    candidates with fresh training seeds, the leaders first: the repeats tell how far a difference is noise.
    """

    candidates: Sequence[Candidate]
    seed: int
    first: Candidate | None = None
    _scores: dict[Candidate, list[float]] = field(default_factory=dict)
    _tries: dict[Candidate, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.candidates = list(self.candidates)
        random.Random(self.seed).shuffle(self.candidates)
        self.candidates.sort(key=lambda candidate: candidate != self.first)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        tries = {c: self._tries.get(c, 0) + list(pending).count(c) for c in self.candidates}
        fewest = min(tries.values())
        open_ones = [c for c in self.candidates if tries[c] == fewest]
        if fewest == 0:
            return open_ones[0]
        if self._tries and not any(self._scores.values()) and not pending:
            return Exhausted("every candidate has been tried and none could be scored")
        return max(open_ones, key=self._mean_score)

    def observe(self, record: Record) -> None:
        candidate = Candidate.from_json(record.candidate)
        self._tries[candidate] = self._tries.get(candidate, 0) + 1
        if record.scored and record.val is not None:
            self._scores.setdefault(candidate, []).append(record.val)

    def _mean_score(self, candidate: Candidate) -> float:
        scores = self._scores.get(candidate, [])
        return sum(scores) / len(scores) if scores else float("-inf")
