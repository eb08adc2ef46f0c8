"""The figures, as plotly's plain JSON: what to draw, and which parts a reader can switch.

A figure is drawn by the page's script, which puts the page's colours in place of `@ink` and `@paper`, so that one
figure serves light, dark and print. Text is escaped, since plotly reads its labels as HTML.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rfsearch.ledger import Record
from rfsearch.ledger.record import parsed
from rfsearch.report.digest import Digest, Split, has_moved, has_start, motions, setting_of
from rfsearch.report.front import AXES, Axis, held_against
from rfsearch.report.latency import shown as latency
from rfsearch.report.rows import anytime_table
from rfsearch.report.wording import byte_scale, field_px, finite, literal, plain, score, si_scale

Trace = dict[str, Any]

INK, PAPER, FAINT = "@ink", "@paper", "@faint"
COLOURS = ("#2f7fd1", "#e0731d", "#1a9e77", "#b05fc0", "#c9a100", "#d1495b", "#5b8c9e", "#8a6f4d")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star-triangle-down")
# Coincident trials of several strategies show as nested marks.
_SIZES = (13, 11, 10, 9, 8, 8, 8, 8)
_MOST_POINTS = 300  # of a line: more are not seen
_AXIS_KEYS = ("x", "y", "text", "error_x")  # of a trace, which change with the cost that trials are held against


@dataclass(frozen=True)
class Option:
    """One position of a switch: what it changes in the traces, and in the layout."""

    label: str
    traces: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Switch:
    label: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Figure:
    """What plotly draws. label: for those who cannot see it. The first option of each switch is the one drawn."""

    name: str
    label: str
    data: list[Trace]
    layout: dict[str, Any]
    switches: tuple[Switch, ...] = ()

    def to_json(self) -> dict[str, Any]:
        switches = [
            {
                "label": s.label,
                "options": [{"label": o.label, "traces": o.traces, "layout": o.layout} for o in s.options],
            }
            for s in self.switches
            if len(s.options) > 1
        ]
        return {"name": self.name, "data": self.data, "layout": self.layout, "switches": switches}


def anytime(told: Digest) -> Figure | None:
    """The incumbent's score over what its strategy had spent: mean over seeds, with a band from lowest to highest."""
    table = anytime_table(told.records)
    table = table[table["val"].notna()]
    if table.empty:
        return None
    unit = told.facts.reference_flop
    flop_factor, prefix = si_scale(float(table["spent_flop"].max()))
    clocks = [
        ("training compute", "spent_flop", unit or flop_factor,
         "spent, × one reference training" if unit else f"spent, {prefix}FLOP"),
        ("device time", "spent_device_s", *_time_axis(float(table["spent_device_s"].max()))),
    ]  # fmt: skip
    splits = _splits(told)
    several = any(len(told.finals(s)) > 1 for s in told.strategies)
    data: list[Trace] = []
    drawn: list[tuple[Split, list[list[Any]], list[list[Any]]]] = []  # split, x and y by clock
    for split in splits:
        ends = [max(table[column]) / factor for _, column, factor, _ in clocks]
        level = _default_level(told, split)
        if level is not None:
            line = _dotted_level(level)
            data.append(line)
            drawn.append((split, [[0, end] for end in ends], [[level, level] for _ in clocks]))
        for i, strategy in enumerate(told.strategies):
            rows = table[table["strategy"] == strategy]
            curves = [_steps(rows, column, factor, split) for _, column, factor, _ in clocks]
            if not curves[0].x:
                continue
            colour = COLOURS[i % len(COLOURS)]
            if curves[0].seeds > 1:
                band = {"type": "scatter", "mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip",
                        "showlegend": False, "legendgroup": strategy}  # fmt: skip
                data += [dict(band), {**band, "fill": "tonexty", "fillcolor": _see_through(colour)}]
                drawn.append((split, [c.x for c in curves], [c.low for c in curves]))
                drawn.append((split, [c.x for c in curves], [c.high for c in curves]))
            seeds = f" ({curves[0].seeds} seeds)" if several else ""
            data.append({
                "type": "scatter", "mode": "lines+markers", "name": literal(strategy + seeds), "legendgroup": strategy,
                "line": {"color": colour, "width": 2, "shape": "hv"},
                "marker": {"size": 5, "symbol": _SYMBOLS[i % len(_SYMBOLS)]},
                "hovertemplate": "%{y:.4f} at %{x:.3g}",
            })  # fmt: skip
            drawn.append((split, [c.x for c in curves], [c.mean for c in curves]))
    if not data:
        return None
    for trace, (split, xs, ys) in zip(data, drawn, strict=True):
        trace.update(x=xs[0], y=ys[0], visible=split == splits[0])
    by_clock = [
        Option(
            name,
            {"x": [xs[k] for _, xs, _ in drawn], "y": [ys[k] for _, _, ys in drawn]},
            {"xaxis.title.text": title},
        )
        for k, (name, _, _, title) in enumerate(clocks)
    ]
    ranges = {s: _padded(y for split, _, ys in drawn if split == s for y in ys[0]) for s in splits}
    layout = _layout(clocks[0][3], _score_title(splits[0]))
    layout["xaxis"]["rangemode"] = "tozero"
    layout["yaxis"]["range"] = ranges[splits[0]]
    by_split = _split_options(splits, [split for split, _, _ in drawn], ranges)
    label = "Line chart: score of each strategy's incumbent over what it had spent."
    return Figure("anytime", label, data, layout, (Switch("against", tuple(by_clock)), Switch("score", by_split)))


def pareto(told: Digest) -> Figure | None:
    """Score against a cost that the reader chooses, with its front. Validation comes first: it chose the front."""
    axes = [(axis, *held_against(axis, told.records)) for axis in AXES]
    axes = [entry for entry in axes if entry[1]]
    if not axes:
        return None
    splits = _splits(told)[::-1]
    data: list[Trace] = []
    owner: list[Split] = []
    per_axis: list[dict[str, list[Any]]] = [{key: [] for key in _AXIS_KEYS} for _ in axes]
    scales = [_scaled(axis, shown, told) for axis, shown, _ in axes]
    hovers = _hovers(told)
    for split in splits:
        value = _value(split)
        front = {
            "type": "scatter", "mode": "lines+markers" if split == "val" else "markers",
            "name": "front (chosen on validation)", "line": {"color": FAINT, "width": 1.5, "shape": "hv"},
            "marker": {"symbol": "circle-open", "size": 19, "color": INK, "line": {"width": 1.5}},
            "hoverinfo": "skip",
        }  # fmt: skip
        data.append(front)
        owner.append(split)
        for k, (axis, _, members) in enumerate(axes):
            _extend(per_axis[k], [r for r in members if value(r) is not None], axis, scales[k][0], value, {})
        for i, strategy in enumerate(told.strategies):
            if not any(r.strategy == strategy and value(r) is not None for r in told.scored):
                continue
            data.append(_marks(strategy, i))
            owner.append(split)
            for k, (axis, shown, _) in enumerate(axes):
                chosen = [r for r in shown if r.strategy == strategy and value(r) is not None]
                _extend(per_axis[k], chosen, axis, scales[k][0], value, hovers)
    for j, trace in enumerate(data):
        trace.update({key: per_axis[0][key][j] for key in _AXIS_KEYS}, visible=owner[j] == splits[0])
    x_ranges = [_padded([x for xs in held["x"] for x in xs], 0.06) for held in per_axis]
    by_axis = tuple(
        Option(
            axis.title,
            {key: per_axis[k][key] for key in _AXIS_KEYS},
            {"xaxis.title.text": scales[k][1], "xaxis.range": x_ranges[k]},
        )
        for k, (axis, _, _) in enumerate(axes)
    )
    ranges = {
        s: _padded([y for o, ys in zip(owner, per_axis[0]["y"], strict=True) if o == s for y in ys]) for s in splits
    }
    layout = _layout(scales[0][1], _score_title(splits[0]))
    layout["xaxis"]["range"] = x_ranges[0]
    layout["yaxis"]["range"] = ranges[splits[0]]
    switches = (Switch("cost", by_axis), Switch("score", _split_options(splits, owner, ranges)))
    return Figure("pareto", "Scatter plot: score of each trial against its cost.", data, layout, switches)


def against_rf(told: Digest) -> Figure | None:
    """Score of every scored trial over its receptive field, with the hand default and the winner marked."""
    if not told.scored:
        return None
    splits = _splits(told)
    data: list[Trace] = []
    owner: list[Split] = []
    hovers = _hovers(told)
    for split in splits:
        value = _value(split)
        shown = [(r, v) for r in told.scored if (v := value(r)) is not None]
        before = len(data)
        moved = [(r, v) for r, v in shown if has_moved(r)]
        if moved:
            data.append({
                "type": "scatter", "mode": "lines", "name": "way from the initial RF", "hoverinfo": "skip",
                "x": [x for r, _ in moved for x in (r.rf_init_px, r.rf_px, None)],
                "y": [y for _, v in moved for y in (v, v, None)],
                "line": {"color": FAINT, "width": 1.2, "dash": "dot"},
            })  # fmt: skip
        for i, strategy in enumerate(told.strategies):
            mine = [(r, v) for r, v in shown if r.strategy == strategy]
            if mine:
                marks = _marks(strategy, i)
                marks.update(
                    x=[r.rf_px for r, _ in mine], y=[v for _, v in mine], text=[hovers[r.trial] for r, _ in mine]
                )
                data.append(marks)
        for name, symbol, rings in (
            ("hand default", "diamond-open", list(told.defaults)),
            ("winner", "circle-open", [told.winner] if told.winner else []),
        ):
            points = [(r.rf_px, v) for r in rings if (v := value(r)) is not None]
            if points:
                data.append({
                    "type": "scatter", "mode": "markers", "name": name, "hoverinfo": "skip",
                    "x": [x for x, _ in points], "y": [y for _, y in points],
                    "marker": {"symbol": symbol, "size": 22 if name == "winner" else 20, "color": INK,
                               "line": {"width": 1.8}},
                })  # fmt: skip
        owner += [split] * (len(data) - before)
    for trace, split in zip(data, owner, strict=True):
        trace["visible"] = split == splits[0]
    ranges = {
        s: _padded([y for o, t in zip(owner, data, strict=True) if o == s for y in t["y"] if y is not None])
        for s in splits
    }
    layout = _layout("receptive field, px", _score_title(splits[0]))
    layout["yaxis"]["range"] = ranges[splits[0]]
    layout["xaxis"].update(
        _rf_axis([r.rf_px for r in told.scored] + [r.rf_init_px for r in told.scored if has_start(r)])
    )
    switches = (Switch("score", _split_options(splits, owner, ranges)),)
    return Figure(
        "against-rf", "Scatter plot: score of each trial against its receptive field.", data, layout, switches
    )


_LEARNED = {"f": ("learned-f", "inflation factor f"), "γ": ("learned-gamma", "sample stride γ, px of its map")}


def learned(told: Digest, letter: str) -> Figure | None:
    """The learned f or γ over the training steps, one line a start and path (after Wei et al., Figs. 4-7)."""
    lines = [line for r in told.records for line in _learned_lines(r, told) if line.letter == letter]
    if not lines:
        return None
    paths = tuple(dict.fromkeys(line.path for line in lines))
    ranks = {start: rank for rank, start in enumerate(sorted({line.start for line in lines}))}
    data: list[Trace] = []
    shown: set[str] = set()
    for line in sorted(lines, key=lambda line: line.start):
        name = line.name + (f", {line.path}" if len(paths) > 1 else "")
        if line.flag:
            name += f" ({line.flag})"
        data.append({
            "type": "scatter", "mode": "lines", "name": literal(name), "legendgroup": literal(name),
            "showlegend": name not in shown,
            "x": [step for step, _ in line.points], "y": [value for _, value in line.points],
            "line": {"color": _ramp(ranks[line.start], len(ranks)), "width": 2,
                     "dash": ("solid", "dash", "dot", "dashdot")[paths.index(line.path) % 4]},
            "hovertemplate": literal(f"{line.trial}, {line.about}")
            + f"<br>{letter} = %{{y:.3f}} at step %{{x:,}}<extra></extra>",
        })  # fmt: skip
        shown.add(name)
    figure, title = _LEARNED[letter]
    layout = _layout("training step", title)
    layout["xaxis"]["rangemode"] = "tozero"
    levels = [1.0] if letter == "f" else []
    values = [y for trace in data for y in trace["y"]] + levels
    layout["yaxis"]["range"] = _padded(values)
    held = told.facts.f_bounds if letter == "f" else told.facts.gamma_bounds
    bounds = [b for b in held if min(values) - 0.02 * b <= b <= max(values) + 0.02 * b]
    layout["shapes"] = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y,
         "line": {"color": FAINT, "width": 1, "dash": "dot" if y in levels else "dash"}}
        for y in (*levels, *bounds)
    ]  # fmt: skip
    return Figure(figure, f"Line chart: learned {title} over training steps.", data, layout)


@dataclass(frozen=True)
class _Learned:
    """What one path of a trial learned over its steps. start: what it began from, to sort by; about: it in words."""

    trial: str
    path: str
    letter: str
    start: tuple[float, float]
    name: str
    about: str
    flag: str
    points: list[tuple[int, float]]


def _learned_lines(record: Record, told: Digest) -> list[_Learned]:
    flags = {motion.path: motion.flag for motion in motions(record, told.facts)}
    known, found = dict(parsed(record.candidate) or ()), []
    for path, points in _traces(record).items():
        choice = known.get(path)
        if choice is None or choice.searched:
            continue
        guided = f", guided by {', '.join(choice.labels)}" if choice.labels else ""
        if choice.sampling:
            letter, start, name = "γ", choice.sampling.gamma, f"γ from {plain(choice.sampling.gamma)}"
        else:
            letter, start, name = "f", choice.f, f"dilation {choice.dilation}"
            name += f", f from {plain(start)}" if start != 1.0 else ""
        key = (float(choice.dilation), start)
        found.append(_Learned(record.trial, path, letter, key, name, path + guided, flags.get(path, ""), points))
    return found


@dataclass(frozen=True)
class _Curve:
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int


def _steps(rows: pd.DataFrame, column: str, factor: float, split: str) -> _Curve:
    """Mean, lowest and highest incumbent score of the seeds of one strategy, from where each of them has one."""
    seeds = []
    for _, mine in rows.groupby("seed"):
        points = [
            (x / factor, y) for x, y in zip(mine[column], mine[split], strict=True) if finite(float(y)) is not None
        ]
        if points:
            seeds.append(points)
    if not seeds:
        return _Curve([], [], [], [], 0)
    begin = max(points[0][0] for points in seeds)
    xs = sorted({x for points in seeds for x, _ in points if x >= begin})
    places = [[bisect_right(points, x, key=lambda point: point[0]) - 1 for points in seeds] for x in xs]
    levels = [[points[at][1] for points, at in zip(seeds, row, strict=True)] for row in places]
    return _Curve(xs, [sum(v) / len(v) for v in levels], [min(v) for v in levels], [max(v) for v in levels], len(seeds))


def _traces(record: Record) -> dict[str, list[tuple[int, float]]]:
    """A record's trace by site, thinned to what can be seen."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, site, f in record.trace:
        if finite(f) is not None:
            found.setdefault(site, []).append((step, f))
    thinned = {}
    for site, points in found.items():
        stride = math.ceil(len(points) / _MOST_POINTS)
        thinned[site] = points[:-1:stride] + points[-1:] if len(points) > 1 else points
    return {site: points for site, points in thinned.items() if len(points) > 1}


def _splits(told: Digest) -> tuple[Split, ...]:
    return ("test", "val") if told.split == "test" else ("val",)


def _value(split: Split) -> Callable[[Record], float | None]:
    return lambda record: finite(getattr(record, split))


def _default_level(told: Digest, split: Split) -> float | None:
    values = [v for r in told.defaults if (v := _value(split)(r)) is not None]
    return sum(values) / len(values) if values else None


def _dotted_level(level: float) -> Trace:
    return {
        "type": "scatter", "mode": "lines", "name": "hand default",
        "line": {"color": INK, "width": 1.3, "dash": "dot"},
        "hovertemplate": f"hand default {score(level)}<extra></extra>",
    }  # fmt: skip


def _split_options(
    splits: Sequence[Split], owner: Sequence[Split], ranges: Mapping[Split, list[float]]
) -> tuple[Option, ...]:
    return tuple(
        Option(
            "validation" if split == "val" else "test",
            {"visible": [o == split for o in owner]},
            {"yaxis.title.text": _score_title(split), "yaxis.range": ranges[split]},
        )
        for split in splits
    )


def _score_title(split: Split) -> str:
    return "validation score" if split == "val" else "test score"


def _marks(strategy: str, i: int) -> Trace:
    return {
        "type": "scatter", "mode": "markers", "name": literal(strategy),
        "marker": {"color": COLOURS[i % len(COLOURS)], "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                   "size": _SIZES[i % len(_SIZES)], "line": {"color": PAPER, "width": 1}},
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _hovers(told: Digest) -> dict[str, str]:
    """What is shown beside the mark of each scored trial, by trial."""
    return {record.trial: _hover(record, told) for record in told.scored}


def _hover(record: Record, told: Digest) -> str:
    lines = [
        record.trial,
        setting_of(record.candidate, record),
        f"RF {field_px(record.rf_px, record.path_rf_px)} px",
        f"validation {score(record.val)}" + (f", test {score(record.test)}" if told.split == "test" else ""),
    ]
    if record.infer_latency_spread_ms is not None:
        lines.append(f"latency {latency(record)}")
    return "<br>".join(literal(line) for line in lines)


def _extend(
    held: dict[str, list[Any]],
    records: Iterable[Record],
    axis: Axis,
    factor: float,
    value: Callable[[Record], float | None],
    hovers: Mapping[str, str],
) -> None:
    """Add one trace's points on one axis. hovers: by trial; none for a trace that shows no text."""
    records = list(records)
    held["x"].append([(axis.cost(r) or 0.0) / factor for r in records])
    held["y"].append([value(r) for r in records])
    held["text"].append([hovers[r.trial] for r in records] if hovers else [])
    held["error_x"].append(_bars(records, axis, factor) if hovers else {"visible": False})


def _bars(records: Sequence[Record], axis: Axis, factor: float) -> dict[str, Any]:
    """How far each cost may lie above and below what is drawn."""
    if axis.spread is None or not any(axis.spread(r) for r in records):
        return {"visible": False}
    costs = [axis.cost(r) or 0.0 for r in records]
    ends = [axis.spread(r) or (cost, cost) for r, cost in zip(records, costs, strict=True)]
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3, "visible": True,
        "array": [(high - cost) / factor for (_, high), cost in zip(ends, costs, strict=True)],
        "arrayminus": [(cost - low) / factor for (low, _), cost in zip(ends, costs, strict=True)],
    }  # fmt: skip


def _scaled(axis: Axis, shown: Sequence[Record], told: Digest) -> tuple[float, str]:
    """What to divide an axis's costs by, and its title."""
    largest = max(axis.cost(r) or 0.0 for r in shown)
    if axis.unit == "bytes":
        factor, unit = byte_scale(largest)
        return factor, f"{axis.title}, {unit}"
    if axis.name == "train_flop" and told.facts.reference_flop:
        return told.facts.reference_flop, "training FLOP, × one reference training"
    if axis.unit in ("MAC", "FLOP"):
        factor, prefix = si_scale(largest)
        return factor, f"{axis.title.removesuffix(' ' + axis.unit)}, {prefix}{axis.unit}"
    return 1.0, f"{axis.title}, {axis.unit}"


def _time_axis(longest: float) -> tuple[float, str]:
    for factor, unit in ((3600.0, "hours"), (60.0, "minutes")):
        if longest >= 2 * factor:
            return factor, f"device time spent, {unit}"
    return 1.0, "device time spent, s"


def _rf_axis(values: Sequence[int]) -> dict[str, Any]:
    """A linear axis, or a logarithmic one with plain labels where the receptive fields span a wide range."""
    low, high = max(1, min(values)), max(1, *values)
    if high / low < 8:
        return {"range": _padded([float(v) for v in values], 0.06)}
    ticks = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    span = _padded([math.log10(low), math.log10(high)], 0.06)
    return {"type": "log", "range": span, "tickvals": ticks, "ticktext": [f"{t:,}" for t in ticks]}


def _padded(values: Iterable[float | None], share: float = 0.08) -> list[float]:
    """A range that leaves room around its values, also where there is only one."""
    known = [v for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = share * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def _layout(x_title: str, y_title: str) -> dict[str, Any]:
    axis = {"gridcolor": "@grid", "linecolor": "@grid", "zeroline": False, "ticks": "", "automargin": True}
    return {
        "xaxis": {**axis, "title": {"text": x_title, "standoff": 10}},
        "yaxis": {**axis, "title": {"text": y_title, "standoff": 8}},
        "font": {"color": INK, "size": 13, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": "@grid", "font": {"color": INK}, "align": "left"},
        "hovermode": "closest",
        "height": 420,
    }


def _ramp(i: int, count: int) -> str:
    """A colour of a ramp from blue over green to orange, readable on white and on near-black."""
    stops = ((59, 104, 200), (30, 160, 150), (120, 170, 60), (224, 150, 30), (205, 75, 55))
    at = 0.0 if count < 2 else i / (count - 1) * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    mixed = [round(a + (b - a) * (at - k)) for a, b in zip(stops[k], stops[k + 1], strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _see_through(colour: str) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},0.16)"
