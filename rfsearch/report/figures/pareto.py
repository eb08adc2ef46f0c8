"""Score against a cost that the reader chooses, with its front. Validation is shown first: it chose the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.numbers import byte_scale, si_scale
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.scores import (
    Value,
    add_score_switch,
    hover_texts,
    score_on,
    score_splits,
    score_title,
    whole_trainings,
)
from rfsearch.report.figures.style import FAINT, INK, drawing, marks, padded
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.front import COST_AXES, CostAxis, trials_and_front
from rfsearch.report.latency import how_measured
from rfsearch.report.view import RunView, ScoreSplit
from rfsearch.report.wording import literal

_HIDDEN: Mapping[str, Any] = {"visible": False}


@dataclass(frozen=True)
class _Drawn:
    """Hold one cost axis as it is drawn: its title, what its costs are divided by, its trials and its front."""

    axis: CostAxis
    title: str
    unit: float
    trials: Mapping[str, Record]
    front: Sequence[Record]

    def cost(self, record: Record) -> float | None:
        """Return what a trial cost in the unit of the axis; None where it is not shown there."""
        return (self.axis.cost(record) or 0.0) / self.unit if record.trial in self.trials else None


@dataclass(frozen=True)
class _Series:
    """Hold one trace before its costs are chosen: its style, the split of its scores, and its trials on each axis."""

    split: ScoreSplit
    style: Mapping[str, Any]
    records: Sequence[Sequence[Record]]
    measured: bool

    def costs(self, drawn: _Drawn, k: int) -> list[float | None]:
        """Return its trials' costs on the k-th axis."""
        return [drawn.cost(record) for record in self.records[k]]

    def scores(self, k: int) -> list[float | None]:
        """Return its trials' scores on the k-th axis."""
        value = score_on(self.split)
        return [value(record) for record in self.records[k]]


def build(view: RunView) -> go.Figure | None:
    """Draw one mark per trial that has a cost, and rings around the front. None where no trial has a cost."""
    first = sorted(COST_AXES, key=lambda axis: axis.name not in view.facts.costs)
    split = [(axis, trials_and_front(axis, view.records, view.run.direction)) for axis in first]
    axes = [_drawn_axis(axis, view, *found) for axis, found in split if found[0]]
    if not axes:
        return None
    splits, hovers = score_splits(view)[::-1], hover_texts(view)
    series = [one for split in splits for one in _series(view, axes, split, hovers)]
    figure = drawing(
        [go.Scatter(one.style, **_points(one, axes[0], 0)) for one in series], axes[0].title, score_title(splits[0])
    )
    steady = {record.trial for record in whole_trainings(view.scored)}
    ranges_x = [padded([drawn.cost(r) for r in drawn.trials.values() if r.trial in steady], 0.06) for drawn in axes]
    figure.update_xaxes(range=ranges_x[0])
    options = [
        Option(
            drawn.axis.title,
            {
                "x": [one.costs(drawn, k) for one in series],
                "y": [one.scores(k) for one in series],
                "error_x": [_error_bars(one.records[k], drawn) if one.measured else _HIDDEN for one in series],
            },
            {"xaxis.title.text": drawn.title, "xaxis.range": ranges_x[k]},
        )
        for k, drawn in enumerate(axes)
    ]
    add_switch(figure, "cost", options)
    owners = [one.split for one in series]
    ranges_y = {split: padded(map(score_on(split), whole_trainings(view.scored))) for split in splits}
    add_score_switch(figure, owners, ranges_y)
    return figure


def _points(series: _Series, drawn: _Drawn, k: int) -> dict[str, Any]:
    bars = _error_bars(series.records[k], drawn) if series.measured else _HIDDEN
    return {"x": series.costs(drawn, k), "y": series.scores(k), "error_x": bars}


def _drawn_axis(axis: CostAxis, view: RunView, trials: Sequence[Record], front: Sequence[Record]) -> _Drawn:
    unit, title = _scale(axis, max(axis.cost(r) or 0.0 for r in trials), view.facts.reference_flop)
    return _Drawn(axis, title, unit, {r.trial: r for r in trials}, front)


def _scale(axis: CostAxis, largest: float, reference_flop: float | None) -> tuple[float, str]:
    """Return what to divide an axis's costs by, and its title."""
    if axis.unit == "bytes":
        factor, unit = byte_scale(largest)
        return factor, f"{axis.title}, {unit}"
    if axis.name == "train_flop" and reference_flop:
        return reference_flop, "training FLOP, × one reference training"
    if axis.unit in ("MAC", "FLOP"):
        factor, prefix = si_scale(largest)
        return factor, f"{axis.title.removesuffix(' ' + axis.unit)}, {prefix}{axis.unit}"
    if axis.name == "params":
        factor, prefix = si_scale(largest)
        return factor, axis.title + (f", {prefix}" if prefix else "")
    return 1.0, f"{axis.title}, {axis.unit}"


def _series(view: RunView, axes: Sequence[_Drawn], split: ScoreSplit, hovers: Mapping[str, str]) -> list[_Series]:
    """Return one split's traces: the front, then the trials of each strategy."""
    value = score_on(split)
    front = {
        "mode": "lines+markers" if split == "val" else "markers", "name": "front (chosen on validation)",
        "line": {"color": FAINT, "width": 1.5, "shape": "hv"}, "hoverinfo": "skip",
        "marker": {"symbol": "circle-open", "size": 19, "color": INK, "line": {"width": 1.5}},
    }  # fmt: skip
    found = [_Series(split, front, [_scored(drawn.front, value) for drawn in axes], measured=False)]
    for i, strategy in enumerate(view.strategies):
        own = _scored(view.scored, value, strategy)
        if not own:
            continue
        style = {
            "mode": "markers", "name": literal(strategy), "marker": marks(i), "text": [hovers[r.trial] for r in own],
            "hovertemplate": "%{text}<br>%{xaxis.title.text}: %{x:.4~g}<extra></extra>",
        }  # fmt: skip
        found.append(_Series(split, style, [own] * len(axes), measured=True))
    return found


def _scored(records: Sequence[Record], value: Value, strategy: str | None = None) -> list[Record]:
    return [r for r in records if value(r) is not None and strategy in (None, r.strategy)]


def _error_bars(records: Sequence[Record], drawn: _Drawn) -> Mapping[str, Any]:
    """Return how far each cost may lie above and below what is drawn."""
    cost, spread = drawn.axis.cost, drawn.axis.spread
    if spread is None or not any(spread(r) for r in records):
        return _HIDDEN
    costs = [cost(r) or 0.0 for r in records]
    ends = [(spread(r) if r.trial in drawn.trials else None) or (c, c) for r, c in zip(records, costs, strict=True)]
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3, "visible": True,
        "array": [(high - c) / drawn.unit for (_, high), c in zip(ends, costs, strict=True)],
        "arrayminus": [(c - low) / drawn.unit for (low, _), c in zip(ends, costs, strict=True)],
    }  # fmt: skip


def introduction(view: RunView) -> list[str]:
    """Return which costs can tell candidates apart, and how latencies were measured."""
    alike = (
        "A convolution takes the same number of multiply-adds at every dilation, so against MAC the candidates of a "
        "pure dilation search lie on one vertical line; the receptive field, memory or latency can tell them apart."
    )
    paragraphs = [
        "" if view.facts.costs else alike,
        how_measured(view),
    ]
    return [text for text in paragraphs if text]


def caption(view: RunView) -> str:
    """Return how to read the front."""
    return (
        "Ringed: the front, the trials that no other one beats both in cost and in validation score "
        f"({view.metric}); costs whose spreads overlap are ties. The same rows are in pareto.csv."
    )


PARETO = Figure(
    title="Score against cost",
    order=30,
    label="Scatter plot: score of each trial against its cost.",
    build=build,
    caption=caption,
    introduction=introduction,
)
