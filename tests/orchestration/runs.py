"""Runs of the command line in a process of their own, for tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAME = ["trial", "candidate", "seed", "status", "train_flop"]


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from rfsearch.cli import main; main()", *map(str, words)]


def environment(cpus: int | None = None) -> dict[str, str]:
    """Return the variables of a run's process, in which Ray finds so many CPUs, None: as many as there are.

    With one there is one worker, of one thread: a worker of several loses more by waiting for them than it gains.
    """
    found = {} if cpus is None else {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": cpus})}
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **found}


def call(*words: object, cpus: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=environment(cpus), timeout=300)


def one_worker() -> list[object]:
    """Options that leave room for a single trial at a time, of as many threads as there are CPUs."""
    return ["--cpus-per-trial", len(os.sched_getaffinity(0))]


def wait_for_events(run_dir: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    ledger = run_dir / "ledger.jsonl"
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and child.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended (code {child.poll()}) before {count} ledger events")
