"""What was tested how often, and what was not: scored trials of each candidate of the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import plotly.graph_objects as go

from rfsearch.ledger.record import parsed
from rfsearch.numbers import counted
from rfsearch.report.facts import canonical
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.style import COLOURS, drawing
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal

_MOST = 40  # candidates that are drawn: the least tested ones first, or, of more, the most tested ones


def build(view: RunView) -> go.Figure | None:
    """Draw one bar per planned candidate. None where the run does not say what was planned."""
    counts = _counts(view)
    if not counts or not view.records:
        return None
    rank = -1 if len(counts) > _MOST else 1
    shown = sorted(counts, key=lambda text: (rank * counts[text].total(), _name(text)))[:_MOST]
    names = [_name(text) for text in shown]
    bars = [
        go.Bar(
            orientation="h", name=literal(strategy), y=names, x=[counts[text][strategy] for text in shown],
            marker={"color": COLOURS[i % len(COLOURS)]},
            hovertemplate=f"%{{y}}: %{{x}} of {literal(strategy)}<extra></extra>",
        )
        for i, strategy in enumerate(view.strategies)
    ]  # fmt: skip
    figure = drawing(bars, "scored trials", "")
    height = max(200, 120 + 20 * len(names))
    figure.update_layout(barmode="stack", height=height, margin={"l": 190}, showlegend=True)
    most = max(counts[text].total() for text in shown)
    figure.update_xaxes(range=[0, 1.05 * most or 1], tickvals=[*range(0, most + 1, max(1, most // 8))])
    figure.update_yaxes(autorange="reversed", type="category", dtick=1)
    return figure


def _counts(view: RunView) -> Mapping[str, Counter[str]]:
    """Return how many trials of each strategy were scored, by planned candidate."""
    counts: dict[str, Counter[str]] = {text: Counter() for text in sorted(view.facts.planned)}
    for record in view.scored:
        if (text := canonical(record.candidate)) in counts:
            counts[text][record.strategy] += 1
    return counts


def _name(text: str) -> str:
    known = parsed(text)
    return literal(str(known) if known else text)


def caption(view: RunView) -> str:
    """Return what was not tested, in words."""
    counts = _counts(view)
    untested = sum(not found.total() for found in counts.values())
    what = f"{counted(untested, 'candidate')} of {len(counts):,} in the plan" if untested else ""
    said = f"Not tested: {what}." if untested else "Every candidate of the plan was scored at least once."
    left = f" The {_MOST} most tested ones are shown." if len(counts) > _MOST else ""
    others = sum(canonical(r.candidate) not in counts for r in view.scored)
    more = f" {counted(others, 'scored trial')} were of candidates that no plan lists beforehand." if others else ""
    return said + left + more


COVERAGE = Figure(
    title="What was tested, and what was not",
    order=70,
    label="Stacked bars: number of scored trials of each candidate of the plan.",
    build=build,
    caption=caption,
)
