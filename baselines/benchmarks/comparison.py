"""Compare the strategies of one data set with its exhaustive sweep; `headline.py` says what is compared and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from anytime import Curve, curve_of, first_reached, ratio_between, reached_between
from intervals import mean_interval, standard_error
from protocol import SWEEP, DataSet, Protocol
from retrained import NAME as RETRAINED
from retrained import fixed, seeds_of, trained_in

from rfsearch.choices import Candidate
from rfsearch.direction import Direction, merit
from rfsearch.ledger import Record, incumbent, read_run
from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.ledger.typed_json import sound
from rfsearch.report.view import ArmRecords, RunView, build_view

ANY = "any"
LEARNED, FOUND = "inflation", "fractional"
PLAIN, BY_HAND = "plain training", "hand default"
Trained = Mapping[int, Sequence[Record]]
"""Trainings of one strategy, by the seed of its arm."""


@dataclass(frozen=True)
class Arms:
    """Hold what one strategy has done.

    Attributes:
        label: What tables call it.
        view: Its run.
        by_seed: Its arms.
    """

    label: str
    view: RunView
    by_seed: Mapping[int, ArmRecords]

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilations of its space."""
        return sound(self.view.run.manifest.space.dilations)

    @property
    def trained(self) -> Trained:
        """All its trainings, of the seeds that have something to answer with."""
        return {seed: arm.records for seed, arm in self.by_seed.items() if arm.incumbent}

    def trained_at(self, dilation: int) -> Trained:
        """The first training that starts at a dilation, or is there, of the seeds that have one."""
        firsts = {seed: first_at(arm.records, dilation) for seed, arm in self.by_seed.items()}
        return {seed: (first,) for seed, first in firsts.items() if first}


@dataclass(frozen=True)
class Comparison:
    """Hold the strategies of a data set, and compare them with its sweep.

    Attributes:
        dataset: What the protocol says of it.
        every: All strategies, those of the run with the sweep first.
        retrained: Trainings of outcomes from scratch, by candidate and seed of training.
        times: How often each outcome was to be trained.
    """

    dataset: DataSet
    every: Sequence[Arms]
    retrained: Mapping[tuple[str, int], Record]
    times: int

    @cached_property
    def sweep(self) -> Arms:
        """The strategy that all are compared with."""
        return next(found for found in self.every if found.label == SWEEP)

    @cached_property
    def sweeps(self) -> Trained:
        """The trainings of each seed's sweep, of the seeds that have a whole one."""
        count = len(self.sweep.dilations)
        return {seed: sweep for seed, arm in self.sweep.by_seed.items() if (sweep := sweep_of(arm.records, count))}

    @cached_property
    def arms(self) -> tuple[Arms, ...]:
        """All strategies, over the seeds that have a whole sweep."""
        return tuple(
            replace(found, by_seed={seed: arm for seed, arm in found.by_seed.items() if seed in self.sweeps})
            for found in self.every
        )

    @property
    def direction(self) -> Direction:
        """Whether a higher or a lower score is the better one."""
        return self.sweep.view.run.direction

    @cached_property
    def sweep_curves(self) -> Mapping[int, Curve]:
        """The anytime curves of the sweeps."""
        return {seed: self.curve(records) for seed, records in self.sweeps.items()}

    @cached_property
    def ends(self) -> Mapping[int, float]:
        """The merit that each sweep ends with."""
        return {seed: curve[-1][1] for seed, curve in self.sweep_curves.items()}

    @cached_property
    def sweep_flop(self) -> float:
        """The compute of a sweep, in the mean over seeds."""
        return spent(self.sweeps)

    def worth(self, record: Record) -> float:
        """Return the merit of a record's reported score."""
        return merit(getattr(record, self.sweep.view.split), self.direction)

    def curve(self, records: Sequence[Record]) -> Curve:
        """Return the anytime curve of some trainings."""
        return curve_of(records, self.direction, self.worth)

    # --- the table ---

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows of the table: of each strategy, then of the single trainings that it is to be read with."""
        for found in self.arms:
            if found.trained:
                yield self.row(found.label, ANY, found.trained)
            name = found.label.partition(",")[0]
            if name == LEARNED or (name == SWEEP and found.label != SWEEP):
                for dilation in found.dilations:
                    if trained := found.trained_at(dilation):
                        yield self.row(found.label, str(dilation), trained)
        whole = next(found for found in self.arms if found.label == SWEEP)
        for dilation in whole.dilations:
            if trained := whole.trained_at(dilation):
                if all(whole.view.is_default(one) for (one,) in trained.values()):
                    yield self.row(BY_HAND, str(dilation), trained)
                yield self.row(PLAIN, str(dilation), trained)

    def row(self, strategy: str, start: str, trained: Trained) -> dict[str, object]:
        """Return one row.

        Args:
            strategy: Its label.
            start: Where its trainings started.
            trained: Those that count for it.
        """
        curves = {seed: self.curve(records) for seed, records in trained.items()}
        reached, between = first_reached(curves, self.ends), reached_between(curves, self.ends)
        own = first_reached(self.sweep_curves, self.ends)
        apart = (reached_between(found, self.ends, 0.975) for found in (curves, self.sweep_curves))
        ends = between and (between[0] / self.sweep_flop, between[1] / self.sweep_flop)
        finals, worths = [curve[-1][1] for curve in curves.values()], self.worths(trained)
        return {
            "dataset": self.dataset.title, "strategy": strategy, "start": start, "seeds": len(trained),
            **columns(("compute_to_target", "low", "high"), reached / self.sweep_flop, ends),
            **columns(("final_score", "final_low", "final_high"), *self.mean_score(finals)),
            **columns(("retrained_score", "retrained_low", "retrained_high"), *self.mean_score([*worths.values()])),
            **columns(("of_sweeps_own", "own_low", "own_high"), reached / own, ratio_between(*apart)),
            "spent": round(spent(trained) / self.sweep_flop, 4),
        }  # fmt: skip

    def mean_score(self, merits: Sequence[float]) -> tuple[float | None, tuple[float, float] | None]:
        """Return the mean of some merits as a score, and its interval."""
        if not merits:
            return None, None
        interval = mean_interval(merits)
        low, high = sorted(merit(end, self.direction) for end in interval) if interval else (0.0, 0.0)
        return merit(float(np.mean(merits)), self.direction), (low, high) if interval else None

    def worths(self, trained: Trained) -> dict[int, float]:
        """Return what the answers of trainings are worth from scratch, by seed; nothing unless all are known."""
        found = {}
        for seed, records in trained.items():
            best = incumbent(records, self.direction)
            text = fixed(best.ended).to_json() if best and best.ended else ""
            again = [self.retrained.get((text, training)) for training in seeds_of(seed, self.times)]
            merits = [self.worth(record) for record in again if record and record.scored]
            if not merits or len(merits) < self.times:
                return {}
            found[seed] = float(np.mean(merits))
        return found

    # --- beside the table ---

    def trials(self) -> Iterator[dict[str, object]]:
        """Yield a row for every trial of the table's runs, and for every training from scratch."""
        for found in self.every:
            for seed, arm in found.by_seed.items():
                yield from (self.trial(found.label, seed, record) for record in arm.records)
        yield from (self.trial(RETRAINED, record.seed, record) for record in self.retrained.values())

    def trial(self, arm: str, seed: int, record: Record) -> dict[str, object]:
        """Return the row of one trial."""
        plain = len(Candidate.from_json(record.candidate).sites) == 1
        return {**record.row(plain), "dataset": self.dataset.title, "arm": arm, "seed": seed}

    def details(self) -> dict[str, object]:
        """Return what is written beside the table."""
        view, runs = self.sweep.view, {id(found.view): found.view.run.manifest for found in self.every}
        manifest = view.run.manifest
        bests = {found.label: {seed: arm.incumbent for seed, arm in found.by_seed.items() if arm.incumbent}
                 for found in self.arms}  # fmt: skip
        return {
            "score": f"{view.facts.metric}, {view.split}",
            "scored": self.dataset.scored,
            "commands": [sound(one.command) for one in runs.values()],
            "data": sound(manifest.data.summary),
            "budgets": [asdict(one.budget) for one in runs.values()],
            "machine": asdict(sound(manifest.machine)),
            "sweep_flop": self.sweep_flop,
            "target": self.score(float(np.mean([*self.ends.values()])) - standard_error([*self.ends.values()])),
            "scores_by_dilation": {
                str(d): [self.score(self.worth(one)) for (one,) in self.sweep.trained_at(d).values()]
                for d in self.sweep.dilations
            },
            "final_scores": {label: {str(seed): self.score(self.worth(best)) for seed, best in by_seed.items()}
                             for label, by_seed in bests.items()},
            "retrained_scores": {found.label: {str(seed): self.score(merit) for seed, merit in
                                               self.worths(found.trained).items()} for found in self.arms},
            "found": {label: {str(seed): str(best.ended) for seed, best in by_seed.items()}
                      for label, by_seed in bests.items()},
            f"{FOUND}_minus": dict(self.differences()),
        }  # fmt: skip

    def score(self, merits: float) -> float:
        """Return a merit as a score, rounded."""
        return round(merit(merits, self.direction), 4)

    def differences(self) -> Iterator[tuple[str, dict[str, list[float | None]]]]:
        """Yield by how much `fractional` scores higher than every other strategy, paired by seed, with the interval."""
        ours = next((found for found in self.arms if found.label == FOUND), None)
        for theirs in self.arms if ours else ():
            if ours and theirs is not ours:
                finals = [{seed: self.curve(records)[-1][1] for seed, records in arms.trained.items()}
                          for arms in (ours, theirs)]  # fmt: skip
                found = {"final": finals, "retrained": [self.worths(arms.trained) for arms in (ours, theirs)]}
                yield theirs.label, {what: self.difference(*both) for what, both in found.items()}

    def difference(self, ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float | None]:
        """Return the mean difference of scores paired by seed, and the ends of its interval."""
        gaps = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return [*columns(("mean", "low", "high"), *self.mean_score(gaps)).values()]


def read_comparison(dataset: DataSet, runs: Sequence[str], protocol: Protocol, work: Path) -> Comparison:
    """Read some runs of a data set; the one with the sweep must be among them."""
    views = {run: build_view(read_run(work / dataset.folder(run))) for run in runs}
    retrained = trained_in(work / dataset.folder(RETRAINED))
    return compare(dataset, views, retrained, protocol.retrainings)


def ended_runs(dataset: DataSet, work: Path) -> list[str]:
    """Return the names of the runs of a data set that have ended."""
    return [run for run in dataset.runs if has_ended(work / dataset.folder(run))]


def has_ended(run_dir: Path) -> bool:
    """Return whether a run has ended: latencies are measured when no arm trains any more."""
    if not (run_dir / LEDGER_FILE).exists():
        return False
    run = read_run(run_dir)
    return bool(run.latencies) and not run.unfinished


def compare(
    dataset: DataSet, views: Mapping[str, RunView], retrained: Mapping[tuple[str, int], Record], times: int
) -> Comparison:
    """Set up the comparison of the runs of a data set, by their names."""
    every = [
        Arms(
            dataset.label(run, strategy),
            view,
            {arm.seed: arm for arm in view.arms if arm.strategy == strategy},
        )
        for run, view in views.items()
        for strategy in view.strategies
    ]
    return Comparison(dataset, every, retrained, times)


def sweep_of(records: Sequence[Record], count: int) -> Sequence[Record]:
    """Return the trainings up to where each of `count` candidates has been trained; none where one has not."""
    trained: set[str] = set()
    for number, record in enumerate(records, start=1):
        if record.scored and record.status == "completed":
            trained.add(record.candidate)
        if len(trained) == count:
            return records[:number]
    return ()


def first_at(records: Sequence[Record], dilation: int) -> Record | None:
    """Return the first full training that has a dilation at every site, or starts there."""
    for record in records:
        paths = [path.choice.whole_dilation for _, path in Candidate.from_json(record.candidate)]
        if record.scored and record.status == "completed" and set(paths) == {dilation}:
            return record
    return None


def spent(trained: Trained) -> float:
    """Return the compute of trainings (FLOP), in the mean over seeds."""
    return float(np.mean([sum(record.cost.flop for record in records) for records in trained.values()]))


def columns(
    names: tuple[str, str, str], value: float | None, interval: tuple[float, float] | None
) -> dict[str, float | None]:
    """Return a value and its interval, rounded, by the names of their columns."""
    low, high = interval or (None, None)
    return {
        name: None if found is None else round(found, 4) for name, found in zip(names, (value, low, high), strict=True)
    }
