"""Measure score against dilation on rendered faces: every dilation of the `helen` mini preset, with several seeds.

Says whether the best dilation lies inside the searched range, and how the spread between dilations compares with the
standard deviation between seeds. Chosen and judged on the validation split; the test split is reported.
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
from rfsearch.choices import Dilated
from rfsearch.ledger import Assignment
from rfsearch.planning.plan import load_data
from rfsearch.space import read_space
from rfsearch.training import Order, Training

NAME = "rendered_faces_spread"


def trained(job: tuple[int, int]) -> dict[str, object]:
    """Train one dilation with one seed fully, on one core."""
    dilation, seed = job
    torch.set_num_threads(1)
    space = read_space(plugins.space_file("helen"), None)
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(space, None, Path(folder))
        assignment = Assignment("t", "exhaustive", seed, space.uniform(Dilated(dilation)).to_json(), seed, float("inf"))
        training = Training(space, data, Order(assignment, "flop", torch.device("cpu"), Path(folder)))
        while (record := training.advance()).status == "pruned":
            pass
    print(f"dilation {dilation}, seed {seed}: val {record.val:.4f}, {record.cost.device_s:.0f} s", flush=True)
    return {"dilation": dilation, "rf_px": record.rf_px, "seed": seed, "val": record.val, **record.scores}


def main() -> None:
    """Train every dilation, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    space = read_space(plugins.space_file("helen"), None)
    jobs = [(dilation, seed) for seed in seeds for dilation in space.dilations]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        table = pd.DataFrame(pool.map(trained, jobs)).sort_values(["dilation", "seed"])
    table.round(6).to_csv(RESULTS / f"{NAME}.csv", index=False)
    by_dilation = table.groupby(["dilation", "rf_px"]).val.agg(["mean", "std"]).reset_index()
    best = by_dilation.loc[by_dilation["mean"].idxmax()]
    spread = by_dilation["mean"].max() - by_dilation["mean"].min()
    noise = float((by_dilation["std"] ** 2).mean() ** 0.5)
    write_sidecar(
        NAME,
        {
            **provenance(),
            "score": "f_classmean_pooled on the validation split",
            "seeds": len(seeds),
            "best_dilation": int(best.dilation),
            "best_rf_px": int(best.rf_px),
            "optimum_is_interior": bool(min(space.dilations) < best.dilation < max(space.dilations)),
            "spread_between_dilations": round(float(spread), 4),
            "pooled_standard_deviation_between_seeds": round(noise, 4),
            "spread_over_standard_deviation": round(float(spread) / noise, 1),
            "by_dilation": by_dilation.round(4).to_dict("records"),
        },
    )
    picture(table, by_dilation)


def picture(table: pd.DataFrame, by_dilation: pd.DataFrame) -> None:
    """Draw the scores over the receptive field."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.scatter(table.rf_px, table.val, s=14, alpha=0.5, label="one training")
    axes.plot(by_dilation.rf_px, by_dilation["mean"], marker="o", label="mean over seeds")
    for row in by_dilation.itertuples():
        axes.annotate(f"d={row.dilation}", (row.rf_px, row.mean), (0, 8), textcoords="offset points", ha="center")
    axes.set(xlabel="receptive field (px)", ylabel="mean F of classes, validation", title="Rendered faces, 96 x 96 px")
    axes.margins(y=0.15)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(RESULTS / f"{NAME}.png", dpi=120)


if __name__ == "__main__":
    main()
