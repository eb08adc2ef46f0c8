"""Runs of the command line in a process of their own, for tests."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A node whose file system has an empty folder in the place of one.
_BLIND = (
    "mount -t tmpfs none {folder} && exec {ray} start --address={address} --num-cpus=1 --block --disable-usage-stats"
)
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


def wait(until: Callable[[], object], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < give_up
        time.sleep(0.2)


def unshared() -> bool:
    """Return whether this process may give others a file system of their own."""
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"], check=False).returncode


@contextmanager
def node_without(folder: Path, address: str) -> Iterator[None]:
    """Let a node with one CPU join a cluster, in whose place of a folder there is an empty one."""
    script = _BLIND.format(folder=folder, ray=Path(sys.executable).with_name("ray"), address=address)
    node = subprocess.Popen(
        ["unshare", "-m", "bash", "-c", script], env={**os.environ, **environment()}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
