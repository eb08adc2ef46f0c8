"""The contract of a strategy: it decides which candidate comes next, and owns no clock, no GPU and no file.

A strategy is built as `Strategy(space, seed)`, and `space.direction` says whether a higher or a lower score is the
better one. The same seed and the same observed records give the same suggestions, so resuming a run is replaying its
ledger. Two methods are required, `suggest` and `observe`; `describe`, `prune`, `awaited` and `allot` are there for the
strategies that need them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rfsearch.choices import Candidate
from rfsearch.direction import Direction, merit
from rfsearch.ledger.record import Cost, Record, Rung


@dataclass(frozen=True)
class Exhausted:
    """Answer that nothing is left to try.

    Attributes:
        why: The reason, one plain sentence.
    """

    why: str


@dataclass(frozen=True)
class Heir:
    """Answer that training goes on where another trial of the arm was stopped, with its weights, momentum and step.

    Attributes:
        candidate: The parent's, except that dilations that training does not move may differ: a dilation changes the
            shape of no weight.
        of: Name of the parent trial; the strategy's `awaited` must list it.
    """

    candidate: Candidate
    of: str


@dataclass(frozen=True)
class Description:
    """State what a strategy tries and needs, so that a plan can be checked and shown before anything is trained.

    Attributes:
        candidates: What may be tried, as far as it is known beforehand, the first suggestion among it.
        draws: What else may be suggested, as the rest of a sentence; empty where nothing is.
        fewest: Number of full trainings that an arm's budget must have room for; 0 where any budget will do.
    """

    candidates: tuple[Candidate, ...] = ()
    draws: str = ""
    fewest: int = 0


@runtime_checkable
class Strategy(Protocol):
    """Decide which candidate comes next.

    Example:
        class Alternating:
            def __init__(self, space: Space, seed: int) -> None:
                self._ends = [space.uniform(Dilated(d)) for d in (min(space.dilations), max(space.dilations))]
                self._observed = 0

            def suggest(self, pending: Sequence[Candidate]) -> Candidate:
                return self._ends[(self._observed + len(pending)) % 2]

            def observe(self, record: Record) -> None:
                self._observed += 1
    """

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Heir | Exhausted:
        """Return the next candidate. Must not change any state.

        Args:
            pending: Candidates still in training.

        Returns:
            The candidate, or an heir. `Exhausted` while others are in training means that what comes next depends on
            them; otherwise it ends the arm.
        """

    def observe(self, record: Record) -> None:
        """Take in a finished trial of this arm, whatever its status."""


@runtime_checkable
class Describing(Strategy, Protocol):
    """Describe what is going to be tried. A strategy that does not is described by its first suggestion."""

    def describe(self) -> Description:
        """Return what this strategy tries and needs. Must not change any state."""


@runtime_checkable
class Pruning(Protocol):
    """Stop trainings early."""

    def prune(self, candidate: Candidate, rungs: Sequence[Rung]) -> bool:
        """Return whether a training with these validations so far is not worth finishing. Must not change any state."""


@runtime_checkable
class Relaying(Pruning, Protocol):
    """Prune every trial at its next rung, if it has one, for heirs to go on from there."""

    @property
    def awaited(self) -> Collection[str]:
        """Names of the pruned trials that may yet have heirs: their checkpoints are kept."""


@runtime_checkable
class Budgeted(Describing, Protocol):
    """Plan by what an arm may spend. The description's `fewest` says how much is needed."""

    def allot(self, room: Callable[[Cost], int]) -> None:
        """Learn what the budget has room for. Called once, before the first suggestion of a contest.

        Args:
            room: Gives the number of full trainings of the space's reference candidate, evaluations included, that
                fit into the budget once that much is spent.
        """


@runtime_checkable
class Formed(Protocol):
    """Search one form of a space only, whatever the form of the run. Read from the class, before it is built."""

    form: str


@dataclass
class Sweep:
    """Suggest every candidate of a list once, then repeat the leaders.

    The order is shuffled by the seed, so that a budget that ends early has not favoured one end of the list. What is
    left after that is spent on repeating the candidates with fresh training seeds, the leaders first: the repeats show
    how far a difference is noise.

    Attributes:
        candidates: The list; shuffled once this is built.
        seed: Seed of the order.
        first: Candidate that goes first if it is in the list.
        direction: Whether a higher or a lower score leads.
    """

    candidates: Sequence[Candidate]
    seed: int
    first: Candidate | None = None
    direction: Direction = "maximize"
    _merits: dict[Candidate, list[float]] = field(default_factory=dict)
    _tries: dict[Candidate, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Shuffle the list."""
        self.candidates = list(self.candidates)
        random.Random(self.seed).shuffle(self.candidates)
        self.candidates.sort(key=lambda candidate: candidate != self.first)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return the candidate tried least often, the one with the highest mean score among several."""
        tries = {c: self._tries.get(c, 0) + list(pending).count(c) for c in self.candidates}
        fewest = min(tries.values())
        open_ones = [c for c in self.candidates if tries[c] == fewest]
        if fewest == 0:
            return open_ones[0]
        if self._tries and not any(self._merits.values()) and not pending:
            return Exhausted("every candidate has been tried and none could be scored")
        return max(open_ones, key=self._mean_merit)

    def observe(self, record: Record) -> None:
        """Count a finished trial, and keep its score if it has one."""
        candidate = Candidate.from_json(record.candidate)
        self._tries[candidate] = self._tries.get(candidate, 0) + 1
        if record.scored and record.val is not None:
            self._merits.setdefault(candidate, []).append(merit(record.val, self.direction))

    def _mean_merit(self, candidate: Candidate) -> float:
        merits = self._merits.get(candidate, [])
        return sum(merits) / len(merits) if merits else float("-inf")
