"""Measure how well the scores of one network, trained at no dilation, rank the trainings of every dilation.

For each data set, this is Spearman's rank correlation over the dilations with the mean validation score of an
exhaustive sweep's trainings, for two networks: one whose weights all dilations have shared for a quarter of a training
(the prelude of `fractional`), and the sweep's own winner, set to every dilation without further training.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from scipy.stats import spearmanr

from rfsearch.choices import Candidate, Searched
from rfsearch.data import ImageSet
from rfsearch.ledger import read_run
from rfsearch.ledger.manifest import read_manifest
from rfsearch.ledger.typed_json import sound
from rfsearch.networks import trained
from rfsearch.planning.plan import load_data
from rfsearch.report.view import build_view
from rfsearch.space import Space
from rfsearch.surgery import set_dilation
from rfsearch.tasks.from_space import task_of
from rfsearch.training.loop import TrainingLoop

CPU = torch.device("cpu")


def main() -> None:
    """Correlate every run's scores, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="DATASET=RUN", help="runs with exhaustive arms")
    parser.add_argument("--seeds", type=int, default=3, help="preludes of each data set")
    asked = parser.parse_args()
    rows = []
    for given in asked.runs:
        dataset, _, folder = given.partition("=")
        rows += [{"dataset": dataset, **row} for row in of_run(Path(folder), asked.seeds)]
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / "first_guess.csv", index=False)
    groups = table.groupby(["dataset", "network"], sort=False).rank_correlation
    correlations = groups.agg(["mean", "min", "max"]).round(3).T.to_dict()
    write_sidecar(
        "first_guess",
        {
            **provenance(),
            "method": " ".join((__doc__ or "").split()),
            "rank_correlation": {" ".join(map(str, key)): row for key, row in correlations.items()},
        },
    )
    print(table.to_string(index=False))


def of_run(folder: Path, seeds: int) -> list[dict]:
    """Return the rows of one run."""
    manifest = read_manifest(folder)
    space = sound(manifest.resolved_space)
    arms = {arm.seed: arm for arm in build_view(read_run(folder)).arms if arm.strategy == "exhaustive"}
    (site,), dilations = space.sites, sorted(space.dilations)
    by_dilation: dict[int, list[float]] = {d: [] for d in dilations}
    for arm in arms.values():
        for record in arm.records:
            ((_, path),) = Candidate.from_json(record.candidate)
            if record.status == "completed" and record.val is not None:
                by_dilation[path.choice.dilations[0]].append(record.val)
    means = [float(np.mean(by_dilation[d])) for d in dilations]
    rows = [row_of("trained at each", None, means, means, dilations)]
    with tempfile.TemporaryDirectory() as cache:
        data = load_data(space, sound(manifest.request).data, Path(cache))
        for seed in range(seeds):
            rows.append(row_of("shared for a quarter", seed, after_prelude(space, data, seed), means, dilations))
        for seed, arm in arms.items():
            scores = swept(folder, arm.incumbent.trial, space, data, site) if arm.incumbent else []
            rows.append(row_of("the sweep's winner", seed, scores, means, dilations))
    return rows


def row_of(network: str, seed: int | None, scores: list[float], means: list[float], dilations: list[int]) -> dict:
    """Return one row: a network's scores, and their rank correlation with the trainings' means."""
    by_dilation = {f"d={d}": round(score, 4) for d, score in zip(dilations, scores, strict=True)}
    correlation = round(float(spearmanr(scores, means).statistic), 3)
    return {"network": network, "seed": seed, "rank_correlation": correlation, **by_dilation}


def after_prelude(space: Space, data: ImageSet, seed: int) -> list[float]:
    """Return the scores of all dilations, ascending, at the rung that ends a prelude."""
    torch.manual_seed(1000 * seed)
    searched = space.uniform(Searched(min(space.dilations)))
    loop = TrainingLoop(space, data, searched, 1000 * seed, CPU)
    found: list[float] = []
    assert loop.search is not None
    shared = loop.search.shared
    look = shared.look
    shared.look = lambda step, merit: look(step, lambda d: found.append(merit(d)) or found[-1])  # type: ignore[method-assign, func-returns-value]
    for step in range(loop.prelude + 1):
        loop.train_step(step)
    return found


def swept(folder: Path, trial: str, space: Space, data: ImageSet, site: str) -> list[float]:
    """Return the scores of a trained network with its site set to every dilation, ascending."""
    model, scores = trained(folder, trial), []
    task = task_of(space, data)
    for dilation in sorted(space.dilations):
        conv = model.get_submodule(site)
        set_dilation(conv, [dilation] * len(conv.dilation))
        scores.append(task.evaluate(model, data.splits["val"], space.recipe.eval_batch_size, CPU).primary)
    return scores


if __name__ == "__main__":
    main()
