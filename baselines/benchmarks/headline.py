"""Compare the training compute that each strategy needs to match an exhaustive sweep, and scores at equal full budgets.

Reads finished runs. A strategy's curve is the score of its incumbent, which validation chose, against the training
compute that its trainings had taken, in the order in which they ended, averaged over its seeds; scores are of the test
split wherever a run has one. The target is the score at which the exhaustive sweep ends, each dilation trained once and
the best kept, worse by the standard error of its mean over seeds. A strategy is compared over the seeds that it shares
with finished sweeps. Intervals hold 95 % of what paired resampling of the seeds gives; empty is never.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.choices import Candidate
from rfsearch.direction import Direction, merit
from rfsearch.ledger import Record, incumbent, read_run
from rfsearch.ledger.typed_json import sound
from rfsearch.report.view import ArmRecords, build_view

COLUMNS = ["dataset", "strategy", "start", "seeds", "compute_to_target", "low", "high", "final_score", "final_low",
           "final_high"]  # fmt: skip
RESAMPLES = 4000
ANY = "any"
Curve = list[tuple[float, float]]
"""Compute spent (FLOP) and the incumbent's merit from there on, one entry per change, in order."""


def main() -> None:
    """Compare the strategies of every data set, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="DATASET=RUN[,RUN]", help="runs of one data set, with equal budgets")
    parser.add_argument("--seeds", type=int, help="the first so many only; without, all of the sweep")
    parser.add_argument("--name", default="headline", help="of the table under results/")
    asked = parser.parse_args()
    rows, sidecar = [], {}
    for given in asked.runs:
        dataset, _, folders = given.partition("=")
        found, said = of_dataset([Path(folder) for folder in folders.split(",")], asked.seeds)
        rows += [{"dataset": dataset, **row} for row in found]
        sidecar[dataset] = said
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.to_csv(RESULTS / f"{asked.name}.csv", index=False)
    write_sidecar(asked.name, {**provenance(), "method": " ".join((__doc__ or "").split()), "datasets": sidecar})
    print(table.to_string(index=False))


def of_dataset(folders: Sequence[Path], first: int | None = None) -> tuple[list[dict], dict]:
    """Return the rows of one data set, and what is written beside them."""
    runs = [build_view(read_run(folder)) for folder in folders]
    split, direction = runs[0].split, runs[0].run.direction
    arms: dict[str, dict[int, ArmRecords]] = {}
    for run in runs:
        for arm in run.arms:
            if first is None or arm.seed < first:
                arms.setdefault(arm.strategy, {})[arm.seed] = arm
    dilations = sorted({path.choice.dilations[0] for arm in arms["exhaustive"].values() for r in arm.records
                        for _, path in Candidate.from_json(r.candidate)})  # fmt: skip

    def score(record: Record) -> float:
        return getattr(record, split)

    def worth(record: Record) -> float:
        return merit(score(record), direction)

    sweeps = {seed: arm.records[: len(dilations)] for seed, arm in arms["exhaustive"].items()
              if len(arm.records) >= len(dilations)}  # fmt: skip
    arms = {name: {seed: arm for seed, arm in by.items() if seed in sweeps} for name, by in arms.items()}
    paired = {name: sorted(by) for name, by in arms.items()}
    sweep_flop = float(np.mean([sum(r.cost.flop for r in sweep) for sweep in sweeps.values()]))
    sweep_merits = {seed: worth(best) for seed, sweep in sweeps.items() if (best := incumbent(sweep, direction))}
    curves = {(name, ANY): {seed: curve_of(arm, worth) for seed, arm in by.items()} for name, by in arms.items()}
    for name, by_seed in arms.items():
        if name.partition("@")[0] == "inflation":
            for seed, arm in by_seed.items():
                for record in first_trainings(arm):
                    at = "/".join(str(path.choice.dilations[0]) for _, path in Candidate.from_json(record.candidate))
                    curves.setdefault((name, at), {})[seed] = [(record.cost.flop, worth(record))]

    rows = []
    for (name, start), by_seed in curves.items():
        own = paired[name]
        if set(by_seed) < set(own):
            continue  # a budget that ended before every start had been tried in every arm
        reached = resampled(own, lambda drawn, by_seed=by_seed: to_target(drawn, by_seed, sweep_merits) / sweep_flop)
        final = resampled(own, lambda drawn, by_seed=by_seed: float(np.mean([by_seed[s][-1][1] for s in drawn])))
        scores = as_scores(final, direction)
        rows.append(
            {
                "strategy": name, "start": start, "seeds": len(own),
                **dict(zip(("compute_to_target", "low", "high"), map(shown, reached), strict=True)),
                **dict(zip(("final_score", "final_low", "final_high"), (round(x, 4) for x in scores), strict=True)),
            }
        )  # fmt: skip
    rows.sort(key=lambda row: (row["strategy"], row["start"] != ANY, [int(d) for d in row["start"].split("/")]
                               if row["start"] != ANY else []))  # fmt: skip
    manifest = runs[0].run.manifest
    by_dilation = {
        d: [score(r) for sweep in sweeps.values() for r in sweep
            if [path.choice.dilations[0] for _, path in Candidate.from_json(r.candidate)] == [d]]
        for d in dilations
    }  # fmt: skip
    return rows, {
        "score": f"{manifest.space.primary}, {split}",
        "commands": [run.run.manifest.command for run in runs],
        "data": manifest.data.summary,
        "budget": asdict(manifest.budget),
        "machine": asdict(sound(manifest.machine)),
        "sweep_flop": sweep_flop,
        "target": round(merit(target_of(sorted(sweeps), sweep_merits), direction), 4),
        "exhaustive_by_dilation": {
            str(d): {"mean": round(float(np.mean(v)), 4), "scores": [round(x, 4) for x in v]}
            for d, v in by_dilation.items() if v
        },
        "found": {name: {str(seed): str(answer(arm)) for seed, arm in by.items()} for name, by in arms.items()},
        "spent_of_budget": {name: [round(arm.spent.flop / sound(manifest.budget.limit), 4) for arm in by.values()]
                            for name, by in arms.items()},
        "fractional_minus": {
            other: differences([seed for seed in own if seed in arms["fractional"]], curves["fractional", ANY],
                               curves[other, ANY], direction)
            for other, own in paired.items() if other != "fractional" and "fractional" in arms
        },
    }  # fmt: skip


def curve_of(arm: ArmRecords, worth: Callable[[Record], float]) -> Curve:
    """Return the curve of an arm's incumbent."""
    curve, best, spent = [], None, 0.0
    for record in arm.records:
        spent += record.cost.flop
        if incumbent((best, record), arm.direction) is not best:
            best = record
            curve.append((spent, worth(record)))
    return curve


def first_trainings(arm: ArmRecords) -> list[Record]:
    """Return the first scored training of each candidate."""
    found: dict[str, Record] = {}
    for record in arm.records:
        if record.scored and record.status == "completed":
            found.setdefault(record.candidate, record)
    return list(found.values())


def answer(arm: ArmRecords) -> Candidate | None:
    """Return what an arm would answer with: the outcome of its incumbent."""
    best = arm.incumbent
    return best.ended if best else None


def target_of(drawn: Sequence[int], sweep_merits: Mapping[int, float]) -> float:
    """Return the sweep's mean merit less its standard error.

    The error is that of all seeds, however often each was drawn.
    """
    error = np.std(list(sweep_merits.values()), ddof=1) / math.sqrt(len(sweep_merits)) if len(sweep_merits) > 1 else 0.0
    return float(np.mean([sweep_merits[seed] for seed in drawn]) - error)


def to_target(drawn: Sequence[int], by_seed: Mapping[int, Curve], sweep_merits: Mapping[int, float]) -> float:
    """Return the compute (FLOP) at which the mean curve of the drawn seeds first reaches the target, infinite if never.

    An arm without an incumbent yet keeps the mean below every target.
    """
    target = target_of(drawn, sweep_merits)
    moments = sorted({spent for seed in drawn for spent, _ in by_seed[seed]})
    for spent in moments:
        held = [held_at(by_seed[seed], spent) for seed in drawn]
        if np.mean(held) >= target:
            return spent
    return math.inf


def held_at(curve: Curve, spent: float) -> float:
    """Return the merit of a curve once that much is spent, FLOP."""
    value = -math.inf
    for at, worth in curve:
        if at <= spent:
            value = worth
    return value


def resampled(seeds: Sequence[int], statistic: Callable[[Sequence[int]], float]) -> tuple[float, float, float]:
    """Return a statistic of the seeds, and the 95 % interval that paired resampling of them gives."""
    generator = np.random.default_rng(0)
    drawn = sorted(statistic(generator.choice(seeds, len(seeds))) for _ in range(RESAMPLES if len(seeds) > 1 else 1))
    return statistic(seeds), drawn[int(0.025 * len(drawn))], drawn[min(len(drawn) - 1, int(0.975 * len(drawn)))]


def as_scores(merits: tuple[float, float, float], direction: Direction) -> tuple[float, float, float]:
    """Return a merit and its interval as scores, the lower end of the interval first."""
    value, *ends = (merit(one, direction) for one in merits)
    return (value, min(ends), max(ends))


def differences(
    seeds: Sequence[int], ours: Mapping[int, Curve], theirs: Mapping[int, Curve], direction: Direction
) -> list[float]:
    """Subtract final scores, paired by seed: mean and 95 % interval."""
    gaps = {seed: ours[seed][-1][1] - theirs[seed][-1][1] for seed in seeds}
    found = resampled(seeds, lambda drawn: float(np.mean([gaps[s] for s in drawn])))
    return [round(x, 4) for x in as_scores(found, direction)]


def shown(value: float) -> float | None:
    """Round a number, None if it is infinite."""
    return round(value, 4) if math.isfinite(value) else None


if __name__ == "__main__":
    main()
