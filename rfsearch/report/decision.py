"""What a run recommends: the best candidate on validation, or the simplest one that noise cannot tell apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rfsearch.direction import Direction, merit
from rfsearch.ledger import Record
from rfsearch.numbers import finite
from rfsearch.report.contenders import Contender
from rfsearch.report.facts import canonical
from rfsearch.report.statistics import Sample, compare_samples


@dataclass(frozen=True)
class Decision:
    """Hold what is recommended, and what it was chosen among. Test scores play no part in it.

    Attributes:
        recommended: What is recommended.
        alike: Everything that noise cannot tell apart from the best candidate on validation, that one and the
            recommended one among it; the best mean first.
        default: The hand default; None where it has no scored training, or is unknown.
    """

    recommended: Contender
    alike: tuple[Contender, ...]
    default: Contender | None

    @property
    def keeps_default(self) -> bool:
        """Whether the recommendation is to leave the network as it is."""
        return self.recommended is self.default


def decide(winner: Record, found: Sequence[Contender], reference: str | None, direction: Direction) -> Decision:
    """Choose what to recommend.

    The candidate of the best single training leads. Where another one that noise cannot tell apart from it has the
    better mean, or was trained more than once while the first was not, that one leads instead. Of all that noise cannot
    tell apart from the leader, the simplest is recommended: the hand default, then plain convolutions, then layers of
    other kinds, then several paths; of equally simple ones, the best mean. What was trained once alone can replace the
    leader only where it is simpler.

    Where outcomes were confirmed, these alone are chosen among, by the scores of their confirmations.

    Args:
        winner: The best scored trial on validation.
        found: Everything that was scored, the winner among it.
        reference: The hand default as canonical JSON; None where it is unknown.
        direction: Whether a higher or a lower score is the better one.
    """
    samples = {id(c): Sample.of([merit(r.val or 0.0, direction) for r in c.trained]) for c in found}

    def level(contender: Contender) -> float:
        return samples[id(contender)].mean

    def alike(leader: Contender) -> list[Contender]:
        ours, others = samples[id(leader)], (c for c in found if c is not leader)
        return [leader, *(c for c in others if compare_samples(ours, samples[id(c)]).standing == "alike")]

    def effort(contender: Contender) -> tuple[bool, tuple[int, int]]:
        return contender is not default, contender.complexity

    if confirmed := [c for c in found if c.confirmed]:
        found = confirmed
    default = find_default(found, reference)
    first = max(found, key=level) if confirmed else next(c for c in found if winner.trial in c.trials)
    leader = max((c for c in alike(first) if c is first or c.repeated), key=lambda c: (c.repeated, level(c)))
    able = (c for c in alike(leader) if c is leader or c.repeated or effort(c) < effort(leader))
    tied = sorted(able, key=level, reverse=True)
    recommended = min(tied, key=lambda c: (effort(c), -level(c)))
    return Decision(recommended, tuple(tied), default)


def find_default(found: Sequence[Contender], reference: str | None) -> Contender | None:
    """Return the hand default among what was trained from the start; the one with the most trainings."""
    own = [c for c in found if not c.best.heir_of and canonical(c.best.candidate) == reference]
    return max(own, key=lambda c: (bool(c.confirmed), c.full, len(c.trained), c.steps), default=None)


def scores_of(contender: Contender, split: str) -> list[float]:
    """Return the scores of a contender's trainings on a split, those that have one."""
    found = (finite(getattr(r, split)) for r in contender.trained)
    return [value for value in found if value is not None]
