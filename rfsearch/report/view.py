"""The one view of a run: its arms, incumbents, winner, hand default and noise. Tables, figures and verdict share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rfsearch.direction import Direction, merit
from rfsearch.ledger import Cost, Record, Run, incumbent
from rfsearch.ledger.record import parsed
from rfsearch.numbers import finite, plain
from rfsearch.report.contenders import Contender, contenders, with_confirmations
from rfsearch.report.decision import Decision, decide, scores_of
from rfsearch.report.facts import Facts, canonical, read_facts
from rfsearch.report.statistics import Comparison, Sample, compare_samples

AT_START = 0.03  # |f - f0| / f0 below which what was learned counts as being at its start
_AT_BOUND = 0.01  # |f - bound| / bound below which it counts as held there

ScoreSplit = Literal["val", "test"]
"""A split that trials are scored on."""


@dataclass(frozen=True)
class ArmRecords:
    """Hold what one arm has done: the records of one strategy with one seed.

    Attributes:
        strategy: Name of the strategy.
        seed: Its seed.
        records: Its trials, in the order in which they finished.
        direction: Whether a higher or a lower score is the better one.

    Example:
        >>> ArmRecords("random", seed=0, records=(), direction="maximize").incumbent is None
        True
    """

    strategy: str
    seed: int
    records: tuple[Record, ...]
    direction: Direction

    @cached_property
    def spent(self) -> Cost:
        """What all its trials cost together."""
        return sum((record.cost for record in self.records), Cost())

    @cached_property
    def incumbent(self) -> Record | None:
        """The trial this arm would answer with."""
        return incumbent(self.records, self.direction)

    def spent_until(self, record: Record) -> Cost:
        """Return what the arm had spent when this record came in, the record's own cost included."""
        return sum((r.cost for r in self.records[: self.records.index(record) + 1]), Cost())


@dataclass(frozen=True)
class RunView:
    """Hold what a run's records say, worked out once: what tables, figures and verdict are made of.

    Attributes:
        run: The run as it was read.
        facts: What its manifest says.
        arms: Every arm, also those without a trial yet.
        split: What scores are reported on: `test` wherever the run has test scores. Trials are always chosen on `val`.

    Example:
        >>> from pathlib import Path
        >>> from rfsearch.ledger import Run
        >>> from rfsearch.ledger.manifest import Manifest
        >>> from rfsearch.ledger.typed_json import read_parts
        >>> manifest = read_parts(Manifest, {}, Path("manifest.json"))
        >>> view = build_view(Run(Path("run"), manifest, records=(), unfinished=0))
        >>> view.winner is None, view.strategies
        (True, ())
    """

    run: Run
    facts: Facts
    arms: tuple[ArmRecords, ...]
    split: ScoreSplit

    @property
    def records(self) -> tuple[Record, ...]:
        """All finished trials, in the order in which they finished."""
        return self.run.records

    @cached_property
    def scored(self) -> tuple[Record, ...]:
        """The trials that can win: completed or cut, with a validation score."""
        return tuple(r for r in self.records if r.scored)

    @cached_property
    def winner(self) -> Record | None:
        """The best scored trial, chosen on validation."""
        return incumbent(self.records, self.run.direction)

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """The names of the strategies, in the order in which the run names them."""
        return tuple(dict.fromkeys(arm.strategy for arm in self.arms))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the arms, ascending."""
        return tuple(sorted({arm.seed for arm in self.arms}))

    @cached_property
    def defaults(self) -> tuple[Record, ...]:
        """The scored trials of the hand default, one per training."""
        found = {r.train_seed: r for r in reversed(self.scored) if self.is_default(r)}
        return tuple(reversed(found.values()))

    def is_default(self, record: Record) -> bool:
        """Return whether a trial is a training of the hand default, and of nothing else before."""
        return not record.heir_of and canonical(record.candidate) == self.facts.reference

    @cached_property
    def contenders(self) -> tuple[Contender, ...]:
        """Everything that was scored, with its repeats."""
        found = contenders(self.records, self.run.direction)
        return tuple(with_confirmations(found, self.run.confirmations, self.run.direction))

    @cached_property
    def decision(self) -> Decision | None:
        """What is recommended; None where no trial was scored."""
        if self.winner is None:
            return None
        return decide(self.winner, self.contenders, self.facts.reference, self.run.direction)

    @cached_property
    def without_confirmations(self) -> RunView:
        """The view of what the search itself has found."""
        return self if not self.run.confirmations else build_view(replace(self.run, confirmations=()))

    @property
    def recommended(self) -> Record | None:
        """The best training of what is recommended."""
        return self.decision.recommended.best if self.decision else None

    def scores_of(self, contender: Contender) -> list[float]:
        """Return the reported scores of a contender's trainings."""
        return scores_of(contender, self.split)

    @cached_property
    def _samples(self) -> Mapping[int, Sample]:
        """What the reported scores of each contender come to, by its identity; without those that have none."""
        scores = ((id(c), self.scores_of(c)) for c in self.contenders)
        return {key: Sample.of(self.merits(found)) for key, found in scores if found}

    def compare(self, ours: Contender, theirs: Contender) -> Comparison | None:
        """Compare two contenders of this run by their reported scores; None where one has none."""
        samples = self._samples.get(id(ours)), self._samples.get(id(theirs))
        return compare_samples(samples[0], samples[1]) if samples[0] and samples[1] else None

    @cached_property
    def guides(self) -> bool:
        """Whether any path is guided by labels."""
        return any(path.labels for r in self.records for _, path in parsed(r.candidate) or ())

    @cached_property
    def samples(self) -> bool:
        """Whether any path has an LS-DFN block."""
        return any("gamma" in path.choice.numbers for r in self.records for _, path in parsed(r.candidate) or ())

    @property
    def metric(self) -> str:
        """The name of the score, and that a lower one is better where that is so."""
        return f"{self.facts.metric}, lower is better" if self.run.direction == "minimize" else self.facts.metric

    def score(self, record: Record) -> float | None:
        """Return a record's reported score; None where it has none."""
        return finite(getattr(record, self.split))

    def merits(self, scores: Iterable[float]) -> list[float]:
        """Turn scores into merits, of which a higher one is the better one."""
        return [merit(value, self.run.direction) for value in scores]

    def finals(self, strategy: str) -> dict[int, float]:
        """Return the reported scores of a strategy's incumbents, by seed; seeds without one are left out."""
        found = {a.seed: self.score(a.incumbent) for a in self.arms if a.strategy == strategy and a.incumbent}
        return {seed: value for seed, value in found.items() if value is not None}


def build_view(run: Run) -> RunView:
    """Work out the view of a run, finished or not."""
    facts = read_facts(run.manifest)
    by_arm: dict[tuple[str, int], list[Record]] = {arm: [] for arm in facts.arms}
    for record in run.records:
        by_arm.setdefault((record.strategy, record.seed), []).append(record)
    arms = tuple(
        ArmRecords(strategy, seed, tuple(records), run.direction) for (strategy, seed), records in by_arm.items()
    )
    tested = any(r.scored and finite(r.test) is not None for r in run.records)
    return RunView(run, facts, arms, "test" if tested else "val")


def has_start(record: Record) -> bool:
    """Return whether a training's receptive field starts somewhere: a search of dilations starts at all of them."""
    known = parsed(record.candidate)
    return known is None or not all(path.choice.searched for _, path in known)


def has_moved(record: Record) -> bool:
    """Return whether training moved a receptive field away from where it started."""
    known = parsed(record.candidate)
    return known is not None and known.learned and has_start(record) and record.rf_init_px != record.rf_px


def factors(record: Record) -> Mapping[str, float]:
    """Return the inflation factor that each path ended with, where it is not 1."""
    return {path: f for path, f in record.f.items() if f != 1.0}


LETTERS = {"f": "f", "gamma": "γ"}  # of the numbers that a gradient moves from where a candidate starts them


@dataclass(frozen=True)
class Motion:
    """Say how what one path learned has moved.

    Attributes:
        path: Name of the path.
        letter: What was learned: f or γ.
        start: Its value before training.
        end: Its value after training.
        still: Whether it stayed at its start during the whole training.
        returned: Whether it left its start and ended there again.
        bound: The bound that it ended at; None where it ended at none.

    Example:
        >>> Motion("conv6", "f", start=1.0, end=4.0, still=False, returned=False, bound=4.0).flag
        'stopped at its bound of 4'
    """

    path: str
    letter: str
    start: float
    end: float
    still: bool
    returned: bool
    bound: float | None

    @property
    def flag(self) -> str:
        """What a reader must know of this start, in a few words; empty where there is nothing."""
        if self.still:
            return "never moved"
        if self.bound:
            return f"stopped at its bound of {plain(self.bound)}"
        return "came back to its start" if self.returned else ""


def motions(record: Record, facts: Facts) -> list[Motion]:
    """Return how every learned path of a record has moved, where its end is known.

    A trial that was stopped early says nothing of a path that had not moved by then: it might have.
    """
    found = []
    bounds = {"f": facts.f_bounds, "gamma": facts.gamma_bounds}
    for name, path in parsed(record.candidate) or ():
        moved = path.choice.moves
        if moved is None or moved not in LETTERS or name not in record.found:
            continue
        start, ended = path.choice.numbers[moved], record.found[name].numbers.get(moved, 1.0)
        left = any(abs(value - start) >= AT_START * start for _, at, value in record.trace if at == name)
        back = abs(ended - start) < AT_START * start
        still, returned = back and not left, back and left
        if still and record.status != "completed":
            continue
        bound = next((b for b in bounds[moved] if abs(ended - b) <= _AT_BOUND * b), None)
        found.append(Motion(name, LETTERS[moved], start, ended, still, returned, bound))
    return found


def setting_of(candidate: str, record: Record | None = None) -> str:
    """Return a candidate in words: `dilation 4 at conv6`, with f, guidance and sample stride where it has them.

    Args:
        candidate: Its JSON. A candidate that cannot be read here is returned as it is.
        record: A trial of it, to say what training made of it; None to describe the candidate as suggested.
    """
    known = parsed(candidate)
    if known is None:
        return candidate
    final = dict((record.ended or known) if record else ())
    by_choice: dict[str, list[str]] = {}
    for name, path in known:
        end = final.get(name)
        text, aside = path.choice.described(end.choice if end else None, plain)
        asides = [aside] if aside else []
        if not aside and record and record.heir_of:
            asides.append("reached over several trials")
        if path.labels:
            asides.append(f"guided by {', '.join(path.labels)}")
        if asides:
            text += f", {', '.join(asides)},"
        by_choice.setdefault(text, []).append(name)
    return "; ".join(f"{text} at {_sites(sites)}" for text, sites in by_choice.items())


def _sites(sites: Sequence[str]) -> str:
    if len(sites) <= 3:
        return ", ".join(sites)
    return f"{sites[0]}, {sites[1]} and {len(sites) - 2} further sites"
