"""Measure what metering adds to a training step: counted and uncounted steps alternate in one process.

CPU time of the process on one thread is measured, so that what else runs on the machine has little effect. Data batches
are left out: they are made once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor

from rfsearch import plugins
from rfsearch.choices import Choice, Dilated, Inflated, Searched
from rfsearch.data import rendered_faces
from rfsearch.space import Space, read_space
from rfsearch.training.loop import TrainingLoop

NAME = "metering"
WARM_UP = 10
CHOICES = {
    "a dilation": Dilated(4),
    "inflation, f learned": Inflated(4, learned=True),
    "fractional, learned": Searched(4),
}


class Uncounted:
    """Replace a `Tally`: run the same and count nothing."""

    flop = aborted = 0.0

    @contextmanager
    def counting(self, what: str) -> Iterator[None]:
        """Count nothing."""
        yield

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        loss.backward()

    def repeated(self, kind: Hashable, work: Callable[[], object]) -> None:
        """Do the work."""
        work()


def compare(space: Space, choice: Choice, pairs: int) -> dict[str, float]:
    """Measure CPU seconds of a step, counted and not."""
    data = rendered_faces(space.recipe.batch_size * 2, 2, 2, space.image_size)
    loop = TrainingLoop(space, data, space.uniform(choice), 0, torch.device("cpu"))
    first = loop.prelude + space.recipe.steps // 2
    batch = loop._batches.at(0)
    loop._set_rates(first)
    tallies = {"counted": loop._tally, "uncounted": Uncounted()}
    seconds: dict[str, list[float]] = {name: [] for name in tallies}
    for number in range(2 * (pairs + WARM_UP)):
        name = ("counted", "uncounted")[(number + number // 2) % 2]  # the order changes from pair to pair
        loop._tally = tallies[name]
        started = time.process_time()
        loop._optimise(*batch)
        seconds[name].append(time.process_time() - started)
    counted, uncounted = (np.array(seconds[name][WARM_UP:]) for name in ("counted", "uncounted"))
    added = counted - uncounted
    draws = np.random.default_rng(0).integers(len(added), size=(2000, len(added)))
    low, high = np.percentile(np.median(added[draws], axis=1), [2.5, 97.5])
    step = float(np.median(uncounted))
    return {
        "step_ms": 1000 * step,
        "added_ms": 1000 * float(np.median(added)),
        "share": float(np.median(added)) / step,
        "share_low": float(low) / step,
        "share_high": float(high) / step,
    }


def main() -> None:
    """Compare every kind of choice, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300, help="steps of each kind that are timed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    space = read_space(plugins.space_file("helen"), "mini")
    table = pd.DataFrame([{"choice": name} | compare(space, choice, asked.pairs) for name, choice in CHOICES.items()])
    print(table.round(4).to_string(index=False))
    table.round(5).to_csv(RESULTS / f"{NAME}.csv", index=False)
    write_sidecar(
        NAME,
        {
            **provenance(),
            "share": "added by counting to the CPU time of a step: median over pairs of steps, 95 % bootstrap interval",
        },
    )


if __name__ == "__main__":
    main()
