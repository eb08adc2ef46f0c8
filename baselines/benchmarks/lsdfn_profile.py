"""Measure where a pass of the LS-DFN block goes, beside the convolutions that `lsdfn.py` compares it with.

Forward and backward, the time of every operator, in four kinds: matrix products over all positions (the block's 1x1
convolutions, or the convolutions themselves), small matrix products of every position (its kernels times its regions),
copies, and all that works element by element. If every FLOP took as long as one of the convolutions, the block would
take `times_at_their_rate` as long as they do: no implementation of the same arithmetic on this machine beats that by
more than it beats their rate.
"""

from __future__ import annotations

from collections import Counter

import pandas as pd
import torch
from lsdfn import CONVOLUTIONS, cases
from provenance import RESULTS, provenance, write_sidecar
from side_by_side import THREADS
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from rfsearch.training import Meter

NAME = "lsdfn-profile"
BLOCKS = ("block, gamma 1", "block, gamma 1.3, learned")
ROUNDS = 5
PRODUCTS, SMALL, COPIES, ELEMENTS = (
    "products over all positions",
    "products at a position",
    "copies",
    "element by element",
)
KINDS = {
    "mm": PRODUCTS,
    "addmm": PRODUCTS,
    "convolution": PRODUCTS,
    "convolution_backward": PRODUCTS,
    "mkldnn_convolution": PRODUCTS,
    "_slow_conv2d_forward": PRODUCTS,
    "_slow_conv2d_backward": PRODUCTS,
    "bmm": SMALL,
    "copy_": COPIES,
    "cat": COPIES,
    "zero_": COPIES,
    "fill_": COPIES,
}


def main() -> None:
    """Profile the convolutions and the blocks, and write the table."""
    torch.set_num_threads(THREADS)
    by_name = {case.what: case for case in cases()}
    rows = []
    for name in (CONVOLUTIONS, *BLOCKS):
        case = by_name[name]
        for _ in range(2):
            case.run()
        with FlopCounterMode(display=False) as products:
            case.run()
        counted = products.get_flop_counts()["Global"]
        with Meter(memory=False) as meter:
            case.run()
        flop: Counter[str] = Counter()
        for operator, count in counted.items():
            flop[KINDS[str(operator).removeprefix("aten.")]] += count
        flop[ELEMENTS] = meter.flop - sum(flop.values())
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            for _ in range(ROUNDS):
                case.run()
        took: Counter[str] = Counter()
        for event in profiled.key_averages():
            took[KINDS.get(event.key.removeprefix("aten::"), ELEMENTS)] += event.self_cpu_time_total / 1e3 / ROUNDS
        rows += [
            {"what": name, "kind": kind, "ms": round(took[kind], 1), "gflop": round(flop[kind] / 1e9, 2)}
            for kind in (PRODUCTS, SMALL, COPIES, ELEMENTS)
        ]
    table = pd.DataFrame(rows)
    table["gflop_per_s"] = (table.gflop / table.ms * 1e3).round(0)
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    gflop, ms = table.groupby("what").gflop.sum(), table.groupby("what").ms.sum()
    ratios = {
        name: {
            "times_at_their_rate": round(float(gflop[name] / gflop[CONVOLUTIONS]), 2),
            "times_measured": round(float(ms[name] / ms[CONVOLUTIONS]), 2),
        }
        for name in BLOCKS
    }
    write_sidecar(NAME, {**provenance(), "threads": THREADS, "rounds": ROUNDS, "blocks": ratios})
    print(table.to_string(index=False))
    for name, ratio in ratios.items():
        print(name, ratio)


if __name__ == "__main__":
    main()
