"""A run boiled down: its arms, incumbents, winner, hand default and noise. What verdict, figures and page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rfsearch.ledger import Cost, Record, Run, incumbent
from rfsearch.ledger.record import parsed
from rfsearch.report.facts import Facts, canonical, read_facts
from rfsearch.report.statistics import Noise, noise, replicates, trained
from rfsearch.report.wording import finite, plain
from rfsearch.space.choice import Choice

NEVER_LEFT = 0.03  # |f - f0| / f0 below which what was learned counts as not moved
_AT_BOUND = 0.01  # |f - bound| / bound below which it counts as held there

Split = Literal["val", "test"]


@dataclass(frozen=True)
class Arm:
    """One strategy with one seed: its records in the order they came in, and what they cost together."""

    strategy: str
    seed: int
    records: tuple[Record, ...]

    @cached_property
    def spent(self) -> Cost:
        return sum((record.cost for record in self.records), Cost())

    @cached_property
    def incumbent(self) -> Record | None:
        """The trial this arm would answer with."""
        return incumbent(self.records)

    def spent_until(self, record: Record) -> Cost:
        """What the arm had spent when this record came in, the record's own cost included."""
        return sum((r.cost for r in self.records[: self.records.index(record) + 1]), Cost())


@dataclass(frozen=True)
class Digest:
    """split: what scores are reported on, `test` wherever the run has test scores. Trials are chosen on `val`."""

    run: Run
    facts: Facts
    arms: tuple[Arm, ...]
    split: Split

    @property
    def records(self) -> tuple[Record, ...]:
        return self.run.records

    @cached_property
    def scored(self) -> tuple[Record, ...]:
        return tuple(r for r in self.records if r.scored)

    @cached_property
    def winner(self) -> Record | None:
        return incumbent(self.records)

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arm.strategy for arm in self.arms))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({arm.seed for arm in self.arms}))

    @cached_property
    def defaults(self) -> tuple[Record, ...]:
        """Scored trials of the hand default, one a training."""
        found = {r.train_seed: r for r in reversed(self.scored) if self.is_default(r)}
        return tuple(reversed(found.values()))

    def is_default(self, record: Record) -> bool:
        """Whether a trial is a training of the hand default, and of nothing else before."""
        return not record.heir_of and canonical(record.candidate) == self.facts.reference

    @cached_property
    def noise(self) -> Noise | None:
        return noise(self.records, self.score)

    @cached_property
    def _replicates(self) -> Mapping[tuple[str, int], Mapping[int, float]]:
        return replicates(self.records, self.score)

    @cached_property
    def guides(self) -> bool:
        """Whether any path is guided by labels."""
        return any(choice.labels for r in self.records for _, choice in parsed(r.candidate) or ())

    @cached_property
    def samples(self) -> bool:
        """Whether any path has an LS-DFN block."""
        return any(choice.sampling for r in self.records for _, choice in parsed(r.candidate) or ())

    def score(self, record: Record) -> float | None:
        """A record's reported score."""
        return finite(getattr(record, self.split))

    def finals(self, strategy: str) -> dict[int, float]:
        """The reported score of a strategy's incumbent, by seed, where it has one."""
        found = {a.seed: self.score(a.incumbent) for a in self.arms if a.strategy == strategy and a.incumbent}
        return {seed: value for seed, value in found.items() if value is not None}

    def trainings(self, record: Record) -> Sequence[float]:
        """Reported scores of all full trainings of a record's candidate; of the record alone where it was none."""
        if record.status == "completed" and not record.heir_of:
            return list(self._replicates.get(trained(record), {}).values())
        own = self.score(record)
        return [own] if own is not None else []


def digest(run: Run) -> Digest:
    facts = read_facts(run.manifest)
    by_arm: dict[tuple[str, int], list[Record]] = {arm: [] for arm in facts.arms}
    for record in run.records:
        by_arm.setdefault((record.strategy, record.seed), []).append(record)
    arms = tuple(Arm(strategy, seed, tuple(records)) for (strategy, seed), records in by_arm.items())
    tested = any(r.scored and finite(r.test) is not None for r in run.records)
    return Digest(run, facts, arms, "test" if tested else "val")


def has_start(record: Record) -> bool:
    """Whether a training's receptive field starts somewhere: a search of dilations starts at all of them."""
    known = parsed(record.candidate)
    return known is None or not all(choice.to_find for _, choice in known)


def has_moved(record: Record) -> bool:
    """Whether training moved a receptive field away from where it started."""
    known = parsed(record.candidate)
    return known is not None and known.learned and has_start(record) and record.rf_init_px != record.rf_px


def factors(record: Record) -> Mapping[str, float]:
    """The inflation factor each site ended with, where it is not 1."""
    known = parsed(record.candidate)
    found = {site: choice.f for site, choice in known if not choice.fractional} if known else {}
    ended = {site: value for site, f in record.f.items() if (value := finite(f)) is not None}
    return {site: f for site, f in {**found, **ended}.items() if f != 1.0}


@dataclass(frozen=True)
class Motion:
    """How what one path learned has moved. letter: f or γ. bound: the bound that it ended at, if any."""

    path: str
    letter: str
    start: float
    end: float
    still: bool
    bound: float | None

    @property
    def flag(self) -> str:
        """What a reader must know of this start, in a word or two; empty where there is nothing."""
        return "never moved" if self.still else f"stopped at its bound of {plain(self.bound)}" if self.bound else ""


def motions(record: Record, facts: Facts) -> list[Motion]:
    """Of every learned path of a record that has come to an end."""
    found = []
    for path, choice in parsed(record.candidate) or ():
        if choice.sampling and choice.sampling.learned:
            letter, start, end, bounds = "γ", choice.sampling.gamma, record.gamma.get(path), facts.gamma_bounds
        elif choice.learned:
            letter, start, end, bounds = "f", choice.f, record.f.get(path), facts.f_bounds
        else:
            continue
        if (ended := finite(end)) is not None:
            still = abs(ended - start) < NEVER_LEFT * start
            bound = next((b for b in bounds if abs(ended - b) <= _AT_BOUND * b), None)
            found.append(Motion(path, letter, start, ended, still, bound))
    return found


def setting_of(candidate: str, record: Record | None = None) -> str:
    """A candidate in words: `dilation 4 at conv6`, with f, guidance and sample stride where it has them."""
    known = parsed(candidate)
    if known is None:
        return candidate
    moved = factors(record) if record else {}
    final = dict((record.ended if record else known) or known)
    by_choice: dict[str, list[str]] = {}
    for path, choice in known:
        text = f"dilation {plain(final[path].spacing)}"
        if choice.to_find and not record:
            text += " to start from"
        if choice.layer:
            text += f" with layer {choice.layer_name}"
        f = moved.get(path, 1.0 if choice.fractional else choice.f)
        if choice.learned:
            text += f" with f = {plain(f)} learned from {plain(choice.f)}"
        elif f != 1.0:
            text += f" with f = {plain(f)}"
        if choice.sampling:
            text += f" and {sampling_of(path, choice, record)}"
        asides = []
        if choice.layer and record and path in record.dilation:
            asides.append(f"found in training from {choice.dilation}")
        elif choice.to_find:
            asides.append("found in training")
        elif record and record.heir_of:
            asides.append("reached over several trials")
        if choice.labels:
            asides.append(f"guided by {', '.join(choice.labels)}")
        if asides:
            text += f", {', '.join(asides)},"
        by_choice.setdefault(text, []).append(path)
    return "; ".join(f"{text} at {_sites(sites)}" for text, sites in by_choice.items())


def sampling_of(path: str, choice: Choice, record: Record | None) -> str:
    """A path's LS-DFN block in words."""
    assert choice.sampling
    if choice.sampling.s == 1:
        return "a dynamic filter behind it"
    gamma = finite(record.gamma.get(path)) if record else None
    learned = f" learned from {plain(choice.sampling.gamma)}" if choice.sampling.learned else ""
    size = choice.sampling.s
    return f"LS-DFN of {size} × {size} regions, γ = {plain(gamma or choice.sampling.gamma)}{learned}, behind it"


def _sites(sites: Sequence[str]) -> str:
    if len(sites) <= 3:
        return ", ".join(sites)
    return f"{sites[0]}, {sites[1]} and {len(sites) - 2} further sites"
