"""What competes in a run: each candidate with all its full trainings, which differ in their training seeds alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rfsearch.choices import Choice, Dilated
from rfsearch.direction import Direction, merit
from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.report.facts import canonical
from rfsearch.report.statistics import Sample, compare_samples

# Dilations that trainings found are one where no gap between neighbours is wider, whatever they score: half of what
# tells whole ones apart.
_SAME_FIND = 0.5


@dataclass(frozen=True)
class Contender:
    """Hold the trainings of one candidate at one length, the best on validation first.

    A training that was cut, or that went on from another trial's, is a contender of its own. Trainings that search
    their dilations are one contender where they have found about the same ones.

    Attributes:
        records: One per training seed.
        trials: Names of all its trials, also of those that other arms asked for under the same training seed.
        confirmed: Its outcome's trainings from scratch that chose nothing; where there are any, its scores are theirs.

    Example:
        >>> from rfsearch.ledger import Cost
        >>> contender = Contender((Record("a", "s", 0, "completed", "{}", 1, 1, Cost(), steps=120),))
        >>> contender.best.trial, contender.steps
        ('a', 120)
    """

    records: tuple[Record, ...]
    trials: frozenset[str] = frozenset()
    confirmed: tuple[Record, ...] = ()

    @property
    def best(self) -> Record:
        """Its training with the best validation score."""
        return self.records[0]

    @property
    def trained(self) -> tuple[Record, ...]:
        """The trainings that tell how good it is."""
        return self.confirmed or self.records

    @property
    def steps(self) -> int:
        """How many steps each of these took."""
        return self.trained[0].steps

    @property
    def repeated(self) -> bool:
        """Whether it was trained under more than one seed."""
        return len(self.trained) > 1

    @property
    def full(self) -> bool:
        """Whether it was trained from the start to the end."""
        return self.trained[0].status == "completed" and not self.trained[0].heir_of

    @property
    def complexity(self) -> tuple[int, int]:
        """How much more than a plain convolution per site its network needs: paths, and layers of another kind."""
        known = self.best.ended
        if known is None:
            return (1, 1)
        paths = tuple(known)
        return len(paths) - len(known.sites), sum(not is_plain(path.choice) for _, path in paths)


def is_plain(choice: Choice) -> bool:
    """Return whether a choice is a convolution with a whole dilation, which any framework has."""
    return choice.plain_dilation is not None and choice == Dilated(choice.plain_dilation)


def contenders(records: Iterable[Record], direction: Direction) -> list[Contender]:
    """Return what competes among scored records, in the order in which the first training of each came in.

    The same candidate under the same training seed is one training, however many arms asked for it.
    """
    scored = [r for r in records if r.scored]
    groups: dict[object, list[Record]] = {}
    finds = _find_groups(scored, direction)
    for record in scored:
        whole = record.status == "completed" and not record.heir_of
        key = (canonical(record.candidate), record.steps, finds.get(record.trial)) if whole else record.trial
        groups.setdefault(key, []).append(record)
    return [_contender(group, direction) for group in groups.values()]


def _contender(group: Sequence[Record], direction: Direction) -> Contender:
    by_seed: dict[int, Record] = {}
    for record in group:
        by_seed.setdefault(record.train_seed, record)
    best_first = sorted(by_seed.values(), key=lambda r: -merit(r.val or 0.0, direction))
    return Contender(tuple(best_first), frozenset(record.trial for record in group))


def with_confirmations(
    found: list[Contender], confirmations: Iterable[Record], direction: Direction
) -> list[Contender]:
    """Return contenders with the trainings that confirm their outcomes.

    A candidate that was trained as it is has its own; else the best contender with that outcome; and an outcome that no
    training of the run had is a contender of its own.

    Args:
        found: Contenders.
        confirmations: Trainings from scratch of fixed candidates.
        direction: Whether a higher or a lower score is the better one.
    """
    again: dict[str, list[Record]] = {}
    for record in confirmations:
        if record.scored and record.status == "completed":
            again.setdefault(canonical(record.candidate), []).append(record)
    confirmed: dict[int, tuple[Record, ...]] = {}
    for key, records in again.items():
        own = [c for c in found if c.full and canonical(c.best.candidate) == key]
        like = own or [c for c in found if canonical(c.best.outcome) == key]
        if like:
            best = max(like, key=lambda c: merit(c.best.val or 0.0, direction))
            confirmed[id(best)] = tuple(records)
        else:
            found = [*found, Contender((records[0],), frozenset(), tuple(records))]
    return [replace(c, confirmed=confirmed.get(id(c), c.confirmed)) for c in found]


def is_searched(record: Record) -> bool:
    """Return whether a record's training searched dilations itself."""
    known = parsed(record.candidate)
    return known is not None and bool(known.searched)


def found_dilations(record: Record) -> tuple[float, ...]:
    """Return the dilation of every path of a training that searched its own, as it ended."""
    return tuple(path.choice.numbers.get("dilation", 0.0) for _, path in record.ended or ())


def group_finds(records: Sequence[Record], direction: Direction) -> list[list[Record]]:
    """Group trainings by the dilations that they found.

    Those that lie close together are one group, and so are neighbours whose scores noise cannot tell apart.

    Args:
        records: Completed trainings of candidates with the same paths, which searched their dilations themselves.
        direction: Whether a higher or a lower score is the better one.

    Returns:
        The groups, the largest first.
    """
    groups = [list(records)]
    for path in range(max((len(found_dilations(r)) for r in records), default=0)):
        groups = [part for group in groups for part in _told_apart(group, path, direction)]
    return sorted((g for g in groups if g), key=lambda group: (-len(group), found_dilations(group[0])))


def _told_apart(records: Sequence[Record], path: int, direction: Direction) -> list[list[Record]]:
    """Return groups along one path, the nearest of those that are alike joined first."""
    parts = _split_at_gaps(records, path)

    def sample(part: Sequence[Record]) -> Sample:
        of_training = {record.train_seed: merit(record.val or 0.0, direction) for record in part}
        return Sample.of(list(of_training.values()))

    def width(at: int) -> float:
        return found_dilations(parts[at + 1][0])[path] - found_dilations(parts[at][-1])[path]

    samples = [sample(part) for part in parts]
    while True:
        pairs = enumerate(pairwise(samples))
        alike = [at for at, (one, other) in pairs if compare_samples(one, other).standing == "alike"]
        if not alike:
            return parts
        at = min(alike, key=width)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        samples[at : at + 2] = [sample(parts[at])]


def _split_at_gaps(records: Sequence[Record], path: int) -> list[list[Record]]:
    ordered = sorted(records, key=lambda r: found_dilations(r)[path])
    parts: list[list[Record]] = []
    for record in ordered:
        if parts and found_dilations(record)[path] - found_dilations(parts[-1][-1])[path] <= _SAME_FIND:
            parts[-1].append(record)
        else:
            parts.append([record])
    return parts


def _find_groups(scored: Sequence[Record], direction: Direction) -> dict[str, int]:
    """Return the group of finds that each training belongs to that searched its dilations, by trial."""
    by_candidate: dict[tuple[str, int], list[Record]] = {}
    for record in scored:
        if record.status == "completed" and record.found and is_searched(record):
            by_candidate.setdefault((canonical(record.candidate), record.steps), []).append(record)
    return {
        record.trial: number
        for alike in by_candidate.values()
        for number, group in enumerate(group_finds(alike, direction))
        for record in group
    }
