"""The hypervolume of each strategy's front of cost and score, over the compute spent."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go

from rfsearch.ledger import Cost
from rfsearch.numbers import score
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.clocks import Clock, clocks_of
from rfsearch.report.figures.curves import mean_curve
from rfsearch.report.figures.style import drawing, steps
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.front import CostAxis, pareto_front
from rfsearch.report.trade import Box, Point, axis_of, box_of, cost_words, point_of
from rfsearch.report.view import ArmRecords, RunView
from rfsearch.report.wording import listing, literal


def build(view: RunView) -> go.Figure | None:
    """Draw one curve per strategy. None where no cost was an objective, or the trials do not differ in cost."""
    boxes = _boxes(view)
    if not boxes:
        return None
    clock = clocks_of(view)[0]
    tables = [_table(view, axis, box) for axis, box in boxes]
    lines = [_lines(view, table, clock) for table in tables]
    figure = drawing(lines[0], clock.title, "share dominated")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(range=[-0.02, 1.02])
    options = [
        Option(axis.title, {"x": [line.x for line in drawn], "y": [line.y for line in drawn]})
        for (axis, _), drawn in zip(boxes, lines, strict=True)
    ]
    add_switch(figure, "cost", options)
    return figure


def _boxes(view: RunView) -> list[tuple[CostAxis, Box]]:
    return [(axis, box) for cost in view.facts.costs if (box := box_of(view, axis := axis_of(cost)))]


def _table(view: RunView, axis: CostAxis, box: Box) -> pd.DataFrame:
    """Return what each arm's trials dominate after each of them that was completed."""
    rows = [row for arm in view.arms for row in _rows(view, arm, axis, box)]
    return pd.DataFrame(rows, columns=["strategy", "seed", "spent_flop", "share"])


def _rows(view: RunView, arm: ArmRecords, axis: CostAxis, box: Box) -> Iterator[tuple[str, int, float, float]]:
    spent, front = Cost(), list[Point]()
    for record in arm.records:
        spent += record.cost
        if (point := point_of(record, axis, view)) is not None:
            found = [*front, point]
            front = [found[i] for i in pareto_front(found)]
            yield arm.strategy, arm.seed, spent.flop, box.share(front)


def _lines(view: RunView, table: pd.DataFrame, clock: Clock) -> list[go.Scatter]:
    lines = []
    for i, strategy in enumerate(view.strategies):
        curve = mean_curve(table[table["strategy"] == strategy], clock, "share")
        seeds = f" ({curve.seeds} seeds)" if curve.seeds > 1 else ""
        style = steps(i, literal(strategy + seeds))
        lines.append(go.Scatter(style, x=curve.x, y=curve.mean, hovertemplate="%{y:.3f} at %{x:.3g}"))
    return lines


def caption(view: RunView) -> str:
    """Return how to read the curves, with the reference points."""
    corners = [f"{cost_words(axis, box.worst[0])} at {score(abs(box.worst[1]))}" for axis, box in _boxes(view)]
    return (
        "The share of the area between the worst and the best cost and validation score of this run's completed trials "
        "that each strategy's trials dominate together: 1 is all of it. The reference point, its worst corner, is "
        f"{listing(corners)}. With several seeds it is their mean."
    )


HYPERVOLUME = Figure(
    title="How much of the front each strategy has found",
    order=15,
    label="Line chart: hypervolume of each strategy's front of cost and score, over the compute spent.",
    build=build,
    caption=caption,
)
