"""Compare sizes of a learned f's step: where one training ends from every start, and what it scores on validation.

Reads the runs of `f_step.toml`. `ended_px` is how far apart the taps of the answer lie, px of the map: the start over
f. `of_best` is that over the best dilation of the sweep, and `gap` the training's score minus that of the best
dilation. All are means over seeds, those of distances geometric.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from comparison import LEARNED, first_at
from protocol import SWEEP, DataSet, read_protocol
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.ledger import Record, read_run
from rfsearch.ledger.typed_json import sound
from rfsearch.report.view import RunView, build_view

PLAIN = "plain training"


def trainings(view: RunView, strategy: str) -> Mapping[int, Sequence[Record]]:
    """Return the first training at, or from, every dilation of the space, one for each seed that has it."""
    arms = [arm.records for arm in view.arms if arm.strategy == strategy]
    every = {d: [first_at(records, d) for records in arms] for d in sound(view.run.manifest.space.dilations)}
    return {d: [record for record in found if record] for d, found in every.items() if any(found)}


def rows(dataset: DataSet, work: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for every dilation of the sweep, and for every start of every step."""
    views = {step: build_view(read_run(work / dataset.folder(step))) for step in dataset.runs}
    plain = trainings(views[dataset.first], SWEEP)
    best = max(plain, key=lambda d: score(plain[d]))
    arms = {PLAIN: plain, **{step: trainings(view, LEARNED) for step, view in views.items()}}
    for step, found in arms.items():
        for start, records in found.items():
            ended = float(np.exp(np.mean(np.log([distance(record) for record in records]))))
            yield {
                "dataset": dataset.title,
                "f_step": step,
                "start": start,
                "seeds": len(records),
                "ended_px": round(ended, 2),
                "of_best": round(ended / best, 3),
                "val": round(score(records), 4),
                "gap": round(score(records) - score(plain[best]), 4),
            }


def score(records: Sequence[Record]) -> float:
    """Return the mean validation score."""
    return float(np.mean([sound(record.val) for record in records]))


def distance(record: Record) -> float:
    """Return how far apart the taps lie that a training ended with, px of the map."""
    row = record.row(plain=True)
    return float(row["dilation"]) / float(row["f"] or 1)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    asked = parser.parse_args()
    protocol = read_protocol(asked.protocol)
    table = pd.DataFrame([row for dataset in protocol.datasets for row in rows(dataset, asked.work)])
    table.to_csv(RESULTS / f"{protocol.name}.csv", index=False)
    of = table[table.f_step != PLAIN].groupby(["dataset", "f_step"])
    body = {
        "method": " ".join((__doc__ or "").split()),
        "protocol": f"baselines/benchmarks/{asked.protocol.name}",
        "mean_gap": {" ".join(key): round(gap, 4) for key, gap in of.gap.mean().items()},
    }
    write_sidecar(protocol.name, {**provenance(), **body})
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
