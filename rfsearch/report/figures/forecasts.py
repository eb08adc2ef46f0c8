"""What trials cost against what the plan had forecast, one mark per completed trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.numbers import byte_scale, si_scale
from rfsearch.report.accuracy import QUANTITIES, Quantity
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.style import FAINT, drawing, marks, padded
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal


def build(view: RunView) -> go.Figure | None:
    """Draw forecast against measurement, and the line where they are equal. None without forecasts."""
    records = [r for r in view.records if r.status == "completed"]
    shown = [q for q in QUANTITIES if any(q.forecast(r) and q.measured(r) for r in records)]
    if not shown:
        return None
    strategies = [(i, s) for i, s in enumerate(view.strategies) if any(r.strategy == s for r in records)]
    points = [_points(quantity, records, [s for _, s in strategies]) for quantity in shown]
    traces = [
        go.Scatter(mode="lines", name="as forecast", hoverinfo="skip", line={"color": FAINT, "dash": "dot"},
                   x=points[0]["x"][0], y=points[0]["y"][0])
    ]  # fmt: skip
    for place, (i, strategy) in enumerate(strategies, start=1):
        traces.append(
            go.Scatter(
                mode="markers", name=literal(strategy), marker=marks(i), x=points[0]["x"][place],
                y=points[0]["y"][place], text=[literal(r.trial) for r in records if r.strategy == strategy],
                hovertemplate="%{text}<br>forecast %{x:.4~g}, measured %{y:.4~g}<extra></extra>",
            )
        )  # fmt: skip
    figure = drawing(traces, points[0]["titles"][0], points[0]["titles"][1])
    figure.update_xaxes(range=points[0]["ranges"][0])
    figure.update_yaxes(range=points[0]["ranges"][1])
    options = [
        Option(
            quantity.title,
            {"x": found["x"], "y": found["y"]},
            {
                "xaxis.title.text": found["titles"][0],
                "yaxis.title.text": found["titles"][1],
                "xaxis.range": found["ranges"][0],
                "yaxis.range": found["ranges"][1],
            },
        )
        for quantity, found in zip(shown, points, strict=True)
    ]
    add_switch(figure, "of", options)
    return figure


def _points(quantity: Quantity, records: Sequence[Record], strategies: Sequence[str]) -> dict[str, Any]:
    """Return where the line of equality and the trials of each strategy lie, with the axes' titles and ranges."""
    pairs = {s: [(quantity.forecast(r), quantity.measured(r)) for r in records if r.strategy == s] for s in strategies}
    known = [value for found in pairs.values() for pair in found for value in pair if value]
    unit, name = _unit(quantity, max(known, default=1.0))
    ends = [min(known, default=0.0) / unit, max(known, default=1.0) / unit]
    scaled = {s: [[v / unit if v else None for v in pair] for pair in found] for s, found in pairs.items()}
    return {
        "x": [ends, *([pair[0] for pair in found] for found in scaled.values())],
        "y": [ends, *([pair[1] for pair in found] for found in scaled.values())],
        "titles": (f"forecast {quantity.title}, {name}", f"measured, {name}"),
        "ranges": [padded([p[k] for found in scaled.values() for p in found], 0.08) for k in (0, 1)],
    }


def _unit(quantity: Quantity, largest: float) -> tuple[float, str]:
    if "memory" in quantity.title:
        return byte_scale(largest)
    if "time" in quantity.title:
        return 1.0, "s"
    factor, prefix = si_scale(largest)
    return factor, f"{prefix}FLOP"


def caption(view: RunView) -> str:
    """Return how to read the marks."""
    return (
        "Completed trials only, since a forecast is that of a full training; heirs have none. On the dotted line a "
        "trial cost what the plan had said. The table below has the numbers."
    )


FORECASTS = Figure(
    title="Forecast against what happened",
    order=65,
    label="Scatter plot: measured cost of each completed trial against its forecast.",
    build=build,
    caption=caption,
)
