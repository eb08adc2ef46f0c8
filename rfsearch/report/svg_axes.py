"""The axes of an SVG figure: where values lie, what is written beside them, and the grid."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfsearch.numbers import finite
from rfsearch.printable import printable

_MOST_NAMES = 40  # of a category axis that are written
LETTERS = 26  # of a name, of which the rest is left out


@dataclass(frozen=True)
class Axis:
    """Place values along one axis of a drawing.

    Attributes:
        key: Its name in the layout: xaxis, yaxis2.
        low: Where its range begins on the page, px.
        high: Where it ends, px.
        span: Its range; of a logarithmic axis the exponents of ten.
        logarithmic: Whether it is logarithmic.
        names: The categories of a category axis, in their order; None where values are numbers.
        ticks: Where something is written, as values, and what.
        title: Its title.
        cross: Name of the axis that it crosses.
    """

    key: str
    low: float
    high: float
    span: tuple[float, float]
    logarithmic: bool
    names: Mapping[object, int] | None
    ticks: Sequence[tuple[float, str]]
    title: str
    cross: str

    def place(self, value: object) -> float | None:
        """Return where a value lies, px; None for what has no place."""
        at = self.names.get(value) if self.names is not None else finite(value)
        if at is None or (self.logarithmic and at <= 0):
            return None
        at = math.log10(at) if self.logarithmic else at
        share = (at - self.span[0]) / ((self.span[1] - self.span[0]) or 1.0)
        return self.low + min(1.5, max(-0.5, share)) * (self.high - self.low)

    def slot(self) -> float:
        """Return the room of one category or of one unit, px."""
        return abs(self.high - self.low) / abs((self.span[1] - self.span[0]) or 1.0)

    def grid(self, axes: Mapping[str, Axis]) -> Iterator[str]:
        """Yield the lines at its ticks."""
        other = axes[self.cross]
        lines = []
        for value, _ in self.ticks:
            at = self._tick(value)
            if at is not None:
                way = f"M{at:.4g} {other.low:.4g}V{other.high:.4g}"
                lines.append(way if self.key[0] == "x" else f"M{other.low:.4g} {at:.4g}H{other.high:.4g}")
        yield f'<path d="{"".join(lines)}" stroke="var(--grid)" fill="none"/>'

    def words(self, axes: Mapping[str, Axis]) -> Iterator[str]:
        """Yield what is written beside it: its ticks and its title."""
        other, flat = axes[self.cross], self.key[0] == "x"
        for value, text in self.ticks:
            at = self._tick(value)
            if at is None:
                continue
            if flat:
                yield _text(at, other.low + 18, "middle", text)
            else:
                yield _text(other.low - 8, at + 4, "end", text)
        middle = (self.low + self.high) / 2
        if self.title and flat:
            yield _text(middle, other.low + 42, "middle", self.title)
        elif self.title:
            x = max(14.0, other.low - 50) if self.names is None else 14.0
            words = _text(0, 0, "middle", self.title)
            yield f'<g transform="translate({x:.4g} {middle:.4g}) rotate(-90)">{words}</g>'

    def _tick(self, value: float) -> float | None:
        if self.names is None:
            at = self.place(value)
        else:
            at = self.low + (value - self.span[0]) / (self.span[1] - self.span[0]) * (self.high - self.low)
        inside = at is not None and min(self.low, self.high) - 1 <= at <= max(self.low, self.high) + 1
        return at if inside else None


def axis_of(key: str, layout: Mapping[str, Any], traces: Sequence[Mapping[str, Any]], box: Sequence[float]) -> Axis:
    """Return an axis of a layout, its range found from the traces where the layout does not give one.

    Args:
        key: Its name in the layout.
        layout: The layout.
        traces: What is shown.
        box: Left, top, right and bottom of the drawing, px.
    """
    given, letter = layout.get(key) or {}, key[0]
    name = key.replace("axis", "")
    own = [t for t in traces if t.get(f"{letter}axis", letter) == name]
    values = [v for t in own for v in (t.get(letter) or ())]
    names = _names(given, values)
    start, end = given.get("domain") or (0.0, 1.0)
    low, high = (
        (box[0] + start * (box[2] - box[0]), box[0] + end * (box[2] - box[0]))
        if letter == "x"
        else (box[3] - start * (box[3] - box[1]), box[3] - end * (box[3] - box[1]))
    )
    logarithmic = given.get("type") == "log"
    span = _span(given, values, names, logarithmic, own, letter)
    other = "yaxis" if letter == "x" else "xaxis"
    anchor = given.get("anchor")
    cross = f"{anchor[0]}axis{anchor[1:]}" if isinstance(anchor, str) and re.fullmatch(r"[xy]\d*", anchor) else other
    title = given.get("title") or {}
    title = title.get("text", "") if isinstance(title, Mapping) else title
    ticks = _ticks(given, span, names, logarithmic) if given.get("showticklabels", True) else []
    return Axis(key, low, high, span, logarithmic, names, ticks, str(title or ""), cross)


def _names(given: Mapping[str, Any], values: Sequence[object]) -> Mapping[object, int] | None:
    if given.get("type") == "category" or any(isinstance(v, str) for v in values):
        order = given.get("categoryarray") or ()
        return {name: i for i, name in enumerate(dict.fromkeys([*order, *values]))}
    return None


def _span(
    given: Mapping[str, Any],
    values: Sequence[object],
    names: Mapping[object, int] | None,
    logarithmic: bool,
    traces: Sequence[Mapping[str, Any]],
    letter: str,
) -> tuple[float, float]:
    backwards = given.get("autorange") == "reversed"
    if names is not None:
        ends = -0.5, len(names) - 0.5
        return ends[::-1] if backwards else ends
    if given.get("range"):
        return float(given["range"][0]), float(given["range"][1])
    known = [v for value in values if (v := finite(value)) is not None and (v > 0 or not logarithmic)]
    known = [math.log10(v) for v in known] if logarithmic else known
    bars = any(t.get("type") == "bar" for t in traces)
    if bars and letter == ("x" if any(t.get("orientation") == "h" for t in traces) else "y"):
        known = [*known, *_sums(traces, letter), 0.0]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.5
    if given.get("rangemode") == "tozero" and not logarithmic:
        return min(0.0, low), high + room
    return (low - room if low or not bars else low), high + room


def _sums(traces: Sequence[Mapping[str, Any]], letter: str) -> list[float]:
    """Return the heights of stacked bars, up and down."""
    other, sums = ("y" if letter == "x" else "x"), dict[object, float]()
    for trace in traces:
        for name, value in zip(trace.get(other) or (), trace.get(letter) or (), strict=False):
            if (number := finite(value)) is not None:
                sums[name, number > 0] = sums.get((name, number > 0), 0.0) + number
    return list(sums.values())


def _ticks(
    given: Mapping[str, Any], span: tuple[float, float], names: Mapping[object, int] | None, logarithmic: bool
) -> list[tuple[float, str]]:
    if names is not None:
        every = math.ceil(len(names) / _MOST_NAMES)
        return [(i, _short(str(name))) for name, i in names.items() if i % every == 0]
    if given.get("tickvals") is not None:
        words = given.get("ticktext") or given["tickvals"]
        return [(float(v), str(w)) for v, w in zip(given["tickvals"], words, strict=False)]
    low, high = min(span), max(span)
    if logarithmic:
        steps = (1,) if high - low > 3 else (1, 2, 5)
        marks = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in steps]
        return [(v, f"{v:,.6g}") for v in marks if low <= math.log10(v) <= high]
    step = _step((high - low) / 6)
    first = math.ceil(low / step - 1e-9)
    count = int((high - low) / step + 1e-9) + 1
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    marks = [(first + k) * step for k in range(count + 1)]
    return [(v, f"{v + 0.0:,.{digits}f}") for v in marks if v <= high + 1e-9 * step]


def _step(rough: float) -> float:
    """Return the round number next above a rough distance of ticks."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def _short(name: str) -> str:
    name = html.unescape(name)
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def _text(x: float, y: float, anchor: str, text: str) -> str:
    shown = html.escape(printable(html.unescape(text)))
    return f'<text x="{x:.4g}" y="{y:.4g}" text-anchor="{anchor}" font-size="13" fill="var(--ink)">{shown}</text>'
