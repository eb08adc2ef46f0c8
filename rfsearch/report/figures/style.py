"""How the report's figures look: their colours, marks and axes, as a plotly template.

The page replaces the colours of `THEME` by those of the reader's light, dark or printed page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

INK, PAPER, FAINT, GRID = "rgb(29, 33, 39)", "rgb(255, 255, 255)", "rgb(152, 161, 172)", "rgb(227, 230, 234)"
THEME: Mapping[str, str] = {INK: "--ink", PAPER: "--paper", FAINT: "--faint", GRID: "--grid"}
"""The colours that follow the page, and the page's variables that hold them. Nothing else is drawn in just these."""

# Eight that stay apart for readers who do not see red, green or blue as others do, the first five most of all.
COLOURS = ("#1867c2", "#a45317", "#05b789", "#875785", "#c9a116", "#b9394c", "#7ea5da", "#d9864e")
DASHES = ("solid", "dash", "dashdot", "longdash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star-triangle-down")
# Coincident trials of several strategies show as nested marks.
SIZES = (13, 11, 10, 9, 8, 8, 8, 8)
HEIGHT_PX = 420

_AXIS = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "ticks": "", "automargin": True}
TEMPLATE: Mapping[str, Any] = {
    "layout": {
        "colorway": list(COLOURS),
        "xaxis": {**_AXIS, "title": {"standoff": 10}},
        "yaxis": {**_AXIS, "title": {"standoff": 8}},
        "font": {"color": INK, "size": 13, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        # Hiding traces and zooming are for the mouse alone, so they are left out.
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "dragmode": False,
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": GRID, "font": {"color": INK}, "align": "left"},
        "hovermode": "closest",
    }
}


def drawing(traces: Sequence[Any], x_title: str, y_title: str) -> go.Figure:
    """Return a figure of these traces in the report's style.

    Args:
        traces: Plotly traces.
        x_title: Title of the horizontal axis, with its unit.
        y_title: Title of the vertical axis, with its unit.
    """
    layout = {"template": TEMPLATE, "xaxis": {"title": {"text": x_title}}, "yaxis": {"title": {"text": y_title}}}
    return go.Figure(list(traces), layout)


def marks(i: int) -> dict[str, Any]:
    """Return the marks in which the trials of the i-th strategy are drawn."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "symbol": SYMBOLS[i % len(SYMBOLS)],
        "size": SIZES[i % len(SIZES)],
        "line": {"color": PAPER, "width": 1},
    }


def steps(i: int, name: str) -> dict[str, Any]:
    """Return the style in which what the i-th strategy reached by when is drawn, as steps."""
    colour = COLOURS[i % len(COLOURS)]
    return {
        "mode": "lines+markers",
        "name": name,
        "line": {"color": colour, "width": 2, "shape": "hv", "dash": DASHES[i % len(DASHES)]},
        "marker": {"size": 6, "symbol": SYMBOLS[i % len(SYMBOLS)], "color": colour},
    }


def padded(values: Iterable[float | None], share: float = 0.08) -> list[float]:
    """Return an axis range that leaves room around its values, also where there is only one."""
    known = [v for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = share * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def field_axis(values: Sequence[int]) -> dict[str, Any]:
    """Return an axis for receptive fields, px: a logarithmic one with plain labels where they span a wide range."""
    low, high = max(1, min(values)), max(1, *values)
    if high / low < 8:
        return {"range": padded([float(v) for v in values], 0.06)}
    ticks = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    span = padded([math.log10(low), math.log10(high)], 0.06)
    return {"type": "log", "range": span, "tickvals": ticks, "ticktext": [f"{t:,}" for t in ticks]}


def ramp(i: int, count: int) -> str:
    """Return the i-th colour of a ramp from blue over green to orange, readable on white and on near-black."""
    stops = ((59, 104, 200), (30, 160, 150), (120, 170, 60), (224, 150, 30), (205, 75, 55))
    at = 0.0 if count < 2 else i / (count - 1) * (len(stops) - 1)
    k = min(int(at), len(stops) - 2)
    mixed = [round(a + (b - a) * (at - k)) for a, b in zip(stops[k], stops[k + 1], strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def see_through(colour: str) -> str:
    """Return a colour `#rrggbb` as a tint for areas behind lines."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},0.16)"
