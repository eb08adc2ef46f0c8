"""Score of every scored trial over its receptive field, with the hand default and the recommendation marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.scores import (
    add_score_switch,
    hover_texts,
    score_on,
    score_splits,
    score_title,
    whole_trainings,
)
from rfsearch.report.figures.style import FAINT, INK, drawing, field_axis, marks, padded
from rfsearch.report.view import RunView, ScoreSplit, has_moved, has_start
from rfsearch.report.wording import literal


def build(view: RunView) -> go.Figure | None:
    """Draw one mark per scored trial. None where no trial was scored."""
    if not view.scored:
        return None
    splits, hovers = score_splits(view), hover_texts(view)
    drawn = [(split, trace) for split in splits for trace in _traces(view, split, hovers)]
    objects = _objects(view)
    figure = drawing([*(trace for _, trace in drawn), *objects], "receptive field, px", score_title(splits[0]))
    figure.update_xaxes(
        field_axis([r.rf_px for r in view.scored] + [r.rf_init_px for r in view.scored if has_start(r)])
    )
    if objects:
        title = {"text": f"{view.facts.noun}s, %"}
        below = {"domain": [0.0, 0.17], "range": [0, 105], "title": title, "tickvals": [0, 50, 100]}
        figure.update_layout(yaxis={"domain": [0.25, 1.0]}, yaxis2=below, xaxis={"anchor": "y2"}, height=500)
    ranges = {split: padded(map(score_on(split), whole_trainings(view.scored))) for split in splits}
    add_score_switch(figure, [*(split for split, _ in drawn), *(None for _ in objects)], ranges)
    return figure


def _objects(view: RunView) -> list[go.Scatter]:
    """Return, for the panel below, which share of the data's objects is no longer than a receptive field."""
    if len(view.facts.objects) < 2:
        return []
    fields, shares = zip(*view.facts.objects, strict=True)
    return [
        go.Scatter(
            mode="lines+markers", name=f"{view.facts.noun}s no longer than that", yaxis="y2", x=fields,
            y=[100 * share for share in shares], line={"color": FAINT, "width": 2},
            marker={"color": FAINT, "size": 5}, hovertemplate="%{y:.0f} % of the " + view.facts.noun
            + "s take at most %{x:,} px<extra></extra>",
        )
    ]  # fmt: skip


def _traces(view: RunView, split: ScoreSplit, hovers: Mapping[str, str]) -> Iterator[go.Scatter]:
    """Yield one split's traces: the ways that training moved, the trials of each strategy, and the rings."""
    value = score_on(split)
    shown = [(record, v) for record in view.scored if (v := value(record)) is not None]
    moved = [(record, v) for record, v in shown if has_moved(record)]
    if moved:
        yield go.Scatter(
            mode="lines", name="way from the initial RF", hoverinfo="skip",
            x=[x for record, _ in moved for x in (record.rf_init_px, record.rf_px, None)],
            y=[y for _, v in moved for y in (v, v, None)],
            line={"color": FAINT, "width": 1.2, "dash": "dot"},
        )  # fmt: skip
    for i, strategy in enumerate(view.strategies):
        own = [(record, v) for record, v in shown if record.strategy == strategy]
        if own:
            yield go.Scatter(
                mode="markers", name=literal(strategy), marker=marks(i), hovertemplate="%{text}<extra></extra>",
                x=[record.rf_px for record, _ in own], y=[v for _, v in own],
                text=[hovers[record.trial] for record, _ in own],
            )  # fmt: skip
    yield from _rings("hand default", "diamond-open", 20, view.defaults, split)
    best = [view.recommended] if view.recommended else []
    yield from _rings("recommended", "circle-open", 22, best, split)


def _rings(name: str, symbol: str, size: int, records: Sequence[Record], split: ScoreSplit) -> Iterator[go.Scatter]:
    value = score_on(split)
    points = [(record.rf_px, v) for record in records if (v := value(record)) is not None]
    if points:
        yield go.Scatter(
            mode="markers", name=name, hoverinfo="skip", x=[x for x, _ in points], y=[y for _, y in points],
            marker={"symbol": symbol, "size": size, "color": INK, "line": {"width": 1.8}},
        )  # fmt: skip


def caption(view: RunView) -> str:
    """Return how to read the marks."""
    return (
        f"Every scored trial of every strategy; the score is {view.metric}. The receptive field is the "
        "theoretical one, in pixels of the input. Coincident trials show as nested marks."
    ) + (f" Below: the share of the training images' {view.facts.noun}s that are no longer." if _objects(view) else "")


AGAINST_RF = Figure(
    title="Score against receptive field",
    order=20,
    label="Scatter plot: score of each trial against its receptive field.",
    build=build,
    caption=caption,
)
