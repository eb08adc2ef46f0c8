"""The incumbent's score over what its strategy had spent: the mean over seeds, with a band from lowest to highest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from rfsearch.numbers import score
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.clocks import Clock, clocks_of
from rfsearch.report.figures.curves import mean_curve
from rfsearch.report.figures.scores import add_score_switch, score_on, score_splits, score_title
from rfsearch.report.figures.style import COLOURS, INK, drawing, padded, see_through, steps
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.rows import anytime_table
from rfsearch.report.view import RunView, ScoreSplit
from rfsearch.report.wording import literal


@dataclass(frozen=True)
class _Line:
    """Hold a line before it is drawn: its style, the split of its scores, and its points by clock."""

    style: Mapping[str, Any]
    split: ScoreSplit
    xs: list[list[float]]
    ys: list[list[float]]


def build(view: RunView) -> go.Figure | None:
    """Draw one curve per strategy, and the hand default as a level. None where no trial was scored."""
    table = anytime_table(view.records, view.run.direction)
    table = table[table["val"].notna()]
    if table.empty:
        return None
    clocks = clocks_of(view)
    lines = [line for split in score_splits(view) for line in _lines(view, table, clocks, split)]
    splits = tuple(dict.fromkeys(line.split for line in lines))  # no incumbent may have a score on the test split
    figure = drawing(
        [go.Scatter(line.style, x=line.xs[0], y=line.ys[0]) for line in lines], clocks[0].title, score_title(splits[0])
    )
    figure.update_xaxes(rangemode="tozero")
    options = [
        Option(
            clock.label,
            {"x": [line.xs[k] for line in lines], "y": [line.ys[k] for line in lines]},
            {"xaxis.title.text": clock.title},
        )
        for k, clock in enumerate(clocks)
    ]
    add_switch(figure, "against", options)
    figure.update_traces(cliponaxis=False, selector={"mode": "lines+markers"})
    ranges = {split: padded(y for line in lines if line.split == split for y in line.ys[0]) for split in splits}
    notes = {split: _end_labels(lines, split, ranges[split]) for split in splits}
    add_score_switch(figure, [line.split for line in lines], ranges, notes)
    figure.update_layout(margin={"r": 110})
    return figure


def _lines(view: RunView, table: pd.DataFrame, clocks: tuple[Clock, ...], split: ScoreSplit) -> Iterator[_Line]:
    """Yield the lines of one split: the hand default's level, then each strategy's band and curve."""
    value = score_on(split)
    defaults = [v for record in view.defaults if (v := value(record)) is not None]
    if defaults:
        level = sum(defaults) / len(defaults)
        ends = [max(table[f"spent_{clock.currency}"]) / clock.unit for clock in clocks]
        yield _Line(_level_style(level), split, [[0, end] for end in ends], [[level, level] for _ in clocks])
    several = any(len(view.finals(strategy)) > 1 for strategy in view.strategies)
    for i, strategy in enumerate(view.strategies):
        rows = table[table["strategy"] == strategy]
        curves = [mean_curve(rows, clock, split) for clock in clocks]
        if not curves[0].x:
            continue
        colour, xs = COLOURS[i % len(COLOURS)], [curve.x for curve in curves]
        if curves[0].seeds > 1:
            band = {
                "mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "showlegend": False,
                "legendgroup": literal(strategy),
            }  # fmt: skip
            yield _Line(band, split, xs, [curve.low for curve in curves])
            filled = {**band, "fill": "tonexty", "fillcolor": see_through(colour)}
            yield _Line(filled, split, xs, [curve.high for curve in curves])
        seeds = f" ({curves[0].seeds} seeds)" if several else ""
        style = steps(i, literal(strategy + seeds))
        style |= {"legendgroup": literal(strategy), "hovertemplate": "%{y:.4f} at %{x:.3g}"}
        yield _Line(style, split, xs, [curve.mean for curve in curves])


def _end_labels(lines: Sequence[_Line], split: ScoreSplit, span: Sequence[float]) -> list[dict[str, Any]]:
    """Return the names of the strategies at the ends of their curves, moved apart where they would overlap."""
    ends = sorted(
        (line.ys[0][-1], line.style["marker"]["color"], line.style["legendgroup"])
        for line in lines
        if line.split == split and "marker" in line.style
    )
    places = _apart([level for level, _, _ in ends], 0.055 * (span[1] - span[0]), span[1])
    return [
        {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 6, "y": place, "text": name, "showarrow": False,
         "font": {"color": colour, "size": 12}}
        for place, (_, colour, name) in zip(places, ends, strict=True)
    ]  # fmt: skip


def _apart(levels: Sequence[float], least: float, most: float) -> list[float]:
    """Move ascending levels at least so far apart, and none above the most, where it would not be shown."""
    places, before = list[float](), -math.inf
    for level in levels:
        before = max(level, before + least)
        places.append(before)
    after = most + least
    for i in reversed(range(len(places))):
        after = places[i] = min(places[i], after - least)
    return places


def _level_style(level: float) -> dict[str, Any]:
    return {
        "mode": "lines", "name": "hand default", "line": {"color": INK, "width": 1.3, "dash": "dot"},
        "hovertemplate": f"hand default {score(level)}<extra></extra>",
    }  # fmt: skip


def caption(view: RunView) -> str:
    """Return how to read the curves."""
    worse = "fall" if view.run.direction == "maximize" else "rise"
    return (
        f"What each strategy would have answered with, had it been stopped there: the score ({view.metric}) of "
        f"its incumbent, chosen on validation, so a test curve may {worse}. A line starts with the first scored trial; "
        "with several seeds it is their mean, from where each has one, and the band reaches from the lowest to the "
        "highest."
    )


ANYTIME = Figure(
    title="Score for what was spent",
    order=10,
    label="Line chart: score of each strategy's incumbent over what it had spent.",
    build=build,
    caption=caption,
)
