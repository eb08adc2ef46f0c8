"""Measure whether loss guidance tells parallel paths apart.

Two and three paths on rendered faces start alike, with the paper's label sets (Wei eq. 12) and without: f of every path
over the steps, the `helen` mini preset.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar

from rfsearch import plugins
from rfsearch.choices import Inflated, SitePath
from rfsearch.ledger import Assignment
from rfsearch.planning.plan import load_data
from rfsearch.space import read_space
from rfsearch.training import Order, Training

NAME = "guidance_drift"
STARTS = (2, 4, 8)


def trained(job: tuple[str, int, float, int]) -> pd.DataFrame:
    """Train once, and return f of every path by step.

    Args:
        job: Preset, initial dilation, W, seed. W = 1 is no guidance.
    """
    form, dilation, weight, seed = job
    torch.set_num_threads(1)
    space = read_space(plugins.space_file("helen"), form)
    space = space.with_(recipe=space.recipe.model_copy(update={"guidance_weight": weight}))
    assert space.path_set
    start = Inflated(dilation, learned=True)
    candidate = space.uniform([SitePath(start, labels) for labels in space.path_set.labels])
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(space, None, Path(folder))
        assignment = Assignment("t", "inflation", seed, candidate.to_json(), seed, float("inf"))
        training = Training(space, data, Order(assignment, "flop", torch.device("cpu"), Path(folder)))
        while (record := training.advance()).status == "pruned":
            pass
    table = pd.DataFrame(record.trace, columns=["step", "path", "f"])
    known = {"form": form, "start": dilation, "weight": weight, "seed": seed, "val": record.val}
    print(*known.values(), *(f"{value:.4f}" for value in record.f.values()), flush=True)
    return table.assign(**known)


def main() -> None:
    """Train every combination, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 1.2])
    asked = parser.parse_args()
    jobs = [
        (form, start, weight, seed)
        for seed in range(asked.seeds)
        for form in ("bi", "tri")
        for start in STARTS
        for weight in asked.weights
    ]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        table = pd.concat(pool.map(trained, jobs), ignore_index=True)
    table["path"] = table.path.str.rpartition("/")[2].astype(int)
    table = table[table.step % 5 == 0]
    table.round(6).to_csv(RESULTS / f"{NAME}.csv", index=False)
    ends = table[table.step == table.step.max()]
    keys = ["form", "start", "weight", "seed"]
    apart = ends.groupby(keys).f.agg(lambda f: f.max() - f.min()).rename("apart").reset_index()
    write_sidecar(
        NAME,
        {
            **provenance(),
            "apart": "largest difference in f between two paths after the last step",
            "rows": apart.merge(ends.groupby(keys).val.first().reset_index()).round(6).to_dict("records"),
        },
    )
    picture(table, asked.weights)


def picture(table: pd.DataFrame, weights: list[float]) -> None:
    """Draw f of every path over the training, without and with guidance."""
    from matplotlib import pyplot as plt

    table = table[table.seed == table.seed.min()]
    figure, grid = plt.subplots(2, len(weights), figsize=(3.4 * len(weights), 5.6), layout="constrained", sharey="row")
    for row, form in zip(grid, ("bi", "tri"), strict=True):
        for axes, weight in zip(row, weights, strict=True):
            shown = table[(table.form == form) & (table.weight == weight)]
            for (start, path), line in shown.groupby(["start", "path"]):
                style = ("-", "--", ":")[path - 1]
                label = f"path {path}" if start == STARTS[0] else None
                axes.plot(line.step, line.f, style, color=f"C{STARTS.index(start)}", label=label)
            guided = "without guidance" if weight == 1 else f"W = {weight:g}"
            axes.set(title=f"{len(set(table[table.form == form].path))} paths, {guided}", xlabel="step")
        row[0].set_ylabel("inflation factor f")
        row[0].legend(frameon=False)
    starts = ", ".join(f"{d} (C{i})" for i, d in enumerate(STARTS))
    colours = {"C0": "blue", "C1": "orange", "C2": "green"}
    for code, colour in colours.items():
        starts = starts.replace(code, colour)
    figure.suptitle(f"Rendered faces; all paths start alike, from dilation {starts}", fontsize=10)
    figure.savefig(RESULTS / f"{NAME}.png", dpi=120)


if __name__ == "__main__":
    main()
