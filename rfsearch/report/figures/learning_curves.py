"""What training moved, over its steps: one line per trial and path (after Wei et al., Figs. 4-7)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import finite, plain
from rfsearch.report.figures.style import FAINT, drawing, padded, ramp
from rfsearch.report.view import LETTERS, RunView, motions
from rfsearch.report.wording import literal

_MOST_POINTS = 300  # of a line: more are not seen
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class LearningCurve:
    """Hold what one path of a trial learned over its steps.

    Attributes:
        trial: Name of the trial.
        path: Name of the path.
        letter: What was learned: f or γ.
        start: Its dilation and where f or γ began, to sort and colour by.
        name: The start in words.
        about: The path in words.
        flag: What a reader must know of how it ended; empty where there is nothing.
        points: Training step and value.
    """

    trial: str
    path: str
    letter: str
    start: tuple[float, float]
    name: str
    about: str
    flag: str
    points: Sequence[tuple[int, float]]


def learning_curves(view: RunView, letter: str) -> list[LearningCurve]:
    """Return what every trial of a run learned of f or of γ, in the order of its records."""
    return [curve for record in view.records for curve in _curves(record, view) if curve.letter == letter]


def draw_curves(
    curves: Sequence[LearningCurve], title: str, bounds: Iterable[float], levels: Sequence[float] = ()
) -> go.Figure:
    """Draw learning curves over the training steps: one colour per start, one dash per path.

    Args:
        curves: At least one.
        title: What was learned, with its unit.
        bounds: Values that it could not pass. They are drawn where they are near.
        levels: Values that are marked whether they are near or not.
    """
    paths = tuple(dict.fromkeys(curve.path for curve in curves))
    ranks = {start: rank for rank, start in enumerate(sorted({curve.start for curve in curves}))}
    traces, named = list[go.Scatter](), set[str]()
    for curve in sorted(curves, key=lambda curve: curve.start):
        name = curve.name + (f", {curve.path}" if len(paths) > 1 else "") + (f" ({curve.flag})" if curve.flag else "")
        line = {
            "color": ramp(ranks[curve.start], len(ranks)), "width": 2,
            "dash": _DASHES[paths.index(curve.path) % len(_DASHES)],
        }  # fmt: skip
        hover = literal(f"{curve.trial}, {curve.about}") + f"<br>{curve.letter} = %{{y:.3f}} at step %{{x:,}}"
        traces.append(
            go.Scatter(
                mode="lines", name=literal(name), legendgroup=literal(name), showlegend=name not in named, line=line,
                x=[step for step, _ in curve.points], y=[value for _, value in curve.points],
                hovertemplate=f"{hover}<extra></extra>",
            )
        )  # fmt: skip
        named.add(name)
    values = [value for curve in curves for _, value in curve.points] + list(levels)
    near = [b for b in bounds if min(values) - 0.02 * b <= b <= max(values) + 0.02 * b]
    figure = drawing(traces, "training step", title)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(range=padded(values))
    figure.update_layout(shapes=[*(_level(y, "dot") for y in levels), *(_level(y, "dash") for y in near)])
    return figure


def _level(y: float, dash: str) -> dict[str, object]:
    line = {"color": FAINT, "width": 1, "dash": dash}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def _curves(record: Record, view: RunView) -> list[LearningCurve]:
    flags = {motion.path: motion.flag for motion in motions(record, view.facts)}
    known, found = dict(parsed(record.candidate) or ()), []
    for path, points in _points(record).items():
        branch = known.get(path)
        moved = branch.choice.moves if branch else None
        if branch is None or moved is None or moved not in LETTERS:
            continue
        choice, letter = branch.choice, LETTERS[moved]
        guided = f", guided by {', '.join(branch.labels)}" if branch.labels else ""
        name, start = choice.started(plain), choice.numbers[moved]
        key = (choice.numbers.get("dilation", 0.0), start)
        flag = flags.get(path, "")
        found.append(LearningCurve(record.trial, path, letter, key, name, path + guided, flag, points))
    return found


def _points(record: Record) -> Mapping[str, list[tuple[int, float]]]:
    """Return a record's trace by path, thinned to what can be seen."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, path, value in record.trace:
        if finite(value) is not None:
            found.setdefault(path, []).append((step, value))
    thinned = {}
    for path, points in found.items():
        stride = math.ceil(len(points) / _MOST_POINTS)
        thinned[path] = points[:-1:stride] + points[-1:] if len(points) > 1 else points
    return {path: points for path, points in thinned.items() if len(points) > 1}
