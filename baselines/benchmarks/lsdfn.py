"""Time and peak memory of the LS-DFN block, against a literal implementation and against plain convolutions.

Forward + backward, interleaved in one process, medians. A sample during which other processes used the machine is taken
again, while patience lasts. Peak memory is measured in a fresh process each: how far its resident set grew beyond what
was there before (the arguments; for a block, its weights).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.layers import LSDFN
from rfsearch.layers.lsdfn import dynamic_filter
from rfsearch.trial import Meter
from rfsearch.trial.memory import PeakMemory

NAME = "lsdfn"
S, K, FEATURES, OUTPUTS, SIZE, BATCH, THREADS = 5, 3, 128, 24, 63, 1, 2
LITERAL, CONVOLUTIONS = "literal, unfolded", "two 5x5 convolutions"
TARGET_SPEED, TARGET_MEMORY, TARGET_CONVOLUTIONS = 10, 1 / 5, 3
SAMPLE_S = 0.3
FOREIGN = 0.05  # CPU seconds of others per second of a sample


def literal(x: Tensor, u: Tensor, v: Tensor, s: Tensor, a: Tensor, gamma: int) -> Tensor:
    """The formula of `dynamic_filter` for a whole gamma, vectorised but as it stands: full kernels, all regions.

    Channels last throughout, which makes every copy a run of C values: with planes (F.unfold and einsum) the same took
    several times as long.
    """
    channels, height, width = x.shape[1:]
    side, taps = int(s.shape[1] ** 0.5), int(v.shape[1] ** 0.5)
    reach, field = (taps - 1) // 2, gamma * (side - 1) // 2
    pixels = F.pad(x, [reach + field] * 4).permute(0, 2, 3, 1).contiguous()
    attention = F.pad(a, [field] * 4).permute(0, 3, 4, 1, 2).contiguous()
    samples = [(row, column) for row in range(0, gamma * side, gamma) for column in range(0, gamma * side, gamma)]

    def shifted(t: Tensor, row: int, column: int) -> Tensor:
        return t[:, row : row + height, column : column + width]

    regions = [
        shifted(pixels, row + dy, column + dx) for dy in range(taps) for dx in range(taps) for row, column in samples
    ]
    stack = torch.stack(regions, 3).unflatten(3, (taps**2, side**2))  # B x H x W x k^2 x s^2 x C
    seen = torch.stack([shifted(attention, row, column) for row, column in samples], 4)  # ... x k^2 x s^2 x C'
    kernels = v.permute(0, 3, 4, 1, 2)[..., None].repeat(1, 1, 1, 1, 1, channels)  # ... x k^2 x C' x C
    kernels[:, :, :, taps**2 // 2] += u + 1 / channels
    filtered = ((1 + seen) * torch.matmul(stack, kernels.mT)).sum(3)
    return ((1 + s.permute(0, 3, 4, 1, 2)) * filtered).sum(3).permute(0, 3, 1, 2) / side**2


def arguments() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (BATCH, FEATURES, SIZE, SIZE),
        (BATCH, SIZE, SIZE, OUTPUTS, FEATURES),
        (BATCH, K * K, OUTPUTS, SIZE, SIZE),
        (BATCH, S * S, OUTPUTS, SIZE, SIZE),
        (BATCH, K * K, OUTPUTS, SIZE, SIZE),
    ]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def passes() -> dict[str, tuple[str, Callable[[], Tensor], list[Tensor]]]:
    """By name: what it is compared as, its forward pass, and the tensors that get gradients."""
    values = arguments()
    image = values[0]

    def filtering(gamma: float, learned: bool) -> tuple[str, Callable[[], Tensor], list[Tensor]]:
        stride = torch.tensor(gamma, requires_grad=learned)
        return "filtering", lambda: dynamic_filter(*values, stride), [*values, stride]

    def block(gamma: float, learned: bool) -> tuple[str, Callable[[], Tensor], list[Tensor]]:
        module = LSDFN(FEATURES, OUTPUTS, features=FEATURES, s=S, k=K, gamma=gamma, learned=learned)
        return "block", lambda: module(image), [image, *module.parameters()]

    pair = nn.ModuleList(nn.Conv2d(FEATURES, OUTPUTS, S, padding=S // 2) for _ in range(2))
    return {
        CONVOLUTIONS: ("plain", lambda: pair[0](image) + pair[1](image), [image, *pair.parameters()]),
        LITERAL: ("filtering", lambda: literal(*values, 1), values),
        "filtering, gamma 1": filtering(1.0, False),
        "filtering, gamma 4": filtering(4.0, False),
        "filtering, gamma 1.5": filtering(1.5, False),
        "filtering, gamma 1.3, learned": filtering(1.3, True),
        "block, gamma 1": block(1.0, False),
        "block, gamma 1.3, learned": block(1.3, True),
    }


def run(one: tuple[str, Callable[[], Tensor], list[Tensor]]) -> None:
    _, forward, tensors = one
    for tensor in tensors:
        tensor.grad = None
    output = forward()
    output.backward(torch.ones_like(output))


def busy_s() -> float:
    """CPU seconds that the machine has worked since it started."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def timed(one: tuple[str, Callable[[], Tensor], list[Tensor]], calls: int, patience_s: float) -> tuple[float, bool]:
    """Seconds a call, and whether the machine was ours; tries until it was, or patience ends."""
    until = time.monotonic() + patience_s
    while True:
        busy, own, began = busy_s(), time.process_time(), time.perf_counter()
        for _ in range(calls):
            run(one)
        took = time.perf_counter() - began
        foreign = (busy_s() - busy) - (time.process_time() - own)
        if foreign <= FOREIGN * took + 2 / os.sysconf("SC_CLK_TCK"):
            return took / calls, True
        if time.monotonic() > until:
            return took / calls, False
        time.sleep(1)


def cpu_ms(one: tuple[str, Callable[[], Tensor], list[Tensor]]) -> float:
    """CPU time of one call on one thread: other processes disturb it less."""
    torch.set_num_threads(1)
    began = time.process_time()
    run(one)
    took = time.process_time() - began
    torch.set_num_threads(THREADS)
    return took * 1e3


def peak_bytes(name: str) -> int:
    command = [sys.executable, __file__, "--peak", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for a quiet machine, a sample")
    parser.add_argument("--peak", help="print the peak memory of one pass, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    cases = passes()
    if options.peak:
        memory = PeakMemory(torch.device("cpu"))
        run(cases[options.peak])
        print(memory.bytes())
        return
    ours, theirs = cases["filtering, gamma 1"][1](), cases[LITERAL][1]()
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    del ours, theirs

    calls, flop = {}, {}
    for name, case in cases.items():
        run(case)
        began = time.perf_counter()
        run(case)
        calls[name] = max(1, round(SAMPLE_S / (time.perf_counter() - began)))
        with Meter() as meter:
            run(case)
        flop[name] = meter.flop
    quiet: dict[str, list[float]] = {name: [] for name in cases}
    disturbed: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, case in cases.items():
            seconds, alone = timed(case, calls[name], options.patience)
            (quiet if alone else disturbed)[name].append(seconds * 1e3)
            if name != LITERAL:
                cpu[name].append(cpu_ms(case))
    rows = []
    samples = {name: quiet[name] if len(quiet[name]) > 1 else quiet[name] + disturbed[name] for name in cases}
    reference = {name: statistics.median(samples[name]) for name in (CONVOLUTIONS, LITERAL)}
    cpu_medians = {name: statistics.median(values) if values else float("nan") for name, values in cpu.items()}
    peaks = {name: peak_bytes(name) for name in cases}
    for name, (scope, _, _) in cases.items():
        low, median, high = statistics.quantiles(samples[name], n=4)
        rows.append(
            {
                "what": name,
                "scope": scope,
                "median_ms": round(median, 1),
                "low_ms": round(low, 1),
                "high_ms": round(high, 1),
                "samples": len(samples[name]),
                "quiet_samples": len(quiet[name]),
                "gflop": round(flop[name] / 1e9, 2),
                "peak_mib": round(peaks[name] / 2**20, 1),
                "times_two_convolutions": round(median / reference[CONVOLUTIONS], 2),
                "literal_over_it": round(reference[LITERAL] / median, 1),
                "cpu_ms_one_thread": round(cpu_medians[name], 1),
                "cpu_times_two_convolutions": round(cpu_medians[name] / cpu_medians[CONVOLUTIONS], 2),
                "peak_over_literal": round(peaks[name] / peaks[LITERAL], 4),
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    by_name = table.set_index("what")
    verdict = {}
    for name in ("filtering, gamma 1", "block, gamma 1"):
        row = by_name.loc[name]
        verdict[name] = {
            "at_least_10_times_faster_than_literal": bool(row.literal_over_it >= TARGET_SPEED),
            "peak_memory_at_most_a_fifth_of_literal": bool(row.peak_over_literal <= TARGET_MEMORY),
            "at_most_3_times_two_convolutions": bool(row.times_two_convolutions <= TARGET_CONVOLUTIONS),
        }
    write_sidecar(
        NAME,
        {
            **provenance(),
            "what": "forward + backward; quartiles of samples, each the mean of some calls; resident memory growth",
            "setting": {
                **{"s": S, "k": K, "C": FEATURES, "C_out": OUTPUTS, "in_channels": FEATURES, "map": [SIZE, SIZE]},
                **{"batch": BATCH, "dtype": "float32", "threads": THREADS, "rounds": options.rounds},
            },
            "quiet_samples": "other processes took at most 5 % of a CPU; where there are two, only these count",
            "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
            "targets_met": verdict,
        },
    )
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
