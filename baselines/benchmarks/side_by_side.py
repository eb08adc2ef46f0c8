"""Time passes side by side: forward + backward, interleaved in one process, one table of one schema.

A sample during which other processes used the machine is repeated, while patience lasts. The CPU time of one thread,
which others disturb less, is written beside the clock's. Peak memory is measured in one process per case, in its second
pass: how far its resident set grew beyond what was there before (the arguments; for a layer, its weights; the code that
a first pass loads). What is freed goes back to the system at once there, so that only what is held counts.

A benchmark names its cases and judges the table; `speed.py` runs them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor

from rfsearch.training import Meter
from rfsearch.training.memory import PeakMemory

THREADS = 2
SAMPLE_S = 0.3
SLOW_TURN = 3  # what takes longer than a sample is timed in one round of so many: it is far from every target
FOREIGN = 0.05  # CPU seconds of others per second of a sample
# glibc gives blocks as large as this back when they are freed, and keeps smaller ones for later.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}


@dataclass(frozen=True)
class Case:
    """Describe one pass.

    Attributes:
        what: What it is called.
        beside: The case that its time and memory are relative to.
        forward: Runs the forward pass.
        learns: What gets gradients.
    """

    what: str
    beside: str
    forward: Callable[[], Tensor]
    learns: Sequence[Tensor]

    def forget(self) -> None:
        """Drop all gradients."""
        for tensor in self.learns:
            tensor.grad = None

    def run(self) -> None:
        """Run forward and backward."""
        self.forget()
        output = self.forward()
        output.backward(torch.ones_like(output))


def judged(value: float, met: bool) -> dict[str, Any]:
    """Return one target: what was reached, and whether that meets it."""
    return {"reached": round(float(value), 3), "met": bool(met)}


def compare(
    name: str,
    cases: Callable[[], Sequence[Case]],
    targets: Callable[[pd.DataFrame, str], dict[str, dict[str, Any]]],
    setting: dict[str, Any],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Time a benchmark's cases and write results/NAME.csv and .json.

    Args:
        name: Name of the benchmark.
        cases: Builds its cases.
        targets: Judges the table, indexed by case, by the column of times that it is given.
        setting: What is written beside the table.
        check: Checks that the cases compute the same.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for a quiet machine, a sample")
    parser.add_argument("--peak", help="print the peak memory of one pass, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    by_name = {case.what: case for case in cases()}
    if options.peak:
        case = by_name[options.peak]
        case.run()
        case.forget()
        memory = PeakMemory(torch.device("cpu"))
        case.run()
        print(memory.bytes())
        return
    check()
    table = measured(by_name, options.rounds, options.patience)
    table.to_csv(RESULTS / f"{name}.csv", index=False)
    indexed = table.set_index("what")
    met = {"clock": targets(indexed, "median_ms"), "cpu_of_one_thread": targets(indexed, "cpu_ms_one_thread")}
    write_sidecar(
        name,
        {
            **provenance(),
            "what": "forward + backward; quartiles of samples, each the mean of some calls",
            "peak": "growth of resident memory in a second pass",
            "setting": {**setting, "dtype": "float32", "threads": THREADS, "rounds": options.rounds},
            "quiet_samples": "other processes took at most 5 % of a CPU; where there are two, only these count",
            "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
            "targets": met,
        },
    )
    print(table.to_string(index=False))
    for clock, verdicts in met.items():
        for target, verdict in verdicts.items():
            print(f"{clock:18} {target:46} {verdict['reached']:8} {'met' if verdict['met'] else 'NOT MET'}")


def measured(cases: dict[str, Case], rounds: int, patience_s: float) -> pd.DataFrame:
    """Measure all cases, and return their table."""
    calls, flop, slow = {}, {}, set()
    for name, case in cases.items():
        case.run()
        began = time.perf_counter()
        case.run()
        took = time.perf_counter() - began
        calls[name] = max(1, round(SAMPLE_S / took))
        if took > SAMPLE_S:
            slow.add(name)
        with Meter() as meter:
            case.run()
        flop[name] = meter.flop
    quiet: dict[str, list[float]] = {name: [] for name in cases}
    disturbed: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, case in cases.items():
            if name in slow and turn % SLOW_TURN:
                continue
            seconds, alone = timed(case, calls[name], patience_s)
            (quiet if alone else disturbed)[name].append(seconds * 1e3)
            cpu[name].append(cpu_ms(case))
    samples = {name: quiet[name] if len(quiet[name]) > 1 else quiet[name] + disturbed[name] for name in cases}
    medians = {name: statistics.median(values) for name, values in samples.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu.items()}
    peaks = {name: peak_bytes(name) for name in cases}
    rows = []
    for name, case in cases.items():
        several = samples[name] * 2 if len(samples[name]) == 1 else samples[name]
        low, _, high = statistics.quantiles(several, n=4, method="inclusive")
        rows.append(
            {
                "what": name,
                "beside": case.beside,
                "median_ms": round(medians[name], 1),
                "low_ms": round(low, 1),
                "high_ms": round(high, 1),
                "samples": len(samples[name]),
                "quiet_samples": len(quiet[name]),
                "cpu_ms_one_thread": round(cpu_medians[name], 1),
                "gflop": round(flop[name] / 1e9, 2),
                "peak_mib": round(peaks[name] / 2**20, 1),
                "times": round(medians[name] / medians[case.beside], 2),
                "cpu_times": round(cpu_medians[name] / cpu_medians[case.beside], 2),
                "peak_times": round(peaks[name] / peaks[case.beside], 3),
            }
        )
    return pd.DataFrame(rows)


def busy_s() -> float:
    """Return the CPU seconds that the machine has worked since it started."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def timed(case: Case, calls: int, patience_s: float) -> tuple[float, bool]:
    """Return seconds per call, and whether the machine was ours; tries until it was, or patience ends."""
    until = time.monotonic() + patience_s
    while True:
        busy, own, began = busy_s(), time.process_time(), time.perf_counter()
        for _ in range(calls):
            case.run()
        took = time.perf_counter() - began
        foreign = (busy_s() - busy) - (time.process_time() - own)
        if foreign <= FOREIGN * took + 2 / os.sysconf("SC_CLK_TCK"):
            return took / calls, True
        if time.monotonic() > until:
            return took / calls, False
        time.sleep(1)


def cpu_ms(case: Case) -> float:
    """Return the CPU time of one call on one thread, ms."""
    torch.set_num_threads(1)
    began = time.process_time()
    case.run()
    took = time.process_time() - began
    torch.set_num_threads(THREADS)
    return took * 1e3


def peak_bytes(what: str) -> int:
    """Return the peak memory of one pass, measured in a process of its own."""
    command = [sys.executable, sys.argv[0], "--peak", what]
    env = {**os.environ, **GIVEN_BACK}
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
