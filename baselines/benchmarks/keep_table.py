"""Keep what `rfsearch reproduce TABLE --json` printed, with the command, commit, machine and versions that gave it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.ledger import read_run
from rfsearch.ledger.typed_json import sound


def main() -> None:
    """Write the table, and beside it what gave it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what --out named")
    parser.add_argument("printed", type=Path, help="file with the JSON that the command printed")
    asked = parser.parse_args()
    body = json.loads(asked.printed.read_text(encoding="utf-8"))
    runs = [read_run(path.parent) for path in sorted(asked.folder.glob("*/manifest.json"))]
    name = f"reproduce-{body['table']}"
    rows = [
        {
            "row": row["label"],
            "trainings": row["trainings"],
            "why": row["why"],
            "not_followed": " ".join(row["not_followed"]),
        }
        | {f"{column}_{side}": value for side in ("printed", "measured") for column, value in row[side].items()}
        for row in body["rows"]
    ]
    pd.DataFrame(rows).round(4).to_csv(RESULTS / f"{name}.csv", index=False)
    costs = {
        candidate: {"flop": record.cost.flop, "device_s": round(record.cost.device_s, 1)}
        for run in runs
        for record in run.records
        for candidate in [f"{run.manifest.space.backbone} {record.candidate}"]
    }
    given = provenance(command=f"{runs[0].manifest.command}; then keep_table.py")
    kept = {key: body[key] for key in ("title", "cite", "note", "metric", "not_followed")}
    machine = {"machine": asdict(sound(runs[0].manifest.machine)), "versions": runs[0].manifest.versions}
    write_sidecar(name, {**given, **machine, **kept, "data": runs[0].manifest.data.summary, "cost": costs})


if __name__ == "__main__":
    main()
