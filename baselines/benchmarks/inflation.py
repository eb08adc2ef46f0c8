"""Time inflation and interpolation against `F.interpolate` of the same sizes, with peak memory.

Ours have a gradient in f; `F.interpolate` has none.
"""

from __future__ import annotations

from itertools import product
from typing import get_args

import pandas as pd
import torch
from side_by_side import Case, compare, judged
from torch import Tensor
from torch.nn import functional as F

from rfsearch.layers import inflate, interpolate
from rfsearch.layers.inflation import Border, inflated_size

NAME = "inflation"
BATCH, CHANNELS, SIZE = 2, 128, 63
FACTORS = [0.7, 1.3, 1.5, 2.6]
BORDERS: tuple[Border, ...] = get_args(Border)
TARGET_TIME, TARGET_MEMORY = 1.25, 1.1


def cases() -> list[Case]:
    """Build both for every factor."""
    torch.manual_seed(0)
    image = torch.randn(BATCH, CHANNELS, SIZE, SIZE, requires_grad=True)
    found = []
    for border, f in product(BORDERS, FACTORS):
        factor, size = torch.tensor(f, requires_grad=True), inflated_size((SIZE, SIZE), f, border)

        def resized(size: tuple[int, ...] = size) -> Tensor:
            wide = F.interpolate(image, size=size, mode="bilinear", align_corners=True)
            return F.interpolate(wide, size=(SIZE, SIZE), mode="bilinear", align_corners=True)

        def ours(factor: Tensor = factor, border: Border = border) -> Tensor:
            with torch.no_grad():
                factor *= 1 + 1e-6  # as in training: nothing is known from the last step
            return interpolate(inflate(image, factor, border=border), factor, 1, (SIZE, SIZE), border=border)

        theirs = f"F.interpolate twice, {size[0]} px"
        name = f"inflation, {border} border, f {f}"
        found += [Case(theirs, theirs, resized, [image]), Case(name, theirs, ours, [image, factor])]
    return found


def targets(table: pd.DataFrame, time_of: str) -> dict[str, dict[str, object]]:
    """Judge the times and the memory against their targets."""
    ours = [f"inflation, {border} border, f {f}" for border, f in product(BORDERS, FACTORS)]
    times = max(table[time_of][name] / table[time_of][table.beside[name]] for name in ours)
    memory = max(table.peak_times[name] for name in ours)
    return {
        "at_most_1.25_times_interpolate": judged(times, times <= TARGET_TIME),
        "at_most_1.1_times_its_memory": judged(memory, memory <= TARGET_MEMORY),
    }


if __name__ == "__main__":
    compare(NAME, cases, targets, {"x": [BATCH, CHANNELS, SIZE, SIZE]})
