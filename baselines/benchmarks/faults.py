"""Do harm to a search that trains, go on with it, and hold what it reports against an undisturbed one.

    python baselines/benchmarks/faults.py --data DIR --work DIR [--only "worker killed"]

DIR of --data is camvid-240x180 in the layout of the space `folder`. One worker, a sweep of three dilations. Each fault
(`fault_kinds.py`) comes in the middle of the second training, between two of its validations; where it ends the run,
that is resumed. What has been measured is in --work and is not measured again; --only may be given several times. The
table says, for every fault: trials that are missing or there twice, the columns in which trials differ that the
undisturbed run had completed, and how many of them do, the work that was charged beyond that of these trials, in
full trainings, the work that was done and not charged, by steps that workers have counted, and by what share of its
budget an arm went over it. A lost worker's work is charged; what is lost with the driver is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from fault_kinds import FAULTS, LONGEST_S, TIMEOUT_S, Fault, Place, Running, counted_variables, environment, folder
from provenance import RESULTS, provenance, write_sidecar

from rfsearch.ledger import read_run
from rfsearch.ledger.typed_json import sound

RFSEARCH = [sys.executable, "-c", "from rfsearch.cli import main; main()"]
NETWORK = Path(__file__).with_name("counted_network.py")
BUDGET_X, STEPS, RUNGS, DILATIONS = 4.1, 90, 3, (1, 4, 8)  # room for what a fault loses, which is charged
COMPARED = ["candidate", "seed", "status", "train_flop", "val", "test"]


def main() -> None:
    """Do harm, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--space", default="camvid")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", action="append", choices=FAULTS, default=[])
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    search = ["--space", asked.space, *(["--data", asked.data] if asked.data else []), "--set"]
    search.append(f"recipe.steps={asked.steps}")
    whole = asked.work / "undisturbed"
    if not (whole / "report.html").exists():
        clear(whole)
        with folder(whole) as place:
            assert begun(search, whole, place).process.wait(LONGEST_S) == 0
    for name in asked.only or FAULTS:
        measured = asked.work / f"{file_name(name)}.json"
        if not measured.exists():
            row = {"fault": name, **after(FAULTS[name], search, asked.work / file_name(name), whole)}
            measured.write_text(json.dumps(row))
            print(json.dumps(row), flush=True)
    files = {name: asked.work / f"{file_name(name)}.json" for name in FAULTS}
    rows = [json.loads(file.read_text()) for file in files.values() if file.exists()]
    if asked.space == "camvid" and asked.steps == STEPS and len(rows) == len(FAULTS):
        pd.DataFrame(rows).to_csv(RESULTS / "faults.csv", index=False)
        write_sidecar("faults", {**provenance(), "space": "camvid mini, 3 dilations", "steps": STEPS, "rungs": RUNGS})


def file_name(name: str) -> str:
    """Return a fault's name as one of a file."""
    return name.replace(" ", "-").replace("'", "")


def clear(run_dir: Path) -> None:
    """Remove what an earlier measurement of a run has left that did not end."""
    shutil.rmtree(run_dir, ignore_errors=True)
    for file in counted_variables(run_dir).values():
        Path(file).unlink(missing_ok=True)


def after(fault: Fault, search: list[str], run_dir: Path, whole: Path) -> dict[str, object]:
    """Do harm to a run, go on with it, and hold it against the undisturbed one."""
    clear(run_dir)
    with fault.place(run_dir) as place:
        running = begun(search, run_dir, place)
        wait_for(running, run_dir)
        fault.inflict(running)
        resumed = running.process.wait(LONGEST_S) != 0
        if resumed:
            words = [*RFSEARCH, "resume", place.out, *place.words]
            subprocess.run(words, check=True, env=environment(run_dir, place), capture_output=True)
        return {"resumed": resumed, **held_against(place.find(), run_dir, whole)}


def begun(search: list[str], run_dir: Path, place: Place) -> Running:
    """Begin a search."""
    settings = {"recipe.rungs": RUNGS, "dilations": str(list(DILATIONS)).replace(" ", ""), "reference": 4}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    words = ["run", *search, *changes, "--backbone", f"{NETWORK}:counted", "--budget", f"{BUDGET_X}x", *place.words]
    words += ["--strategies", "exhaustive", "--gpus-per-trial", "0", "--trial-timeout", f"{TIMEOUT_S}s"]
    log = run_dir.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        [*RFSEARCH, *words, "--out", place.out], env=environment(run_dir, place), stdout=log, stderr=log
    )
    return Running(process, place, Path(counted_variables(run_dir)["COUNTED_HARM"]))


def wait_for(running: Running, run_dir: Path) -> None:
    """Wait until the second training has validated once, and trains on."""
    began = time.monotonic()
    while time.monotonic() - began < LONGEST_S and running.process.poll() is None:
        ledger = running.run_dir / "ledger.jsonl"
        finished = ledger.read_text().count('"event":"finish"') if ledger.exists() else 0
        if finished == 1 and any(running.run_dir.glob("checkpoints/*/progress.pt")):
            time.sleep(1.0)
            return
        time.sleep(0.1)
    raise SystemExit(f"the run ended before harm was done: {run_dir.with_suffix('.log')}")


def held_against(found: Path, run_dir: Path, whole: Path) -> dict[str, object]:
    """Hold a disturbed run, whose tables were found in a folder, against an undisturbed one."""
    ours, theirs = (pd.read_csv(folder / "trials.csv").set_index("trial") for folder in (found, whole))
    sweep = theirs.index[theirs.status == "completed"]  # one that the budget cuts is cut earlier for what was lost
    both = ours[~ours.index.duplicated()].reindex(sweep).dropna(how="all")
    same = theirs.loc[both.index]
    equal = (both[COMPARED] == same[COMPARED]) | (both[COMPARED].isna() & same[COMPARED].isna())
    differing = {column: int((~equal[column]).sum()) for column in COMPARED}
    more = both.train_flop.sum() - same.train_flop.sum()
    limit = sound(read_run(found).manifest.budget.limit)
    return {
        "trials_missing": len(sweep) - len(both),
        "trials_twice": int(ours.index.duplicated().sum()),
        "differing": " ".join(f"{column}:{count}" for column, count in differing.items() if count),
        "lost_work_charged": round(more / same.train_flop.mean(), 4),
        "uncharged_work": round(uncharged_steps(ours, theirs, run_dir) / float(theirs.steps.max()), 4),
        "over_budget": round(ours.train_flop.sum() / limit - 1, 4),
    }


def uncharged_steps(ours: pd.DataFrame, theirs: pd.DataFrame, run_dir: Path) -> float:
    """Return how many steps workers have begun beyond those that are charged, in epochs as budgets are."""
    counted = Path(counted_variables(run_dir)["COUNTED_STEPS"]).stat().st_size
    steps_an_epoch = theirs.steps.sum() / theirs.epochs.sum()
    return max(0.0, counted - float(ours.epochs.sum() * steps_an_epoch))


if __name__ == "__main__":
    main()
