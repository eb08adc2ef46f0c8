"""Measure what intervals of a few seeds cover, by simulation.

A mean of n values: drawn from distributions as the scores of seeds have them, with a tail and with a training in twenty
that goes astray among them. Student's t interval, the percentile bootstrap and the bootstrap-t.

A spending: that at which a strategy first reaches what a sweep ends with, less one standard error, and its ratio to
that of the sweep itself, in made-up contests. Their scores are those of rendered faces by dilation, their noise is that
between trainings there, and the answers are known from many seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anytime import Curve, first_reached, ratio_between, reached_between
from intervals import mean_interval, standard_error
from provenance import RESULTS, provenance, write_sidecar

NAME = "interval_coverage"
SEEDS = (4, 5, 7)
MANY = 4000
BY_DILATION = (0.621, 0.688, 0.698, 0.699, 0.682, 0.668, 0.632)
NOISE = 0.008
"""Standard deviation of a score between trainings, on validation and, apart from it, on test."""
SHARED = 0.5
"""The share of the variance of scores that validation and test have in common."""
Draw = Callable[[np.random.Generator, int], np.ndarray]


def astray(random: np.random.Generator, count: int) -> np.ndarray:
    """Draw scores of which one in twenty lies five standard deviations below the others."""
    return random.normal(size=count) - 5.0 * (random.random(count) < 0.05)


DRAWS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda random, count: random.normal(size=count), 0.0),
    "with a tail (gamma, shape 4)": (lambda random, count: -random.gamma(4.0, size=count), -4.0),
    "one in twenty astray": (astray, -0.25),
}
"""By name: values, and their true mean."""


def percentile(values: np.ndarray, random: np.random.Generator, resamples: int = 1000) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean."""
    means = values[random.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def studentised(values: np.ndarray, random: np.random.Generator, resamples: int = 1000) -> tuple[float, float]:
    """Return the bootstrap-t interval of a mean; resamples of equal values, which have no error, are left out."""
    drawn = values[random.integers(0, len(values), (resamples, len(values)))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(len(values))
    t = ((drawn.mean(axis=1) - values.mean()) / np.where(errors > 0, errors, np.nan))[errors > 0]
    low, high = np.quantile(t, [0.025, 0.975])
    error = standard_error(values.tolist())
    return float(values.mean() - high * error), float(values.mean() - low * error)


def student(values: np.ndarray, random: np.random.Generator) -> tuple[float, float]:
    """Return Student's t interval of a mean."""
    found = mean_interval(values.tolist())
    assert found is not None
    return found


MEANS = {"Student's t": student, "percentile bootstrap": percentile, "bootstrap-t": studentised}


def coverage_of_means(count: int, times: int, seed: int = 0) -> list[dict[str, object]]:
    """Return how often each interval of a mean of `count` values holds it, by distribution."""
    rows: list[dict[str, object]] = []
    for name, (draw, mean) in DRAWS.items():
        for method, interval in MEANS.items():
            random = np.random.default_rng(seed)
            found = [interval(draw(random, count), random) for _ in range(times)]
            covered = float(np.mean([low <= mean <= high for low, high in found]))
            width = float(np.median([high - low for low, high in found]))
            rows.append({"of": f"mean, {name}", "seeds": count, "interval": method, "covered": covered, "width": width})
    return rows


@dataclass(frozen=True)
class Strategy:
    """Make up a strategy.

    Attributes:
        means: Mean score of each of its trainings, in order.
        shuffled: Whether each seed has another order.
        cost: Of a training, in plain ones.
        noise: Standard deviation between its trainings, on either split.
    """

    means: Sequence[float]
    shuffled: bool = False
    cost: float = 1.0
    noise: float = NOISE

    def curve(self, random: np.random.Generator) -> Curve:
        """Return the test score of the incumbent of one seed, which validation chooses, against plain trainings."""
        means = np.array(self.means)
        if self.shuffled:
            random.shuffle(means)
        common, val, test = random.normal(scale=self.noise, size=(3, len(means)))
        vals = means + math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * val
        tests = means + math.sqrt(SHARED) * common + math.sqrt(1 - SHARED) * test
        curve, best = [], -math.inf
        for number, (chosen, score) in enumerate(zip(vals, tests, strict=True), start=1):
            if chosen > best:
                best = chosen
                curve.append((number * self.cost, float(score)))
        return curve


SWEEP = Strategy(BY_DILATION, shuffled=True)
STRATEGIES = {
    "the sweep itself": SWEEP,
    "a strategy above the sweep": Strategy([0.72] * 5, cost=1.4),
    "a strategy that gets there in the end": Strategy([0.67, 0.68, 0.69, 0.70, 0.71, 0.71, 0.71]),
    "a strategy at the target": Strategy([0.699] * 5, cost=1.4, noise=0.02),
    "a strategy that never gets there": Strategy([0.68] * 5, cost=1.4),
    "a noisy one": Strategy([0.66, 0.68, 0.70, 0.70, 0.70, 0.70, 0.70], shuffled=True, noise=0.02),
}


def contest(strategy: Strategy, count: int, random: np.random.Generator) -> tuple[dict[int, Curve], dict[int, Curve]]:
    """Return the curves of a strategy and of the sweeps of as many seeds."""
    sweeps = {seed: SWEEP.curve(random) for seed in range(count)}
    own = sweeps if strategy is SWEEP else {seed: strategy.curve(random) for seed in range(count)}
    return own, sweeps


def ends_of(sweeps: Mapping[int, Curve]) -> dict[int, float]:
    """Return what each sweep ends with."""
    return {seed: curve[-1][1] for seed, curve in sweeps.items()}


def true_spending(strategy: Strategy, count: int, many: int, random: np.random.Generator) -> float:
    """Return where the mean over very many seeds first reaches the target that `count` seeds set in the mean."""
    own, sweeps = contest(strategy, many, random)
    ends = list(ends_of(sweeps).values())
    # One standard error of `count` seeds, though the mean is that of many.
    target = float(np.mean(ends)) - float(np.std(ends, ddof=1)) / math.sqrt(count)
    return first_reached(own, dict.fromkeys(own, target))


def coverage_of_spendings(count: int, times: int, many: int = MANY, seed: int = 0) -> list[dict[str, object]]:
    """Return how often the intervals of `anytime.py` hold a strategy's spending, and its ratio to the sweep's own."""
    rows: list[dict[str, object]] = []
    own_truth = true_spending(SWEEP, count, many, np.random.default_rng([seed, 1]))
    for name, strategy in STRATEGIES.items():
        truth = true_spending(strategy, count, many, np.random.default_rng([seed, 1]))
        random = np.random.default_rng([seed, 2])
        held, ratios = [], []
        for _ in range(times):
            own, sweeps = contest(strategy, count, random)
            ends = ends_of(sweeps)
            interval = reached_between(own, ends)
            ratio = ratio_between(reached_between(own, ends, 0.975), reached_between(sweeps, ends, 0.975))
            assert interval is not None
            assert ratio is not None
            held.append(interval[0] <= truth <= interval[1])
            ratios.append(ratio[0] <= truth / own_truth <= ratio[1])
        for what, found in ((f"spending of {name}", held), (f"ratio of {name} to the sweep", ratios)):
            row = {"of": what, "seeds": count, "interval": "inverted t", "covered": float(np.mean(found))}
            rows.append({**row, "truth": truth if found is held else truth / own_truth})
    return rows


def main() -> None:
    """Simulate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=4000, help="simulations of each")
    times = parser.parse_args().times
    rows = [row for count in SEEDS for row in (*coverage_of_means(count, times), *coverage_of_spendings(count, times))]
    table = pd.DataFrame(rows).round(3)
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    write_sidecar(NAME, {**provenance(), "method": " ".join((__doc__ or "").split()), "simulations": times})
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
