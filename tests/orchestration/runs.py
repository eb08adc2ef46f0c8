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


def environment(workers: int = 1) -> dict[str, str]:
    """Return the variables of a run's process, in which Ray finds as many CPUs as it is to start workers."""
    found = {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": workers})}
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **found}


def call(*words: object, workers: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=environment(workers), timeout=300)


def wait_for_events(run_dir: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    ledger = run_dir / "ledger.jsonl"
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and child.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended (code {child.poll()}) before {count} ledger events")
