"""Scores of each class: of the recommendation, the hand default and the best trial of each strategy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go

from rfsearch.ledger import Record, incumbent
from rfsearch.numbers import finite
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.style import INK, drawing, marks
from rfsearch.report.rows import extra_scores, score_heading
from rfsearch.report.view import RunView
from rfsearch.report.wording import literal

_MOST = 40  # classes that are drawn: those of the largest differences
_FEWEST = 2


def build(view: RunView) -> go.Figure | None:
    """Draw one row per class, by the difference to the hand default. None where there are no scores of classes."""
    names = _shown_scores(view)
    shown = names if len(names) <= _MOST else [*names[: _MOST // 2], *names[-_MOST // 2 :]]
    if not shown:
        return None
    shared, rows = _told_apart(shown, view.facts.classes)
    traces = [
        go.Scatter(
            mode="markers", name=literal(name), marker=style, y=rows,
            x=[finite(record.scores.get(score)) for score in shown],
            hovertemplate=f"%{{y}}: %{{x:.3f}}, {literal(record.trial)}<extra></extra>",
        )
        for name, record, style in _records(view)
    ]  # fmt: skip
    figure = drawing(traces, f"score of the class{f', {literal(shared)}' if shared else ''}", "")
    figure.update_layout(height=max(220, 120 + 20 * len(rows)), margin={"l": 150}, showlegend=True)
    figure.update_yaxes(autorange="reversed", type="category", dtick=1)
    return figure


def _told_apart(names: Sequence[str], classes: Sequence[str]) -> tuple[str, list[str]]:
    """Return the words that all scores' names begin and end with, and of each what is left: a class, or its words."""
    words = [name.split("_") for name in names]
    least = min(map(len, words)) - 1  # each keeps one at least
    first = _alike(row[:least] for row in words)
    last = _alike(row[::-1][: least - first] for row in words)
    shared = words[0][:first] + words[0][len(words[0]) - last :]
    if len(words) == 1 or not shared:
        return "", [literal(score_heading(name, classes)) for name in names]
    left = [" ".join(row[first : len(row) - last]) for row in words]
    known = {str(number): name for number, name in enumerate(classes)} if not last else {}
    return " ".join(shared), [literal(known.get(text, text)) for text in left]


def _alike(rows: Iterable[Sequence[str]]) -> int:
    """Return how many first words all rows share."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


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


def _compared_default(view: RunView) -> Record | None:
    """Return the hand default, where something else is recommended."""
    if view.decision is not None and view.decision.keeps_default:
        return None
    return next((r for r in view.defaults if r.scores), None)


def _shown_scores(view: RunView) -> list[str]:
    """Return the scores of classes by falling difference between the recommendation and the hand default."""
    best, default = view.recommended, _compared_default(view)
    if best is None:
        return []
    theirs = default.scores if default is not None else {}
    names = [name for name in extra_scores(view) if finite(best.scores.get(name)) is not None]
    if len(names) < _FEWEST:
        return []
    return sorted(names, key=lambda name: -(best.scores[name] - (finite(theirs.get(name)) or 0.0)))


def caption(view: RunView) -> str:
    """Return how to read the rows."""
    text = "One row per class, or per part of the score, "
    if _compared_default(view) is not None:
        text += "from the largest gain over the hand default to the largest loss"
    else:
        text += "from the highest score of the recommendation to the lowest"
    count = len(_shown_scores(view))
    left = f"; the {_MOST} classes at both ends, of {count:,}" if count > _MOST else ""
    on = "test" if view.split == "test" else "validation"
    return f"{text}{left}. Scores are those of one training each, on the {on} images."


CLASS_SCORES = Figure(
    title="Score of each class",
    order=35,
    label="Dot plot: score of each class for the recommendation, the hand default and each strategy's best trial.",
    build=build,
    caption=caption,
)
