"""The Pareto front of trials: what no other trial beats at once in cost and in score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from rfsearch.ledger import Record
from rfsearch.report.wording import finite

PARETO_COLUMNS = ("axis", "trial", "strategy", "candidate", "cost", "val", "test")


@dataclass(frozen=True)
class Axis:
    """A cost that a trial can be held against. name: of the axis in pareto.csv. unit: of `cost`."""

    name: str
    title: str
    unit: str
    cost: Callable[[Record], float | None]


AXES = (
    Axis("infer_latency_ms", "inference latency", "ms", lambda record: finite(record.infer_latency_ms)),
    Axis("infer_peak_bytes", "inference peak memory", "bytes", lambda record: finite(record.infer_peak_bytes)),
    Axis("infer_mac", "inference MAC", "MAC", lambda record: finite(record.infer_mac)),
    Axis("rf_px", "receptive field", "px", lambda record: finite(record.rf_px)),
    # An heir was charged its own stretch: what its network took is shared with other trials.
    Axis("train_flop", "training FLOP", "FLOP", lambda r: None if r.heir_of else finite(r.cost.flop)),
)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, score) that no other point dominates, by rising cost.

    A point dominates another if it costs no more and scores no less, and differs in one of the two. Equal points do
    not dominate each other: all of them are on the front, or none.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front


def held_against(axis: Axis, records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """The scored trials that have a cost on this axis, and those of them on its front. Chosen on validation."""
    shown = [r for r in records if r.scored and finite(r.val) is not None and axis.cost(r) is not None]
    front = pareto_front([(axis.cost(r) or 0.0, r.val or 0.0) for r in shown])
    return shown, [shown[i] for i in front]


def pareto_table(records: Sequence[Record]) -> pd.DataFrame:
    """pareto.csv: the front on each axis, by rising cost, in the axis's unit."""
    rows = [
        (axis.name, r.trial, r.strategy, r.candidate, axis.cost(r), r.val, r.test)
        for axis in AXES
        for r in held_against(axis, records)[1]
    ]
    return pd.DataFrame(rows, columns=list(PARETO_COLUMNS))
