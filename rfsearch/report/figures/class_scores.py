"""Scores of each class: of the recommendation, the hand default and the best trial of each strategy."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from rfsearch.ledger import Record, incumbent
from rfsearch.numbers import finite
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.style import INK, drawing, marks
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal

_MOST = 40  # classes that are drawn: those of the largest differences


def build(view: RunView) -> go.Figure | None:
    """Draw one row per class, by the difference to the hand default. None where there are no scores of classes."""
    shown = _shown_classes(view)
    if not shown:
        return None
    rows = [literal(view.facts.classes[k]) for k in shown]
    found = [(name, record, style, _by_class(view, record)) for name, record, style in _records(view)]
    traces = [
        go.Scatter(
            mode="markers", name=literal(name), marker=style, x=[scores.get(k) for k in shown], y=rows,
            hovertemplate=f"%{{y}}: %{{x:.3f}}, {literal(record.trial)}<extra></extra>",
        )
        for name, record, style, scores in found
    ]  # fmt: skip
    figure = drawing(traces, "score of the class", "")
    figure.update_layout(height=max(220, 120 + 20 * len(rows)), margin={"l": 150}, showlegend=True)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _records(view: RunView) -> list[tuple[str, Record, Mapping[str, object]]]:
    """Return what is drawn: its name, whose scores, and its marks."""
    found: list[tuple[str, Record, Mapping[str, object]]] = []
    for i, strategy in enumerate(view.strategies):
        best = incumbent((r for r in view.scored if r.strategy == strategy and r.scores), view.run.direction)
        if best is not None:
            found.append((f"best of {strategy}", best, marks(i)))
    default = next((r for r in view.defaults if r.scores), None)
    if default is not None:
        ring = {"symbol": "diamond-open", "size": 16, "color": INK, "line": {"width": 1.6}}
        found.append(("hand default", default, ring))
    if view.recommended is not None and view.recommended.scores:
        ring = {"symbol": "circle-open", "size": 19, "color": INK, "line": {"width": 1.8}}
        found.append(("recommended", view.recommended, ring))
    return found


def _class_of(view: RunView, name: str) -> int | None:
    """Return the class that a score is of; None where it is of none."""
    classes = view.facts.classes
    if name in classes:
        return classes.index(name)
    stem, _, last = name.rpartition("_")
    if stem and last.isdecimal() and int(last) < len(classes):
        return int(last)
    return classes.index(last) if last in classes else None


def _by_class(view: RunView, record: Record) -> dict[int, float]:
    """Return a record's scores of classes, by class id; the first one where there are several kinds."""
    found: dict[int, float] = {}
    for name, value in record.scores.items():
        k = _class_of(view, name)
        if k is not None and (number := finite(value)) is not None:
            found.setdefault(k, number)
    return found


def _shown_classes(view: RunView) -> list[int]:
    """Return the classes by falling difference between the recommendation and the hand default."""
    best, default = view.recommended, next((r for r in view.defaults if r.scores), None)
    if best is None:
        return []
    ours = _by_class(view, best)
    theirs = _by_class(view, default) if default is not None else {}
    order = sorted(ours, key=lambda k: -(ours[k] - theirs.get(k, 0.0)))
    return order if len(order) <= _MOST else [*order[: _MOST // 2], *order[-_MOST // 2 :]]


def caption(view: RunView) -> str:
    """Return how to read the rows."""
    text = "One row per class, "
    if any(r.scores for r in view.defaults):
        text += "from the largest gain over the hand default to the largest loss"
    else:
        text += "from the highest score of the recommendation to the lowest"
    best = view.recommended
    count = len(_by_class(view, best)) if best else 0
    left = f"; the {_MOST} classes at both ends, of {count}" if count > _MOST else ""
    on = "test" if view.split == "test" else "validation"
    return f"{text}{left}. Scores are those of one training each, on the {on} images."


CLASS_SCORES = Figure(
    title="Score of each class",
    order=35,
    label="Dot plot: score of each class for the recommendation, the hand default and each strategy's best trial.",
    build=build,
    caption=caption,
)
