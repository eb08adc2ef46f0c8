"""Summarise a finished run for the record: one row per trial, one summary per arm, and a picture of its front."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.choices import Candidate
from rfsearch.ledger import read_run
from rfsearch.ledger.manifest import Manifest
from rfsearch.ledger.typed_json import sound
from rfsearch.report import summarise
from rfsearch.report.rows import trials_table

COLUMNS = ["trial", "strategy", "seed", "status", "candidate", "rf_px", "rf_init_px", "f", "dilation", "gamma", "val",
           "test", "train_flop", "device_s", "epochs", "infer_mac", "infer_latency_ms", "infer_peak_bytes"]  # fmt: skip


def main() -> None:
    """Write the tables and the picture of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    asked = parser.parse_args()
    run = read_run(asked.run)
    manifest, table = run.manifest, trials_table(run.records)
    table[COLUMNS].to_csv(RESULTS / f"{asked.name}.csv", index=False)
    limit, currency = sound(manifest.budget.limit), sound(manifest.budget.currency)
    spent = {"flop": "train_flop"}.get(currency, currency)
    scored = table[table.status.isin(["completed", "cut"])]
    lower = sound(manifest.space.direction) == "minimize"
    arms = []
    for (strategy, seed), rows in table.groupby(["strategy", "seed"], sort=False):
        own = scored[(scored.strategy == strategy) & (scored.seed == seed)]
        best = own.loc[own.val.idxmin() if lower else own.val.idxmax()]
        arms.append(
            {
                "strategy": strategy,
                "seed": int(seed),
                "trials": len(rows),
                "over_budget_percent": round(100 * (rows[spent].sum() / limit - 1), 2),
                "device_s": round(rows.device_s.sum(), 1),
                "best": str(Candidate.from_json(best.candidate)),
                "best_rf_px": int(best.rf_px),
                "val": round(best.val, 4),
                "test": round(best.test, 4) if pd.notna(best.test) else None,
            }
        )
    given = provenance(command=f"{manifest.command}; then summarise_run.py")
    data = {key: getattr(manifest.data, key) for key in ("summary", "notice", "rendered", "fingerprint")}
    write_sidecar(
        asked.name,
        {
            **given,
            "machine": asdict(sound(manifest.machine)),
            "versions": manifest.versions,
            "data": data,
            "space": asdict(manifest.space),
            "budget": asdict(manifest.budget),
            "workers": manifest.workers,
            "wall_s_of_trials": round(table.device_s.sum() / sound(manifest.workers), 1),
            "arms": arms,
            "strategies": over_seeds(pd.DataFrame(arms), lower),
            "verdict": list(summarise(run).sentences),
        },
    )
    picture(table[table.status == "completed"], manifest, lower, asked.name)


def over_seeds(arms: pd.DataFrame, lower: bool) -> list[dict]:
    """Average each strategy's incumbents over its seeds, best first, with the standard deviation."""
    table = arms.groupby("strategy", sort=False).agg(
        seeds=("seed", "size"), val=("val", "mean"), test=("test", "mean"), test_std=("test", "std"),
        best_rf_px=("best_rf_px", list), device_s=("device_s", "sum"),
    )  # fmt: skip
    rows = table.round(4).sort_values("val", ascending=lower).reset_index().to_dict("records")
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def picture(completed: pd.DataFrame, manifest: Manifest, lower: bool, name: str) -> None:
    """Draw score against receptive field and against measured latency, the front as a line."""
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
    labels = {"rf_px": "receptive field (px)", "infer_latency_ms": "latency of one image (ms)"}
    for axes, column in zip(both, labels, strict=True):
        for strategy, rows in completed.groupby("strategy", sort=False):
            axes.scatter(rows[column], rows.val, label=strategy, s=26)
        front = completed.sort_values([column, "val"], ascending=[True, lower])
        merits = -front.val if lower else front.val
        front = front[merits > merits.cummax().shift(fill_value=float("-inf"))]
        axes.step(front[column], front.val, where="post", color="black", lw=0.8, label="front")
        axes.set_xlabel(labels[column])
    both[0].set_ylabel(f"{manifest.space.primary}, validation")
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.suptitle(sound(manifest.data.summary), fontsize=9)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
