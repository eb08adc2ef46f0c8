"""A value over what a strategy has spent, in all its seeds at once."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import pandas as pd

from rfsearch.numbers import finite
from rfsearch.report.figures.clocks import Clock


@dataclass(frozen=True)
class Curve:
    """Hold the values of one strategy over its seeds, as steps at `x`."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int


def mean_curve(rows: pd.DataFrame, clock: Clock, column: str) -> Curve:
    """Return mean, lowest and highest value of the seeds of one strategy, from where each of them has one.

    Args:
        rows: Of its arms, in the order in which their trials came in: `seed`, what was spent, and the value.
        clock: What is spent.
        column: Name of the value.
    """
    seeds = []
    for _, own in rows.groupby("seed"):
        spent_and_values = zip(own[f"spent_{clock.currency}"], own[column], strict=True)
        points = [(x / clock.unit, y) for x, y in spent_and_values if finite(y) is not None]
        if points:
            seeds.append(points)
    if not seeds:
        return Curve([], [], [], [], 0)
    begin = max(points[0][0] for points in seeds)
    xs = sorted({x for points in seeds for x, _ in points if x >= begin})
    places = [[bisect_right(points, x, key=lambda point: point[0]) - 1 for points in seeds] for x in xs]
    levels = [[points[at][1] for points, at in zip(seeds, row, strict=True)] for row in places]
    kept = [k for k, level in enumerate(levels) if k in (0, len(levels) - 1) or level != levels[k - 1]]
    xs, levels = [xs[k] for k in kept], [levels[k] for k in kept]
    return Curve(xs, [sum(v) / len(v) for v in levels], [min(v) for v in levels], [max(v) for v in levels], len(seeds))
