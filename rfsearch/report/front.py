"""The Pareto front of trials: what no other trial beats at once in cost and in score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from rfsearch.direction import Direction, merit
from rfsearch.ledger import Record
from rfsearch.numbers import finite

PARETO_COLUMNS = ("axis", "trial", "strategy", "candidate", "cost", "val", "test")


Interval = tuple[float, float]
"""From where to where a measured cost may lie."""


@dataclass(frozen=True)
class CostAxis:
    """Describe one cost that scores can be held against.

    Attributes:
        name: Its name in pareto.csv.
        title: Its name in a figure.
        unit: Unit of `cost`.
        cost: What a record cost on this axis; None where that is unknown.
        spread: From where to where a record's measured cost may lie; None where this cost is exact.

    Example:
        >>> CostAxis("params", "parameters", "", lambda record: record.params).title
        'parameters'
    """

    name: str
    title: str
    unit: str
    cost: Callable[[Record], float | None]
    spread: Callable[[Record], Interval | None] | None = None


# The first one is what the figure opens on. A latency is the least certain of them, so it comes last.
COST_AXES = (
    CostAxis("rf_px", "receptive field", "px", lambda record: finite(record.rf_px)),
    # An heir was charged its own stretch: what its network took is shared with other trials.
    CostAxis("train_flop", "training FLOP", "FLOP", lambda r: None if r.heir_of else finite(r.cost.flop)),
    CostAxis("infer_mac", "inference MAC", "MAC", lambda record: finite(record.infer_mac)),
    CostAxis("params", "number of parameters", "parameters", lambda record: finite(record.params)),
    CostAxis("infer_peak_bytes", "inference peak memory", "bytes", lambda record: finite(record.infer_peak_bytes)),
    CostAxis(
        "infer_latency_ms",
        "inference latency",
        "ms",
        lambda record: finite(record.infer_latency_ms),
        lambda record: record.infer_latency_spread_ms,
    ),
)


def pareto_front(points: Sequence[tuple[float, float]], spreads: Sequence[Interval] | None = None) -> list[int]:
    """Find the Pareto front of points (cost, merit).

    A point beats another if it costs no more and has no less merit, and differs in one of the two. Equal points do not
    beat each other: all of them are on the front, or none. Costs whose spreads overlap are ties. Such ties are not
    transitive, so the front is built from the highest merit down: a point is on it unless one that is already on it
    beats it. For exact costs these are the points that no other one beats.

    Args:
        points: Cost and merit of each; the merit is the higher the better.
        spreads: From where to where each cost may lie; None where costs are exact.

    Returns:
        Indices of the points on the front, by rising cost.
    """
    ends = spreads or [(cost, cost) for cost, _ in points]
    order = sorted(range(len(points)), key=lambda i: (-points[i][1], ends[i][1], ends[i][0]))
    front: list[int] = []
    # Of the front: the lower ends of what scores higher than the point at hand, and the upper ends of its equals.
    lowest_of_better = lowest_of_equal = highest_of_equal = math.inf
    score = math.nan
    for i in order:
        low, high = ends[i]
        if points[i][1] != score:
            score, lowest_of_better = points[i][1], min(lowest_of_better, lowest_of_equal)
            lowest_of_equal = highest_of_equal = math.inf
        if lowest_of_better <= high or highest_of_equal < low:
            continue
        front.append(i)
        lowest_of_equal, highest_of_equal = min(lowest_of_equal, low), min(highest_of_equal, high)
    return sorted(front, key=lambda i: (points[i][0], -points[i][1], i))


def trials_and_front(
    axis: CostAxis, records: Iterable[Record], direction: Direction
) -> tuple[list[Record], list[Record]]:
    """Return the scored trials that have a cost on this axis, and those of them on its front, chosen on validation.

    A cost without a spread was measured in another way than one with a spread. Where some trials have a spread, those
    without one are left out.
    """
    shown = [r for r in records if r.scored and axis.cost(r) is not None]
    spreads = None
    if measured := [(r, spread) for r in shown if axis.spread and (spread := axis.spread(r)) is not None]:
        shown, spreads = [r for r, _ in measured], [spread for _, spread in measured]
    front = pareto_front([(axis.cost(r) or 0.0, merit(r.val or 0.0, direction)) for r in shown], spreads)
    return shown, [shown[i] for i in front]


def pareto_table(records: Sequence[Record], direction: Direction) -> pd.DataFrame:
    """Return pareto.csv: the front on each axis, by rising cost, in the axis's unit."""
    rows = [
        (axis.name, r.trial, r.strategy, r.candidate, axis.cost(r), r.val, r.test)
        for axis in COST_AXES
        for r in trials_and_front(axis, records, direction)[1]
    ]
    return pd.DataFrame(rows, columns=list(PARETO_COLUMNS))
