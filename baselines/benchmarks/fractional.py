"""Time and peak memory of a convolution at a real dilation, against a plain one, the paper's inflation and deformable
convolution with constant offsets.

Forward + backward, interleaved in one process, medians; samples, patience and peak memory as in lsdfn.py. The time of
one thread's CPU, which other processes disturb less, stands beside the clock's. All layers of one setting do the same
job: taps `dilation` px apart on the same map, and where one learns, with the gradient in what it learns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pandas as pd
import torch
from lsdfn import SAMPLE_S, THREADS, cpu_ms, run, timed
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from rfsearch.layers import FractionalConv2d, inflate, interpolate
from rfsearch.trial import Meter
from rfsearch.trial.memory import PeakMemory

NAME = "fractional"
BATCH, INPUTS, OUTPUTS, SIZE, K = 2, 128, 256, 63, 3
DILATIONS = [0.7, 1.3, 1.5, 2.5, 5.5, 12.7]
FLAT = [1.3, 1.5, 2.5, 5.5, 12.7]  # to be within SPREAD of each other
INFLATIONS = [1.5, 2.0, 3.0]  # of a convolution of dilation 4: what dilations 2.67, 2 and 1.33 see
TARGET_EXACT, TARGET_CHEAP, SPREAD = 4.0, 2.2, 1.15
TARGET_DEFORMABLE, TARGET_INFLATION, TARGET_MEMORY = 3.0, 5.0, 1 / 4

SLOW_TURN = 3  # what takes longer than a sample is timed in one round of so many: it is far from every target

Case = tuple[str, Callable[[], Tensor], list[Tensor]]


def passes() -> dict[str, Case]:
    """By name: the plain convolution that it is compared with, its forward pass, and what gets gradients."""
    torch.manual_seed(0)
    image = torch.randn(BATCH, INPUTS, SIZE, SIZE, requires_grad=True)
    cases: dict[str, Case] = {}

    def conv(k: int, d: int, outputs: int = OUTPUTS, groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(INPUTS, outputs, k, padding=d * (k - 1) // 2, dilation=d, groups=groups)

    def plain(setting: str, layer: nn.Conv2d) -> str:
        name = f"plain{setting}, dilation {layer.dilation[0]}"
        cases.setdefault(name, (name, lambda: layer(image), [image, *layer.parameters()]))
        return name

    def ours(setting: str, k: int, delta: float, learned: bool = True, outputs: int = OUTPUTS, groups: int = 1) -> None:
        base = conv(k, max(1, round(delta)), outputs, groups)
        layer = FractionalConv2d(base, delta, learned)
        name = f"fractional{setting}, dilation {delta}{'' if learned else ', fixed'}"
        cases[name] = (plain(setting, base), lambda: layer(image), [image, *layer.parameters()])

    for delta in DILATIONS:
        ours("", K, delta)
    ours("", K, 2.0)
    ours("", K, 2.0, learned=False)

    layer, delta = conv(K, 2), torch.tensor(2.5, requires_grad=True)
    near = plain("", layer)
    cases["four convolutions, dilation 2.5"] = (
        near,
        lambda: four_convolutions(image, layer, delta),
        [image, *layer.parameters(), delta],
    )
    offsets = constant_offsets(2.5)
    cases["deformable, constant offsets, dilation 2.5"] = (
        near,
        lambda: deform_conv2d(image, offsets, layer.weight, layer.bias, padding=1),
        [image, *layer.parameters()],
    )
    wide = conv(K, 4)
    for f in INFLATIONS:
        factor = torch.tensor(f, requires_grad=True)

        def inflated(factor: Tensor = factor) -> Tensor:
            return interpolate(wide(inflate(image, factor)), factor, 1, (SIZE, SIZE))

        cases[f"inflation, f {f}"] = (plain("", wide), inflated, [image, *wide.parameters(), factor])
        ours("", K, round(4 / f, 2)) if f != 2 else None

    for delta in (2.5, 6.5):
        ours(" depthwise", K, delta, outputs=INPUTS, groups=INPUTS)
    ours(" 5x5", 5, 2.5)
    ours(" 1x1", 1, 2.5)
    return cases


def four_convolutions(x: Tensor, layer: nn.Conv2d, delta: Tensor) -> Tensor:
    """The sum of the two whole dilations either side on both axes, with shared weights."""
    below = int(delta)
    part = delta - below
    total = layer.bias[:, None, None]
    for row, down in ((below, 1 - part), (below + 1, part)):
        for column, right in ((below, 1 - part), (below + 1, part)):
            y = F.conv2d(x, layer.weight, padding=(row, column), dilation=(row, column))
            total = total + y * (down * right)
    return total


def constant_offsets(delta: float) -> Tensor:
    """Of deform_conv2d at dilation 1, B x 2 k^2 x H x W, rows first: what every tap lacks to delta."""
    taps = torch.arange(K, dtype=torch.float32) - (K - 1) / 2
    each = torch.stack(torch.meshgrid(taps, taps, indexing="ij"), -1).reshape(-1) * (delta - 1)
    return each[None, :, None, None].expand(BATCH, -1, SIZE, SIZE).contiguous()


def peak_bytes(name: str) -> int:
    command = [sys.executable, __file__, "--peak", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def verdicts(by_name: pd.DataFrame, time_of: str) -> dict[str, dict[str, object]]:
    """Each target: what was reached, and whether that meets it. time_of: the column of times."""
    seconds = by_name[time_of]

    def ours(delta: float) -> float:
        return float(seconds[f"fractional, dilation {delta}"])

    def judged(value: float, met: bool) -> dict[str, object]:
        return {"reached": round(value, 3), "met": bool(met)}

    worst = max(
        float(seconds[name] / seconds[row.compared_with])
        for name, row in by_name.iterrows()
        if str(name).startswith("fractional, dilation")
    )
    flat = [ours(delta) for delta in FLAT]
    deformable = float(seconds["deformable, constant offsets, dilation 2.5"]) / ours(2.5)
    gains = {f: float(seconds[f"inflation, f {f}"]) / ours(round(4 / f, 2)) for f in (1.5, 3.0)}
    gains[2.0] = float(seconds["inflation, f 2.0"]) / ours(2.0)
    memory = float(by_name.peak_mib["fractional, dilation 1.33"] / by_name.peak_mib["inflation, f 3.0"])
    return {
        "exact_at_most_4_times_a_plain_convolution": judged(worst, worst <= TARGET_EXACT),
        "exact_at_most_2.2_times_so_no_cheap_mode": judged(worst, worst <= TARGET_CHEAP),
        "within_15_percent_from_1.3_to_12.7": judged(max(flat) / min(flat), max(flat) / min(flat) <= SPREAD),
        "3_times_faster_than_deformable": judged(deformable, deformable >= TARGET_DEFORMABLE),
        "faster_than_inflation_from_f_1.5_on": judged(min(gains.values()), min(gains.values()) > 1),
        "5_times_faster_than_inflation_at_f_3": judged(gains[3.0], gains[3.0] >= TARGET_INFLATION),
        "at_most_a_quarter_of_its_memory_at_f_3": judged(memory, memory <= TARGET_MEMORY),
    }


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
    ours = FractionalConv2d(nn.Conv2d(INPUTS, OUTPUTS, K, padding=1), 2.5)
    image = torch.randn(BATCH, INPUTS, SIZE, SIZE)
    offsets = constant_offsets(2.5)
    torch.testing.assert_close(
        ours(image), deform_conv2d(image, offsets, ours.weight, ours.bias, padding=1), atol=1e-4, rtol=1e-4
    )

    calls, flop, slow = {}, {}, set()
    for name, case in cases.items():
        run(case)
        began = time.perf_counter()
        run(case)
        took = time.perf_counter() - began
        calls[name] = max(1, round(SAMPLE_S / took))
        if took > SAMPLE_S:
            slow.add(name)
        with Meter() as meter:
            run(case)
        flop[name] = meter.flop
    quiet: dict[str, list[float]] = {name: [] for name in cases}
    disturbed: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(options.rounds):
        for name, case in cases.items():
            if name in slow and turn % SLOW_TURN:
                continue
            seconds, alone = timed(case, calls[name], options.patience)
            (quiet if alone else disturbed)[name].append(seconds * 1e3)
            cpu[name].append(cpu_ms(case))
    samples = {name: quiet[name] if len(quiet[name]) > 1 else quiet[name] + disturbed[name] for name in cases}
    medians = {name: statistics.median(values) for name, values in samples.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu.items()}
    rows = []
    for name, (compared_with, _, _) in cases.items():
        several = samples[name] * 2 if len(samples[name]) == 1 else samples[name]
        low, _, high = statistics.quantiles(several, n=4, method="inclusive")
        rows.append(
            {
                "what": name,
                "median_ms": round(medians[name], 1),
                "low_ms": round(low, 1),
                "high_ms": round(high, 1),
                "samples": len(samples[name]),
                "quiet_samples": len(quiet[name]),
                "gflop": round(flop[name] / 1e9, 2),
                "peak_mib": round(peak_bytes(name) / 2**20, 1),
                "times_plain": round(medians[name] / medians[compared_with], 2),
                "cpu_ms_one_thread": round(cpu_medians[name], 1),
                "cpu_times_plain": round(cpu_medians[name] / cpu_medians[compared_with], 2),
                "compared_with": compared_with,
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    by_name = table.set_index("what")
    met = {"clock": verdicts(by_name, "median_ms"), "cpu_of_one_thread": verdicts(by_name, "cpu_ms_one_thread")}
    write_sidecar(
        NAME,
        {
            **provenance(),
            "what": "forward + backward; quartiles of samples, each the mean of some calls; resident memory growth",
            "setting": {
                **{"x": [BATCH, INPUTS, SIZE, SIZE], "out_channels": OUTPUTS, "k": K, "dtype": "float32"},
                **{"threads": THREADS, "rounds": options.rounds, "depthwise_out_channels": INPUTS},
            },
            "quiet_samples": "other processes took at most 5 % of a CPU; where there are two, only these count",
            "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
            "targets": met,
        },
    )
    print(table.to_string(index=False))
    for clock, targets in met.items():
        for target, verdict in targets.items():
            print(f"{clock:18} {target:46} {verdict['reached']:8} {'met' if verdict['met'] else 'NOT MET'}")


if __name__ == "__main__":
    main()
