"""Draw a figure's specification as an SVG: what a page shows where scripts do not run.

It draws what the report's own figures are made of: lines, marks, bars, shapes, annotations and a legend, on linear,
logarithmic and category axes. What else plotly has is left to plotly.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rfsearch.numbers import finite
from rfsearch.printable import printable
from rfsearch.report.figures.style import COLOURS, HEIGHT_PX, THEME
from rfsearch.report.svg_axes import LETTERS, Axis, axis_of
from rfsearch.report.svg_marks import mark

WIDTH = 960  # px
_LEFT, _RIGHT, _BOTTOM = 64, 96, 56
_LEGEND_LINE = 20
_LETTER = 7.2  # px: width of a letter of the legend, about
_MANY = 400  # marks of a trace; more of them are drawn as dots, which take a tenth of the bytes
_DASHES = {"dash": "8 5", "dot": "2 4", "dashdot": "8 4 2 4", "longdash": "14 5"}
_TYPES = ("scatter", "bar")
_BREAK, _TAG = re.compile(r"<br\s*/?>"), re.compile(r"</?[a-z]+[^<>]*>")


def can_draw(spec: Mapping[str, Any]) -> bool:
    """Return whether a figure has only what is drawn here."""
    return all(trace.get("type", "scatter") in _TYPES for trace in spec["data"])


def draw_svg(spec: Mapping[str, Any]) -> str:
    """Return a figure as SVG markup, as it is shown first; empty where it has what is not drawn here.

    Args:
        spec: Its `data` and `layout` as plain JSON.
    """
    if not can_draw(spec):
        return ""
    layout = spec["layout"]
    traces = [t for t in spec["data"] if t.get("visible", True) is True]
    legend, top = _legend(traces, layout)
    height = int(layout.get("height", HEIGHT_PX)) + top - _LEGEND_LINE
    margin = layout.get("margin") or {}
    left = max(_LEFT, int(margin.get("l", 0)), _room_for_names(traces))
    right = max(_RIGHT if layout.get("annotations") else 24, int(margin.get("r", 0)))
    box = (left, top, WIDTH - right, height - _BOTTOM)
    clip = f"clip-{html.escape(str(spec['name']))}"
    axes = {key: axis_of(key, layout, traces, box) for key in _axis_keys(layout, traces)}
    parts = [
        *(part for axis in axes.values() for part in axis.grid(axes)),
        *(part for shape in layout.get("shapes") or () for part in _shape(shape, axes, box)),
        f'<clipPath id="{clip}"><rect x="{left - 8}" y="{top - 8}" width="{box[2] - left + 16}"'
        f' height="{box[3] - top + 16}"/></clipPath><g clip-path="url(#{clip})">',
        *_traces(traces, axes, layout),
        "</g>",
        *(part for axis in axes.values() for part in axis.words(axes)),
        *(part for note in layout.get("annotations") or () for part in _annotation(note, axes, box)),
        *legend,
    ]
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">{"".join(parts)}</svg>'


def text_of(label: object) -> str:
    """Return a plotly label, which is markup, as text that is safe in an SVG."""
    plain = html.unescape(_TAG.sub("", _BREAK.sub(" ", str(label))))
    return html.escape(printable(plain))


def ink(colour: object, otherwise: str = "var(--ink)") -> str:
    """Return a colour as an SVG attribute takes it; the page's own colours follow the page."""
    if not isinstance(colour, str):
        return otherwise
    return f"var({THEME[colour]})" if colour in THEME else html.escape(colour)


def _room_for_names(traces: Sequence[Mapping[str, Any]]) -> int:
    """Return the room that names beside a vertical axis need, px."""
    names = [y for trace in traces for y in trace.get("y") or () if isinstance(y, str)]
    return int(24 + _LETTER * max((min(LETTERS, len(html.unescape(name))) for name in names), default=0))


def _axis_keys(layout: Mapping[str, Any], traces: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {"xaxis": None, "yaxis": None}
    for trace in traces:
        found |= {trace.get(f"{k}axis", k).replace(k, f"{k}axis", 1): None for k in "xy"}
    return [*found, *(key for key in layout if re.fullmatch(r"[xy]axis\d+", key) and key not in found)]


def _traces(traces: Sequence[Mapping[str, Any]], axes: Mapping[str, Axis], layout: Mapping[str, Any]) -> Iterator[str]:
    before: list[tuple[float, float]] = []
    bars = [t for t in traces if t.get("type") == "bar"]
    stacks: dict[object, float] = {}
    for trace in traces:
        x, y = (axes[trace.get(f"{k}axis", k).replace(k, f"{k}axis", 1)] for k in "xy")
        if trace.get("type") == "bar":
            place = bars.index(trace)
            yield from _bars(trace, x, y, (place, len(bars)), stacks, layout.get("barmode", "group"))
            continue
        points = _points(trace, x, y)
        runs = _runs(points, (trace.get("line") or {}).get("shape") == "hv")
        flat = [point for run in runs for point in run]
        if trace.get("fill") == "tonexty" and flat and before:
            yield f'<path d="{_path([flat + before[::-1]])}Z" fill="{ink(trace.get("fillcolor"), "none")}"/>'
        before = flat
        mode = trace.get("mode", "lines")
        if "lines" in mode and any(len(run) > 1 for run in runs):
            yield from _line(trace.get("line") or {}, runs)
        yield from _errors(trace, x, y)
        if "markers" in mode:
            yield from _marks(trace, [p for p in points if p])


def _points(trace: Mapping[str, Any], x: Axis, y: Axis) -> list[tuple[float, float] | None]:
    """Return a trace's points on the page; None where one has no place, which breaks a line."""
    found: list[tuple[float, float] | None] = []
    for a, b in zip(trace.get("x") or (), trace.get("y") or (), strict=False):
        place = x.place(a), y.place(b)
        found.append(None if place[0] is None or place[1] is None else (place[0], place[1]))
    return found


def _runs(points: Sequence[tuple[float, float] | None], steps: bool) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
            continue
        if steps and runs[-1]:
            runs[-1].append((point[0], runs[-1][-1][1]))
        runs[-1].append(point)
    return [run for run in runs if run]


def _path(runs: Sequence[Sequence[tuple[float, float]]]) -> str:
    return "".join("M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in run) for run in runs)


def _line(style: Mapping[str, Any], runs: Sequence[Sequence[tuple[float, float]]]) -> Iterator[str]:
    width = finite(style.get("width", 2)) or 0.0
    if width:
        dash = _DASHES.get(style.get("dash", ""), "")
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        yield f'<path d="{_path(runs)}" fill="none" stroke="{ink(style.get("color"))}" stroke-width="{width}"{dashes}/>'


def _marks(trace: Mapping[str, Any], points: Sequence[tuple[float, float]]) -> Iterator[str]:
    style = trace.get("marker") or {}
    if not points:
        return
    size, symbol = finite(style.get("size", 6)) or 6.0, str(style.get("symbol", "circle"))
    colour = ink(style.get("color") or (trace.get("line") or {}).get("color"), COLOURS[0])
    if len(points) > _MANY:
        dots = "".join(f"M{x:.4g} {y:.4g}h0" for x, y in points)
        yield f'<path d="{dots}" stroke="{colour}" stroke-width="{size:.3g}" stroke-linecap="round"/>'
        return
    shape = "".join(mark(symbol, x, y, size / 2) for x, y in points)
    edge = style.get("line") or {}
    if symbol.endswith("-open"):
        yield f'<path d="{shape}" fill="none" stroke="{colour}" stroke-width="{finite(edge.get("width", 1.5))}"/>'
    else:
        yield f'<path d="{shape}" fill="{colour}" stroke="{ink(edge.get("color"), "none")}"/>'


def _errors(trace: Mapping[str, Any], x: Axis, y: Axis) -> Iterator[str]:
    bars = trace.get("error_x") or {}
    if not bars.get("visible", bool(bars)) or not bars.get("array"):
        return
    lines = []
    rows = zip(trace["x"], trace["y"], bars["array"], bars.get("arrayminus") or bars["array"], strict=False)
    for a, b, over, under in rows:
        ends = [x.place(a + (over or 0)), x.place(a - (under or 0))] if a is not None else [None]
        level = y.place(b)
        if None not in ends and level is not None:
            lines.append(f"M{ends[0]:.4g} {level:.4g}H{ends[1]:.4g}")
    yield f'<path d="{"".join(lines)}" stroke="{ink((trace.get("marker") or {}).get("color"))}" opacity=".5"/>'


def _bars(
    trace: Mapping[str, Any], x: Axis, y: Axis, place: tuple[int, int], stacks: dict[object, float], mode: str
) -> Iterator[str]:
    lying = trace.get("orientation") == "h"
    along, across = (x, y) if lying else (y, x)
    names, values = (trace["y"], trace["x"]) if lying else (trace["x"], trace["y"])
    stacked = mode in ("stack", "relative")
    slot = across.slot() * 0.76
    width = slot if stacked else slot / place[1]
    colours = (trace.get("marker") or {}).get("color")
    for k, (name, value) in enumerate(zip(names, values, strict=False)):
        middle, number = across.place(name), finite(value)
        if middle is None or not number:
            continue
        key = (name, number > 0)
        base = stacks.get(key, 0.0) if stacked else 0.0
        stacks[key] = base + number
        low, high = along.place(base), along.place(base + number)
        if low is None or high is None:
            continue
        start = middle - slot / 2 + (0 if stacked else place[0] * width)
        near, length = min(low, high), max(0.5, abs(high - low))
        rect = (near, start, length, width) if lying else (start, near, width, length)
        fill = ink(colours[k] if isinstance(colours, list) else colours, COLOURS[0])
        yield '<rect x="{:.4g}" y="{:.4g}" width="{:.4g}" height="{:.4g}"'.format(*rect) + f' fill="{fill}"/>'


def _shape(shape: Mapping[str, Any], axes: Mapping[str, Axis], box: Sequence[float]) -> Iterator[str]:
    ends = [_place(shape, f"{k}{i}", axes, box) for i in (0, 1) for k in "xy"]
    if None in ends:
        return
    x0, y0, x1, y1 = ends
    line = shape.get("line") or {}
    if shape.get("type") == "line":
        yield from _line({"width": 1, **line}, [[(x0 or 0, y0 or 0), (x1 or 0, y1 or 0)]])
    elif shape.get("type") == "rect":
        left, top, width, height = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)  # type: ignore[type-var,operator]
        yield f'<rect x="{left:.4g}" y="{top:.4g}" width="{width:.4g}" height="{height:.4g}"' + (
            f' fill="{ink(shape.get("fillcolor"), "none")}"/>'
        )


def _place(item: Mapping[str, Any], key: str, axes: Mapping[str, Axis], box: Sequence[float]) -> float | None:
    """Return where a coordinate of a shape or an annotation lies, along its axis or as a share of the drawing."""
    letter, ref = key[0], str(item.get(f"{key[0]}ref") or key[0])
    value = item.get(key)
    if ref == "paper":
        share = finite(value) or 0.0
        return box[0] + share * (box[2] - box[0]) if letter == "x" else box[3] - share * (box[3] - box[1])
    axis = axes.get(ref.replace(letter, f"{letter}axis", 1).removesuffix(" domain"))
    if axis is None:
        return None
    if ref.endswith("domain"):
        return axis.low + (finite(value) or 0.0) * (axis.high - axis.low)
    # Annotations give the logarithm on logarithmic axes, shapes the value.
    exponent = finite(value) if axis.logarithmic and "text" in item else None
    return axis.place(value if exponent is None else 10.0**exponent)


def _annotation(note: Mapping[str, Any], axes: Mapping[str, Axis], box: Sequence[float]) -> Iterator[str]:
    x, y = _place(note, "x", axes, box), _place(note, "y", axes, box)
    if x is None or y is None:
        return
    anchor = {"left": "start", "right": "end"}.get(note.get("xanchor", "center"), "middle")
    font = note.get("font") or {}
    size, colour = finite(font.get("size", 12)), ink(font.get("color"))
    x, y = x + (finite(note.get("xshift")) or 0), y - (finite(note.get("yshift")) or 0)
    yield (
        f'<text x="{x:.4g}" y="{y + 4:.4g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{text_of(note.get('text', ''))}</text>"
    )


def _legend(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the legend above the drawing, and where the drawing begins below it, px."""
    named = [t for t in traces if t.get("showlegend", True) and t.get("name")]
    if layout.get("showlegend") is False or (len(named) < 2 and layout.get("showlegend") is not True):
        return [], 16
    parts, x, y = list[str](), float(_LEFT), 16.0
    for trace in named:
        name = text_of(trace["name"])
        wide = 34 + _LETTER * len(html.unescape(name))
        if x > _LEFT and x + wide > WIDTH - 16:
            x, y = float(_LEFT), y + _LEGEND_LINE
        parts += _key(trace, x, y - 4)
        parts.append(f'<text x="{x + 26:.4g}" y="{y:.4g}" font-size="13" fill="var(--ink)">{name}</text>')
        x += wide + 12
    return parts, int(y) + 16


def _key(trace: Mapping[str, Any], x: float, y: float) -> Iterator[str]:
    """Yield what stands before a trace's name."""
    if trace.get("type") == "bar":
        colours = (trace.get("marker") or {}).get("color")
        fill = ink(colours[0] if isinstance(colours, list) and colours else colours, COLOURS[0])
        yield f'<rect x="{x + 4:.4g}" y="{y - 6:.4g}" width="12" height="12" fill="{fill}"/>'
        return
    mode = trace.get("mode", "lines")
    if "lines" in mode:
        yield from _line(trace.get("line") or {}, [[(x, y), (x + 20, y)]])
    if "markers" in mode:
        yield from _marks(trace, [(x + 10, y)])
