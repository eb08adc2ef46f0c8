"""Measure what a search costs besides its trainings, with trainings that are looked up in the shipped table.

    python baselines/benchmarks/scale.py --trials 1100,10000 --repeats 5

On a simulated cluster of eight nodes: seconds per trial of a search of eight arms, and of Ray Tune alone with the same
trainable and the same trials, known beforehand, and no search behind it; each once a fifth of its trials are done,
since workers import for seconds when they start. Both are repeated in turn, now one first and now the other; the table
has medians, and the least and largest overhead of a pair. In a process of its own, for more trials: seconds of
`Contest.next` and `finish` per trial, of the first tenth of all trials and of the last, the growth of its memory per
trial, the size of the ledger, and seconds to resume and to report; for those eight arms, and for one of `optuna`.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import pandas as pd
import psutil
import ray
import torch
from provenance import RESULTS, provenance, write_sidecar
from ray import tune
from ray.cluster_utils import Cluster

from rfsearch.ledger import Assignment, Cost, Record, Request
from rfsearch.orchestration import Engine, Resources
from rfsearch.orchestration.trainable import FIRST_STEP, PATIENCE, TrialTraining
from rfsearch.planning.competition import compete, contest_of
from rfsearch.planning.contest import Contest
from rfsearch.planning.directory import start_run
from rfsearch.planning.plan import Plan, make_plan, read_data
from rfsearch.planning.request import check_request
from rfsearch.replay import OneAtATime
from rfsearch.report import write

NODES = 8
STRATEGIES, SEEDS = ("exhaustive", "random", "inflation", "fractional"), 2  # eight arms


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="1100,10000", help="the first number on a cluster too, and of optuna")
    parser.add_argument("--repeats", type=int, default=5, help="of what runs on the cluster")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    counts = [int(text) for text in asked.trials.split(",")]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        searches = [(count, STRATEGIES, SEEDS) for count in counts] + [(counts[0], ("optuna",), 1)]
        for search in searches:
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                rows.append(fresh.submit(in_one_process, *search, work).result())
        rows.insert(0, on_a_cluster(counts[0], asked.repeats, work))
    pd.DataFrame(rows).round(5).to_csv(asked.results / "scale.csv", index=False)
    write_sidecar("scale", {**provenance(), "nodes": NODES, "arms": len(STRATEGIES) * SEEDS}, asked.results)
    print(pd.DataFrame(rows).to_string())


def planned(trials: int, strategies: Sequence[str], seeds: int, work: Path) -> Plan:
    """Return the plan of a search of about that many trials; a replayed one takes a 1.2th of what a sweep's takes."""
    budget = f"{1.15 * trials / (len(strategies) * seeds):.0f}x"
    request = Request("helen", strategies=tuple(strategies), seeds=seeds, budget=budget, replay="")
    checked = check_request(request)
    return make_plan(checked, read_data(checked, work), torch.device("cpu"))


def begun(plan: Plan, run_dir: Path) -> Contest:
    """Begin a run in a directory."""
    run_dir.mkdir()
    start_run(plan, run_dir, "scale.py", NODES, "cpu")
    return contest_of(plan, run_dir)


def on_a_cluster(trials: int, repeats: int, work: Path) -> dict[str, object]:
    """Return seconds per trial of our search, and of Ray Tune alone, on the same nodes and in turn."""
    plan = planned(trials, STRATEGIES, SEEDS, work)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(NODES):
        cluster.add_node(num_cpus=1)
    tried: list[Assignment] = []
    pairs: list[dict[str, float]] = []
    try:
        with Engine(cluster.address, Resources()) as engine:

            def search(place: Path, marks: Marks) -> None:
                contest = begun(plan, place)
                compete(plan, contest, place, engine, marks.note, lambda: None)
                tried[:] = [trial for arm in contest.arms for trial in arm.handed_out.values()]

            def alone(place: Path, marks: Marks) -> None:
                tune_alone(plan, tried, place, marks)

            for repeat in range(repeats):
                ours, theirs = Marks(), Marks()
                turns = [(search, work / f"cluster-{repeat}", ours), (alone, work / f"alone-{repeat}", theirs)]
                for measured, place, marks in reversed(turns) if repeat % 2 else turns:
                    measured(place, marks)
                beside = {f"ray_tune_{name}": value for name, value in theirs.per_trial().items()}
                pairs.append({**ours.per_trial(), **beside})
                print(pairs[-1], flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
    overheads = [pair["ms_a_trial"] / pair["ray_tune_ms_a_trial"] - 1 for pair in pairs]
    return {
        "where": f"{NODES} nodes on one machine",
        "trials": len(tried),
        "repeats": repeats,
        **{name: median(pair[name] for pair in pairs) for name in pairs[0]},
        "overhead": median(overheads),
        "overhead_least": min(overheads),
        "overhead_most": max(overheads),
    }


class Marks(tune.Callback):
    """Record the time, and this process's CPU time and memory, at the end of every trial."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, float, int]] = []

    def note(self, record: Record, _: object) -> None:
        """Record the end of one of our trials; one whose record says `pruned` may go on."""
        if record.status != "pruned":
            self._mark()

    def on_trial_complete(self, *_: object, **info: object) -> None:
        """Record the end of one of Ray Tune's trials."""
        self._mark()

    def _mark(self) -> None:
        process = psutil.Process()
        used = process.cpu_times()
        self._marks.append((time.perf_counter(), used.user + used.system, process.memory_info().rss))

    def per_trial(self) -> dict[str, float]:
        """Return what a trial takes once a fifth of them are done: time, and CPU time and memory of this process."""
        steady = self._marks[len(self._marks) // 5 :]
        spans = [end - begin for begin, end in zip(steady[0], steady[-1], strict=True)]
        time_s, cpu_s, memory = (span / (len(steady) - 1) for span in spans)
        return {"ms_a_trial": 1000 * time_s, "driver_cpu_ms": 1000 * cpu_s, "driver_kB": memory / 1000}


def tune_alone(plan: Plan, tried: Sequence[Assignment], work: Path, marks: Marks) -> None:
    """Let Ray Tune run the same trials, known beforehand, with nothing of ours but the trainable."""
    in_turn = sorted(tried, key=lambda trial: trial.trial.rsplit("-", 1)[1])
    configs = [{**trial.to_json(), FIRST_STEP: asdict(Cost()), PATIENCE: 600.0} for trial in in_turn]
    os.environ.pop("TUNE_MAX_PENDING_TRIALS_PG", None)  # our own setting
    trainable = tune.with_parameters(
        TrialTraining, trainings=plan.trainings, run_dir=str(work), currency="flop", resources=(1, 0)
    )
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=tune.grid_search(configs),
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(name="alone", storage_path=str(work), verbose=0, callbacks=[marks]),
    ).fit()


def in_one_process(wanted: int, strategies: Sequence[str], seeds: int, work: Path) -> dict[str, object]:
    """Return what a search costs without any engine behind it, and what becomes of its ledger."""
    plan, run_dir = planned(wanted, strategies, seeds, work), work / f"{wanted}-{len(strategies)}"
    contest, process = begun(plan, run_dir), psutil.Process()
    gc.collect()
    before, began = process.memory_info().rss, time.perf_counter()
    ends = [began]

    def note(record: Record, _: object) -> None:
        if record.status != "pruned":
            ends.append(time.perf_counter())

    compete(plan, contest, run_dir, OneAtATime(), note, lambda: None)
    search_s = time.perf_counter() - began
    gc.collect()
    grown = process.memory_info().rss - before
    trials = sum(len(arm.handed_out) for arm in contest.arms)
    tenth = max(1, len(ends) // 10)
    began = time.perf_counter()
    contest_of(plan, run_dir)
    resume_s = time.perf_counter() - began
    began = time.perf_counter()
    page = write(run_dir)
    report_s = time.perf_counter() - began
    return {
        "where": "one process" if len(strategies) > 1 else f"one process, {strategies[0]} alone",
        "trials": trials,
        "ms_a_trial": 1000 * search_s / trials,
        "first_tenth_ms": 1000 * (ends[tenth] - ends[0]) / tenth,
        "last_tenth_ms": 1000 * (ends[-1] - ends[-1 - tenth]) / tenth,
        "kB_a_trial": grown / 1000 / trials,
        "ledger_kB_a_trial": (run_dir / "ledger.jsonl").stat().st_size / 1000 / trials,
        "resume_s": resume_s,
        "report_s": report_s,
        "page_MB": page.stat().st_size / 1e6,
    }


if __name__ == "__main__":
    main()
