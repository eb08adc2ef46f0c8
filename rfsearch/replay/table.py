"""The trainings of an earlier run, to be looked up instead of trained again.

A table is a run directory, of which manifest and ledger are enough: its format is the ledger's. Some are shipped, in
`baselines/replay`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rfsearch import plugins
from rfsearch.choices import Candidate, Choice
from rfsearch.data import ImageSet
from rfsearch.errors import SpaceError
from rfsearch.ledger import Assignment, Record, Run, read_run
from rfsearch.ledger.manifest import read_manifest
from rfsearch.ledger.record import parsed
from rfsearch.ledger.request import EMBEDDED
from rfsearch.ledger.typed_json import known, sound
from rfsearch.numbers import counted
from rfsearch.space import Space

# What a strategy may try is its own affair; all else must be as it was when the trainings of a table were made.
_FREE = {
    "name", "title", "cite", "source", "preset", "choices", "reference", "f_search", "f_starts", "strategies", "budget",
    "form", "paths", "direction", "objectives", "kinds",
}  # fmt: skip


@dataclass(frozen=True)
class ReplayTable:
    """Hold the finished trainings of a run by what they trained.

    Attributes:
        run: The run.

    Example:
        >>> table = ReplayTable(read_run(Path("runs/mine")))
        >>> table.training_of(assignment).val
        0.7012
    """

    run: Run

    @cached_property
    def trainings(self) -> Mapping[str, tuple[Record, ...]]:
        """The completed trainings of every candidate, by its JSON, in the order of their seeds.

        Those that go on from another trial's weights are left out: what they score hangs on that trial too.
        """
        found: dict[str, list[Record]] = {}
        for record in self.run.records:
            if record.status == "completed" and not record.heir_of:
                found.setdefault(record.candidate, []).append(record)
        return {text: tuple(sorted(of, key=lambda record: record.train_seed)) for text, of in found.items()}

    @cached_property
    def _families(self) -> Mapping[object, list[tuple[str, Candidate]]]:
        """Candidates that differ in nothing but numbers, in lists."""
        families: dict[object, list[tuple[str, Candidate]]] = {}
        for text in self.trainings:
            if (candidate := parsed(text)) is not None:
                families.setdefault(_family(candidate), []).append((text, candidate))
        return families

    def training_of(self, assignment: Assignment) -> Record | None:
        """Return the training that stands for that of an assignment, None where the table has none.

        A candidate with a real number, a fixed f or gamma, that the table does not hold gets the trainings of the
        nearest one, by the logarithms of its numbers, among those that differ from it in numbers alone. Of several
        trainings of a candidate it is that with the seed of the assignment, or, for a seed that is not among theirs,
        one that the seed draws.
        """
        text = self._nearest(Candidate.from_json(assignment.candidate))
        if text is None or assignment.heir_of:
            return None
        trainings = self.trainings[text]
        of_seed = {record.train_seed: record for record in trainings}
        drawn = random.Random(assignment.train_seed).choice(trainings)
        return of_seed.get(assignment.train_seed, drawn)

    def stand_in(self, candidate: Candidate) -> Candidate:
        """Return the candidate whose trainings stand for those of another, that itself where the table has none."""
        text = self._nearest(candidate)
        return candidate if text is None else Candidate.from_json(text)

    def _nearest(self, candidate: Candidate) -> str | None:
        if (text := candidate.to_json()) in self.trainings:
            return text
        if not any(_is_real(path.choice) for _, path in candidate):
            return None
        family = self._families.get(_family(candidate), [])
        return min(family, key=lambda other: _distance(candidate, other[1]), default=(None,))[0]

    @property
    def notice(self) -> str:
        """What a reader must know of scores that were looked up."""
        count, day = sum(map(len, self.trainings.values())), known(self.run.manifest.started, "?")[:10]
        return (
            f"Replayed: nothing is trained. Scores and costs are those of {counted(count, 'training')} of "
            f"{counted(len(self.trainings), 'candidate')}, made on {day}. A candidate with a fixed f or sample "
            "stride that is not among them gets those of the nearest one, a seed that is not among theirs those of "
            "another. It compares strategies, and says nothing new about receptive fields."
        )

    @property
    def flop_per_s(self) -> float:
        """The rate at which a worker trained."""
        return sound(self.run.manifest.flop_per_s)

    def check(self, space: Space, data: ImageSet) -> None:
        """Check that trainings of a space would be these.

        Args:
            space: The space, fitted to its network and data.
            data: Its images. Those that are drawn are known by their number, since machines may differ in how they
                round.

        Raises:
            SpaceError: Something that a training depends on differs.
        """
        manifest = self.run.manifest
        made = manifest.image_space.with_(**{key: getattr(space, key) for key in _FREE})
        differing = list(_differences(made.model_dump(), space.model_dump()))
        splits = {name: len(split) for name, split in data.splits.items()}
        same = data.name == manifest.data.name if data.rendered else data.fingerprint() == manifest.data.fingerprint
        if not same or splits != manifest.data.splits:
            differing.append("data")
        if differing:
            raise SpaceError(
                f"{self.run.directory}: its trainings differ from those of this search in {', '.join(differing[:5])}, "
                "so they cannot be replayed here. Leave that as it was, or train."
            )
        records = [record for of in self.trainings.values() for record in of]
        if unknown := [cost for cost in space.costs if any(getattr(record, cost) is None for record in records)]:
            raise SpaceError(
                f"{self.run.directory}: {' and '.join(unknown)} is not known for some of its trainings, so a search "
                "cannot go by it here. Go by another cost, such as infer_mac, or train."
            )


def table_for(replay: str, space: Space) -> ReplayTable:
    """Return the table that a request names.

    Args:
        replay: A run directory, or EMBEDDED.
        space: The space.

    Raises:
        SpaceError: None is shipped for the space.
        RunDirectoryError: The directory holds no run, or a damaged one.
    """
    if replay != EMBEDDED:
        return ReplayTable(read_run(Path(replay)))
    shipped = (plugins.shipped("baselines") / "replay").glob("*/manifest.json")
    facts = {file.parent: read_manifest(file.parent).space for file in sorted(shipped)}
    of_space = [folder for folder, fact in facts.items() if fact.name == space.name]
    if not of_space:
        names = ", ".join(sorted({sound(fact.name) for fact in facts.values()})) or "none"
        raise SpaceError(
            f"no trainings of space {space.name!r} are shipped; there are some of {names}. Any run can be replayed: "
            "--replay-of RUN."
        )
    return ReplayTable(read_run(min(of_space, key=lambda folder: facts[folder].preset != space.preset)))


def _is_real(choice: Choice) -> bool:
    """Return whether a choice is fixed at a number of which there are others between any two."""
    return choice.moves is None and bool({"f", "gamma"} & {*choice.numbers})


def _family(candidate: Candidate) -> object:
    return tuple((name, path.labels, _kind(path.choice)) for name, path in candidate)


def _kind(choice: Choice) -> object:
    """Return what choices that differ in numbers alone have in common."""
    if choice.moves:
        return type(choice), choice.moves, choice.specs
    # A dilation without an inflation has f = 1. A choice without numbers is like itself alone.
    return frozenset({*choice.numbers} - {"f"}) if choice.numbers else choice


def _distance(one: Candidate, other: Candidate) -> float:
    pairs = zip(one, other, strict=True)
    return sum(math.dist(_coordinates(here.choice), _coordinates(there.choice)) for (_, here), (_, there) in pairs)


def _coordinates(choice: Choice) -> list[float]:
    """Return the logarithms of a choice's numbers; taps behind an inflation are dilation / f px apart."""
    numbers = {"f": 1.0, **choice.numbers}
    f = numbers["f"]
    return [math.log(value / f if name == "dilation" else value) for name, value in sorted(numbers.items())]


def _differences(one: Mapping[str, object], other: Mapping[str, object], within: str = "") -> Iterable[str]:
    """Name the keys in which two tables differ, nested ones with their table's name before them."""
    for key in one:
        here, there = one[key], other.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            yield from _differences(here, there, f"{within}{key}.")
        elif here != there:
            yield f"{within}{key}"
