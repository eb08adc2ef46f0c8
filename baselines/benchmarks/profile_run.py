"""Measure where the time of a trial and of a whole run goes.

A trial: one training of the hand default on one thread, as a worker that has trained before trains it, its stages timed
one inside the other. A run: `rfsearch run` in a process of its own, its ledger watched from outside: what of the wall
time was training, and what a trial takes besides, from being handed out to its record, on a fresh worker and on one
that has trained before.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.data.batches import Batches
from rfsearch.ledger import Assignment, Request
from rfsearch.ledger.manifest import read_manifest
from rfsearch.ledger.typed_json import sound
from rfsearch.planning.plan import load_data
from rfsearch.planning.request import check_request
from rfsearch.tasks.segmentation import Segmentation
from rfsearch.training import Order, Training
from rfsearch.training.evaluation import Evaluation
from rfsearch.training.loop import TrainingLoop

OPTIMISING = "forward, backward and optimiser steps"
STAGES: dict[str, tuple[type, str]] = {
    OPTIMISING: (TrainingLoop, "_optimise"),
    "training batches": (Batches, "at"),
    "scoring validation and test": (Segmentation, "evaluate"),
    "inference cost": (Evaluation, "weigh"),
    "building the network": (TrainingLoop, "__init__"),
    "receptive field": (Training, "_fields"),
    "example pictures": (Evaluation, "pictures"),
}
TARGET_BUSY, TARGET_OVERHEAD, TARGET_WARM_S = 0.85, 0.10, 0.5
POLL_S = 0.01


def main() -> None:
    """Profile a trial and a run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="helen")
    parser.add_argument("--data")
    parser.add_argument("--budget", help="of the run; the space's own without")
    asked = parser.parse_args()
    rows = profile_trial(asked.space, asked.data)
    run = profile_run(asked.space, asked.data, asked.budget)
    name = f"profile-{asked.space}"
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"{name}.csv", index=False)
    busy = float(table.set_index("stage").share[OPTIMISING])
    write_sidecar(
        name,
        {
            **provenance(),
            "run": run,
            "targets": {
                "85_percent_of_a_trial_is_optimising": {"reached": busy, "met": busy >= TARGET_BUSY},
                "orchestration_at_most_10_percent_of_the_run": {
                    "reached": run["not_training_share"], "met": run["not_training_share"] <= TARGET_OVERHEAD,
                },
                "a_second_trial_starts_within_half_a_second": {
                    "reached": run["warm_start_s"], "met": run["warm_start_s"] < TARGET_WARM_S,
                },
            },
        },
    )  # fmt: skip
    print(table.to_string(index=False))
    print(json.dumps(run, indent=1))


def profile_trial(space_name: str, folder: str | None) -> list[dict[str, Any]]:
    """Measure the seconds of each stage of one training, without those of the stages inside it."""
    torch.set_num_threads(1)
    space = check_request(Request(space_name, data=folder)).space
    spent: dict[str, float] = defaultdict(float)
    inside: list[float] = []  # of the stages that are running, what the stages inside them took

    def timed(stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            inside.append(0.0)
            try:
                return method(*args, **options)
            finally:
                took = time.perf_counter() - began
                spent[stage] += took - inside.pop()
                if inside:
                    inside[-1] += took

        return run

    originals = {stage: getattr(owner, name) for stage, (owner, name) in STAGES.items()}
    with tempfile.TemporaryDirectory() as scratch:
        data = load_data(space, folder, Path(scratch))
        TrainingLoop(space, data, space.default_candidate, 0, torch.device("cpu"))  # imports what the first one imports
        for stage, (owner, name) in STAGES.items():
            setattr(owner, name, timed(stage, originals[stage]))
        try:
            candidate = space.default_candidate.to_json()
            assignment = Assignment("profiled", "profile", 0, candidate, 0, float("inf"))
            began = time.perf_counter()
            training = Training(space, data, Order(assignment, "flop", torch.device("cpu"), Path(scratch) / "trial"))
            while training.advance().status == "pruned":
                pass
            whole = time.perf_counter() - began
        finally:
            for stage, (owner, name) in STAGES.items():
                setattr(owner, name, originals[stage])
    rows = [{"stage": stage, "s": round(spent[stage], 3), "share": round(spent[stage] / whole, 4)} for stage in STAGES]
    rest = whole - sum(spent.values())
    return [*rows, {"stage": "everything else", "s": round(rest, 3), "share": round(rest / whole, 4)}]


def profile_run(space: str, folder: str | None, budget: str | None) -> dict[str, Any]:
    """Measure where the time of a run goes."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        asked = ["run", "--space", space, *(["--data", folder] if folder else []),
                 *(["--budget", budget] if budget else [])]  # fmt: skip
        command = [sys.executable, "-c", "from rfsearch.cli import main; main()", *asked, "--out", str(out)]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        events = watched(process, out / "ledger.jsonl")
        wall = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}")
        manifest = read_manifest(out)
    workers = sound(manifest.workers)
    started = {event["trial"]: at for at, event in events if event["event"] == "start"}
    waits, training = [], 0.0
    for at, event in events:
        if event["event"] == "finish":
            device_s = event["cost"]["device_s"]
            training += device_s
            waits.append(at - started[event["trial"]] - device_s)
    return {
        "command": shlex.join(["rfsearch", *asked]),
        "wall_s": round(wall, 1),
        "workers": workers,
        "trials": len(waits),
        "training_s": round(training, 1),
        "until_the_first_trial_s": round(min(started.values()) - began, 1),
        "after_the_last_trial_s": round(began + wall - max(at for at, _ in events), 1),
        "not_training_share": round((wall - training / workers) / wall, 4),
        "fresh_start_s": round(statistics.median(waits[:workers]), 2),
        "warm_start_s": round(statistics.median(waits[workers:]), 2),
        "warm_start_longest_s": round(max(waits[workers:]), 2),
    }


def watched(process: subprocess.Popen[bytes], ledger: Path) -> list[tuple[float, dict[str, Any]]]:
    """Read the lines of a ledger as they are written, each with the moment at which it was there."""
    events, text = [], ""
    while True:
        ended = process.poll() is not None
        now = time.monotonic()
        if ledger.is_file():
            whole = ledger.read_text(encoding="utf-8")
            for line in whole[len(text) :].splitlines(keepends=True):
                if not line.endswith("\n"):
                    break
                text += line
                events.append((now, json.loads(line)))
        if ended:
            return events
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
