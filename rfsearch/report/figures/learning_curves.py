"""What training moved, over its steps: one line per trial and path (after Wei et al., Figs. 4-7)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.numbers import finite, plain
from rfsearch.report.figures.style import DASHES, FAINT, INK, SYMBOLS, drawing, padded, ramp
from rfsearch.report.view import LETTERS, RunView, motions
from rfsearch.report.wording import literal

_MOST_POINTS = 300  # of a line: more are not seen
_MOST_LINES = 60
_LETTERS = {**LETTERS, "dilation": "d"}


@dataclass(frozen=True)
class LearningCurve:
    """Hold what one path of a trial learned over its steps.

    Attributes:
        trial: Name of the trial.
        strategy: Label of its strategy.
        path: Name of the path.
        letter: What was learned: f, γ or d, a dilation.
        start: Its dilation and where f or γ began, to sort and colour by.
        name: The start in words.
        about: The path in words.
        flag: What a reader must know of how it ended; empty where there is nothing.
        points: Training step and value.
    """

    trial: str
    strategy: str
    path: str
    letter: str
    start: tuple[float, float]
    name: str
    about: str
    flag: str
    points: Sequence[tuple[int, float]]


def learning_curves(view: RunView, letter: str) -> list[LearningCurve]:
    """Return what trials of a run learned of f, of γ or of a dilation, in the order of its records.

    Where more trials learned than lines can be told apart, those that lead their arms and the best others are kept.
    """
    curves = [curve for record in _learners(view, letter) for curve in _curves(record, view) if curve.letter == letter]
    if len(curves) <= _MOST_LINES:
        return curves
    leaders = {arm.incumbent.trial for arm in view.arms if arm.incumbent}
    merits = {r.trial: view.merits([r.val])[0] for r in view.scored if r.val is not None}
    order = sorted(curves, key=lambda c: (c.trial not in leaders, -merits.get(c.trial, -math.inf)))
    kept = {curve.trial for curve in order[:_MOST_LINES]}
    return [curve for curve in curves if curve.trial in kept]


def say_what_is_left_out(view: RunView, letter: str) -> str:
    """Return how many of the trials that learned something are shown, as a sentence; empty where all are."""
    learned = {record.trial for record in _learners(view, letter)}
    shown = {curve.trial for curve in learning_curves(view, letter)}
    if len(shown) == len(learned):
        return ""
    return f" Shown are {len(shown)} of {len(learned):,} trials: those that lead their arms, and the best others."


def _learners(view: RunView, letter: str) -> list[Record]:
    """Return the trials that moved a number of this letter, and told how."""
    return [
        record
        for record in view.records
        if record.trace
        and any(
            path.choice.moves and _LETTERS.get(path.choice.moves) == letter
            for _, path in parsed(record.candidate) or ()
        )
    ]


def draw_curves(
    curves: Sequence[LearningCurve], title: str, bounds: Iterable[float], levels: Sequence[float] = ()
) -> go.Figure:
    """Draw learning curves over the training steps: one colour per start, one dash per path.

    Where several strategies learned, each one's lines end in its own mark.

    Args:
        curves: At least one.
        title: What was learned, with its unit.
        bounds: Values that it could not pass. They are drawn where they are near.
        levels: Values that are marked whether they are near or not.
    """
    paths = tuple(dict.fromkeys(curve.path for curve in curves))
    strategies = tuple(dict.fromkeys(curve.strategy for curve in curves))
    ranks = {start: rank for rank, start in enumerate(sorted({curve.start for curve in curves}))}
    traces, named = list[go.Scatter](), set[str]()
    for curve in sorted(curves, key=lambda curve: (strategies.index(curve.strategy), curve.start)):
        name = curve.name + (f", {curve.path}" if len(paths) > 1 else "") + (f" ({curve.flag})" if curve.flag else "")
        name = f"{curve.strategy}: {name}" if len(strategies) > 1 else name
        line = {
            "color": ramp(ranks[curve.start], len(ranks)), "width": 2,
            "dash": DASHES[paths.index(curve.path) % len(DASHES)],
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
    if len(strategies) > 1:
        traces += [_ends(strategy, i, curves) for i, strategy in enumerate(strategies)]
    values = [value for curve in curves for _, value in curve.points] + list(levels)
    near = [b for b in bounds if min(values) - 0.02 * b <= b <= max(values) + 0.02 * b]
    figure = drawing(traces, "training step", title)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(range=padded(values))
    figure.update_layout(shapes=[*(_level(y, "dot") for y in levels), *(_level(y, "dash") for y in near)])
    return figure


def _ends(strategy: str, place: int, curves: Sequence[LearningCurve]) -> go.Scatter:
    """Return the marks in which the lines of one strategy end."""
    ends = [curve.points[-1] for curve in curves if curve.strategy == strategy]
    return go.Scatter(
        mode="markers", name=literal(f"ends of {strategy}"), hoverinfo="skip",
        x=[step for step, _ in ends], y=[value for _, value in ends],
        marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8, "color": INK},
    )  # fmt: skip


def _level(y: float, dash: str) -> dict[str, object]:
    line = {"color": FAINT, "width": 1, "dash": dash}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def _curves(record: Record, view: RunView) -> list[LearningCurve]:
    flags = {motion.path: motion.flag for motion in motions(record, view.facts)}
    known, found = dict(parsed(record.candidate) or ()), []
    for path, points in _points(record).items():
        branch = known.get(path)
        moved = branch.choice.moves if branch else None
        if branch is None or moved is None or moved not in _LETTERS:
            continue
        choice, letter = branch.choice, _LETTERS[moved]
        guided = f", guided by {', '.join(branch.labels)}" if branch.labels else ""
        name = "to be found" if choice.searched else choice.started(plain)
        start = 0.0 if choice.searched else choice.numbers[moved]
        key = (0.0 if choice.searched else choice.numbers.get("dilation", 0.0), start)
        flag = flags.get(path, "")
        found.append(LearningCurve(record.trial, record.strategy, path, letter, key, name, path + guided, flag, points))
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
