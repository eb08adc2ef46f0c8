"""Validation scores and losses on the way of each arm's best training, and of the hand default."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.numbers import finite
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.style import COLOURS, DASHES, INK, SYMBOLS, drawing
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal


def build(view: RunView) -> go.Figure | None:
    """Draw one line per training. None where no training was validated on its way."""
    traces, named = list[go.Scatter](), set[str]()
    for i, strategy in enumerate(view.strategies):
        style = {
            "line": {"color": COLOURS[i % len(COLOURS)], "width": 2, "dash": DASHES[i % len(DASHES)]},
            "marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7, "color": COLOURS[i % len(COLOURS)]},
        }
        for arm in view.arms:
            if arm.strategy == strategy and arm.incumbent:
                traces += _line(arm.incumbent, strategy, style, named)
    default = next(iter(view.defaults), None)
    if default is not None:
        style = {"line": {"color": INK, "width": 1.5, "dash": "dot"}, "marker": {"size": 5, "color": INK}}
        traces += _line(default, "hand default", style, named)
    if not traces:
        return None
    figure = drawing(traces, "training step", "validation score")
    if any(trace.yaxis == "y2" for trace in traces):
        figure.update_layout(
            yaxis={"domain": [0.4, 1.0]}, xaxis={"anchor": "y2"}, height=520,
            yaxis2={"domain": [0.0, 0.3], "title": {"text": "training loss"}},
        )  # fmt: skip
    return figure


def _line(record: Record, name: str, style: Mapping[str, object], named: set[str]) -> list[go.Scatter]:
    scores = [(rung.step, rung.val) for rung in record.rungs if finite(rung.val) is not None]
    losses = [(rung.step, rung.loss) for rung in record.rungs if finite(rung.loss) is not None]
    found = []
    for points, axis, what in ((scores, "y", ""), (losses, "y2", "loss ")):
        if points:
            found.append(
                go.Scatter(
                    mode="lines+markers", name=literal(name), legendgroup=literal(name), showlegend=name not in named,
                    x=[step for step, _ in points], y=[value for _, value in points], yaxis=axis,
                    hovertemplate=literal(record.trial) + f": {what}%{{y:.3f}} at step %{{x:,}}<extra></extra>",
                    **style,
                )
            )  # fmt: skip
            named.add(name)
    return found


def caption(view: RunView) -> str:
    """Return how to read the lines."""
    loss = any(rung.loss is not None for record in view.records for rung in record.rungs)
    return (
        f"The best training of each arm, and one of the hand default: validation score ({view.metric}) on the way, on "
        "the part of the validation images that is looked at there. The final score is on all of them."
    ) + (" Below: the mean training loss since the point before." if loss else "")


VALIDATION_CURVES = Figure(
    title="Validation and loss on the way",
    order=36,
    label="Line chart: validation score and training loss of each arm's best training over its steps.",
    build=build,
    caption=caption,
)
