"""Do harm to a search that trains, go on with it, and hold what it reports against an undisturbed one.

    python baselines/benchmarks/faults.py --data DIR --work DIR

DIR of --data is camvid-240x180 in the layout of the space `folder`. One worker, a sweep of three dilations. Each fault
comes in the middle of the second training, between two of its validations; where it ends the run, that is resumed. The
table says, for every fault: trials that are missing, that are there twice, whose scores differ from the undisturbed
run's in any digit, training FLOP that were lost and charged, and by what share of its budget an arm went over it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.ledger import read_run
from rfsearch.ledger.typed_json import sound

RFSEARCH = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
BUDGET_X, STEPS, RUNGS = 4.1, 90, 3  # room for what a fault loses, which is charged
WAIT_S = 600


@dataclass
class Running:
    """Hold a search in training.

    Attributes:
        process: Its driver.
        run_dir: Its directory.
    """

    process: subprocess.Popen[bytes]
    run_dir: Path

    @property
    def worker(self) -> psutil.Process:
        """The process that trains."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if any("ResourceTrainable" in part for part in child.cmdline()))

    @property
    def ray(self) -> list[psutil.Process]:
        """The driver's own processes."""
        return psutil.Process(self.process.pid).children(recursive=True)


def kill_worker(running: Running) -> None:
    """End the process that trains."""
    running.worker.kill()


def kill_driver(running: Running) -> None:
    """End the driver and all that it has started."""
    for process in [*running.ray, psutil.Process(running.process.pid)]:
        process.kill()


def interrupt(running: Running) -> None:
    """Press Ctrl-C."""
    running.process.send_signal(signal.SIGINT)


def kill_raylet(running: Running) -> None:
    """End Ray's own process."""
    next(child for child in running.ray if child.name() == "raylet").kill()


def hang_worker(running: Running) -> None:
    """Stop the process that trains for a while; it is not dead."""
    worker = running.worker
    worker.suspend()
    time.sleep(20)
    worker.resume()


def damage_checkpoint(running: Running) -> None:
    """End everything, and leave half of the checkpoint."""
    kill_driver(running)
    (file,) = running.run_dir.glob("checkpoints/*/progress.pt")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def tear_ledger(running: Running) -> None:
    """End everything in the middle of a line of the ledger."""
    kill_driver(running)
    with (running.run_dir / "ledger.jsonl").open("ab") as file:
        file.write(b'{"event":"finish","trial":"exhau')


def set_clock_back(running: Running) -> None:
    """Set the times of all files of the run back by a day, as after a clock that jumped."""
    kill_driver(running)
    for file in running.run_dir.rglob("*"):
        before = file.stat().st_mtime - 86400
        os.utime(file, (before, before))


FAULTS: dict[str, Callable[[Running], None]] = {
    "worker killed": kill_worker,
    "driver and workers killed": kill_driver,
    "Ctrl-C": interrupt,
    "Ray's raylet killed": kill_raylet,
    "worker stopped for 20 s": hang_worker,
    "checkpoint cut in half": damage_checkpoint,
    "ledger torn in a line": tear_ledger,
    "files a day old": set_clock_back,
}


def main() -> None:
    """Do harm, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    asked = parser.parse_args()
    whole = asked.work / "undisturbed"
    if not whole.exists():
        begun(asked.data, whole).process.wait(WAIT_S)
    rows = []
    for name, harm in FAULTS.items():
        run_dir = asked.work / name.replace(" ", "-").replace("'", "")
        shutil.rmtree(run_dir, ignore_errors=True)
        running = begun(asked.data, run_dir)
        wait_for(running)
        harm(running)
        ended = running.process.wait(WAIT_S)
        resumed = ended != 0
        if resumed:
            subprocess.run([*RFSEARCH, "resume", str(run_dir)], check=True, env=environment(), capture_output=True)
        rows.append({"fault": name, "resumed": resumed, **held_against(run_dir, whole)})
        print(json.dumps(rows[-1]), flush=True)
    pd.DataFrame(rows).to_csv(RESULTS / "faults.csv", index=False)
    write_sidecar("faults", {**provenance(), "space": "camvid mini, 3 dilations", "steps": STEPS, "rungs": RUNGS})


def environment() -> dict[str, str]:
    """Return the variables of a driver whose Ray has one worker."""
    return {**os.environ, "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 1}), "OMP_NUM_THREADS": "1"}


def begun(data: str, run_dir: Path) -> Running:
    """Begin a search."""
    settings = {"recipe.steps": STEPS, "recipe.rungs": RUNGS, "dilations": "[1,4,8]", "reference": 4}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = ["run", "--space", "camvid", "--data", data, *changes, "--budget", f"{BUDGET_X}x"]
    words += ["--strategies", "exhaustive", "--gpus-per-trial", "0", "--out", str(run_dir)]
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    log = run_dir.with_suffix(".log").open("wb")
    return Running(subprocess.Popen([*RFSEARCH, *words], env=environment(), stdout=log, stderr=log), run_dir)


def wait_for(running: Running) -> None:
    """Wait until the second training has validated once, and trains on."""
    began = time.monotonic()
    while time.monotonic() - began < WAIT_S and running.process.poll() is None:
        ledger = running.run_dir / "ledger.jsonl"
        finished = ledger.read_text().count('"event":"finish"') if ledger.exists() else 0
        if finished == 1 and any(running.run_dir.glob("checkpoints/*/progress.pt")):
            time.sleep(1.0)
            return
        time.sleep(0.1)
    raise SystemExit(f"the run ended before harm was done: {running.run_dir.with_suffix('.log')}")


def held_against(run_dir: Path, whole: Path) -> dict[str, object]:
    """Hold a disturbed run against an undisturbed one."""
    ours, theirs = (pd.read_csv(folder / "trials.csv").set_index("trial") for folder in (run_dir, whole))
    both = ours.index.intersection(theirs.index)
    completed = [trial for trial in both if theirs.status[trial] == "completed"]
    differing = [t for t in completed if ours.val[t] != theirs.val[t] or ours.test[t] != theirs.test[t]]
    limit = sound(read_run(run_dir).manifest.budget.limit)
    more = ours.train_flop[completed].sum() - theirs.train_flop[completed].sum()
    return {
        "trials_missing": len(set(completed) - set(ours.index)) + sum(theirs.status == "completed") - len(completed),
        "trials_twice": int(ours.index.duplicated().sum()),
        "scores_differing": len(differing),
        "lost_work_charged": round(more / theirs.train_flop[completed].mean(), 4),
        "over_budget": round(ours.train_flop.sum() / limit - 1, 4),
    }


if __name__ == "__main__":
    main()
