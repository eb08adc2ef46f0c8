"""Compare the training compute that each strategy needs to match an exhaustive sweep, and what its answers are worth.

Reads the runs of a protocol. A strategy's curve is the score of its incumbent, which validation chose, against the
training compute that its trainings had taken, in the order in which they ended; scores are of the test split wherever
a run has one. The target is the score at which the exhaustive sweep ends, each dilation trained once and the best kept,
averaged over seeds, worse by the standard error of that mean. compute_to_target is where the strategy's mean curve
first reaches it, over the sweep's compute; of_sweeps_own that over where the sweep's own curve first does. final_score
is what the strategy holds in the end, and spent what that took, in sweeps. retrained_score is what its outcomes score
when they are trained from scratch by the plain recipe, same length and seeds for everyone: the worth of the receptive
field alone.

A start that is a dilation is one training: from there, where an inflation is learned; at it, of the sweep itself
("plain training", and at the space's reference "hand default"), and of a sweep with other trainings. It is averaged
over the seeds whose budget reached it: each tries its starts in an order of its own.

Intervals are of 95 %: Student's t of a mean over seeds; where it is a spending, the t interval of the mean difference
between the strategy's curve and the sweep's end, inverted; of two spendings, from those at 97.5 %. The table
`interval_coverage` has what they cover at so few seeds. Below 4 seeds there are none. inf is never, and empty is not
measured.

The runs themselves, manifest and ledger, stand beside the tables: those are made again from them, `report` reads them,
and a copy of them as --work is what `train.py` goes on from on another machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd
from comparison import ended_runs, read_comparison
from protocol import Protocol, read_protocol
from provenance import RESULTS, provenance, write_sidecar
from retrained import NAME as RETRAINED

from rfsearch.ledger.journal import LEDGER_FILE
from rfsearch.ledger.manifest import MANIFEST_FILE

COLUMNS = ["dataset", "strategy", "start", "seeds", "compute_to_target", "low", "high", "final_score", "final_low",
           "final_high", "retrained_score", "retrained_low", "retrained_high", "of_sweeps_own", "own_low", "own_high",
           "spent"]  # fmt: skip
TRIAL_COLUMNS = ["dataset", "arm", "seed", "trial", "status", "train_seed", "candidate", "dilation", "f", "val", "test",
                 "train_flop", "device_s", "steps"]  # fmt: skip


def main() -> None:
    """Compare the strategies of every data set of a protocol, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("protocol", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", default="", help="data sets whose key holds this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    asked = parser.parse_args()
    protocol = read_protocol(asked.protocol)
    ended = {dataset.key: ended_runs(dataset, asked.work) for dataset in protocol.datasets if asked.only in dataset.key}
    comparisons = [
        read_comparison(one, runs, protocol, asked.work) for one in protocol.datasets if (runs := ended.get(one.key))
    ]
    table = pd.DataFrame([row for found in comparisons for row in found.rows()], columns=COLUMNS)
    table.to_csv(asked.out / f"{protocol.name}.csv", index=False)
    trials = pd.DataFrame([row for found in comparisons for row in found.trials()], columns=TRIAL_COLUMNS)
    trials.to_csv(asked.out / f"{protocol.name}-trials.csv", index=False, float_format="%.6g")
    body = {
        "method": " ".join((__doc__ or "").split()),
        "protocol": f"baselines/benchmarks/{asked.protocol.name}",
        "seeds": protocol.seeds,
        "retrainings": protocol.retrainings,
        "not_run_yet": {
            one.title: left
            for one in protocol.datasets
            if (left := [run for run in one.runs if run not in ended.get(one.key, ())])
        },
        "datasets": {found.dataset.title: found.details() for found in comparisons},
    }
    write_sidecar(protocol.name, {**provenance(), **body}, asked.out)
    publish(protocol, asked.work, asked.out / f"{protocol.name}-runs")
    print(table.to_string(index=False))


def publish(protocol: Protocol, work: Path, out: Path) -> None:
    """Copy the manifest and the ledger of every run that has begun, without the folders of this machine."""
    for dataset in protocol.datasets:
        for run in (*dataset.runs, RETRAINED):
            here, there = work / dataset.folder(run), out / dataset.folder(run)
            if not (here / LEDGER_FILE).exists() or here.resolve() == there.resolve():
                continue
            there.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here / LEDGER_FILE, there / LEDGER_FILE)
            if run != RETRAINED:
                manifest = json.loads((here / MANIFEST_FILE).read_text(encoding="utf-8"))
                manifest["data"]["folder"] = dataset.images(run)
                source = Path(manifest["resolved_space"]["source"])
                manifest["resolved_space"]["source"] = (Path(source.parent.name) / source.name).as_posix()
                (there / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
