"""Where the budget went: what each strategy spent on trials that ended well, that were stopped, and that failed."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from rfsearch.ledger.record import Status
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.clocks import Clock, clocks_of
from rfsearch.report.figures.style import COLOURS, FAINT, drawing
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.rows import STATUSES
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal

# Told apart by lightness too.
_COLOURS: dict[Status, str] = {"completed": COLOURS[0], "pruned": "#e0a458", "cut": "#8fbf9f", "failed": "#a02c3c"}
_UNSPENT = "left unspent"


def build(view: RunView) -> go.Figure | None:
    """Draw one bar per strategy. None where no trial has finished."""
    if not view.records:
        return None
    clocks = clocks_of(view)
    parts: list[Status] = [s for s in STATUSES if any(r.status == s for r in view.records)]
    names = [literal(strategy) for strategy in view.strategies]
    bars = [
        go.Bar(
            orientation="h", name=part, y=names, x=_spent(view, part, clocks[0]), marker={"color": _COLOURS[part]},
            hovertemplate="%{y}, " + part + ": %{x:.3~g}<extra></extra>",
        )
        for part in parts
    ]  # fmt: skip
    rest = [_left(view, clock) for clock in clocks]
    if any(any(values) for values in rest):
        bars.append(
            go.Bar(orientation="h", name=_UNSPENT, y=names, x=rest[0], marker={"color": FAINT, "opacity": 0.45},
                   hovertemplate="%{y}, left unspent: %{x:.3~g}<extra></extra>")
        )  # fmt: skip
    figure = drawing(bars, clocks[0].title, "")
    figure.update_layout(barmode="stack", height=max(200, 110 + 42 * len(names)), showlegend=True)
    figure.update_yaxes(autorange="reversed", type="category")
    options = [
        Option(
            clock.label,
            {"x": [*(_spent(view, part, clock) for part in parts), *([rest[k]] if len(bars) > len(parts) else [])]},
            {"xaxis.title.text": clock.title},
        )
        for k, clock in enumerate(clocks)
    ]
    add_switch(figure, "in", options)
    return figure


def _spent(view: RunView, status: Status, clock: Clock) -> list[float]:
    """Return what each strategy spent on trials that ended so."""
    sums = dict.fromkeys(view.strategies, 0.0)
    for record in view.records:
        if record.status == status:
            sums[record.strategy] += float(getattr(record.cost, clock.currency)) / clock.unit
    return list(sums.values())


def _left(view: RunView, clock: Clock) -> Sequence[float]:
    """Return what each strategy's arms left of their budgets; nothing in another currency than theirs."""
    limit = view.facts.limit
    sums = dict.fromkeys(view.strategies, 0.0)
    if limit and clock.currency == view.facts.currency:
        for arm in view.arms:
            spent = float(getattr(arm.spent, clock.currency))
            sums[arm.strategy] += max(0.0, limit - spent) / clock.unit
    return list(sums.values())


def caption(view: RunView) -> str:
    """Return how to read the bars."""
    return (
        "What all arms of a strategy spent together, evaluations included, by how the trials ended. Pruned and failed "
        "trials are charged too; what is left unspent is shown in the currency of the budget."
    )


BUDGET_USE = Figure(
    title="Where the budget went",
    order=60,
    label="Stacked bars: what each strategy spent, by how its trials ended.",
    build=build,
    caption=caption,
)
