"""A figure of the report: what the trials of each strategy cost, by how they ended."""

from __future__ import annotations

import plotly.graph_objects as go

from rfsearch.report.figures import Figure, RunView, literal


def build(view: RunView) -> go.Figure | None:
    """Draw one bar per strategy, in parts: device time of its completed, pruned, cut and failed trials, s."""
    if not view.records:
        return None
    figure = go.Figure()
    for status in dict.fromkeys(record.status for record in view.records):
        spent = [
            sum(r.cost.device_s for r in view.records if (r.strategy, r.status) == (strategy, status))
            for strategy in view.strategies
        ]
        figure.add_bar(x=[literal(strategy) for strategy in view.strategies], y=spent, name=status)
    return figure.update_layout(barmode="stack", yaxis_title="device time, s")


COST_BY_STATUS = Figure(
    title="Where the time went",
    order=60,
    label="Bar chart: device time of each strategy's trials, by how they ended.",
    build=build,
    caption=lambda view: f"Device time of all {len(view.records)} trials, by how they ended.",
)
