"""Figures without scripts: where marks and bars lie, and that no label becomes markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import plotly.graph_objects as go
import pytest

from rfsearch.report import write
from rfsearch.report.figures.registry import draw_figures
from rfsearch.report.svg import can_draw, draw_svg
from rfsearch.report.view import build_view
from tests.report.made_up import MakeRun
from tests.report.test_page import arms, hostile, rich


def drawn(data: list[dict[str, Any]], **layout: Any) -> ET.Element:
    """Draw traces, check that the drawing is sound XML without anything that acts, and return it."""
    root = ET.fromstring(draw_svg({"name": "test", "data": data, "layout": {"height": 420, **layout}}))
    for element in root.iter():
        assert element.tag in {"svg", "g", "path", "rect", "text", "clipPath"}
        assert not any(key.startswith("on") or "href" in key for key in element.attrib)
    return root


def paths(root: ET.Element, **attributes: str) -> list[str]:
    return [e.attrib["d"] for e in root.iter("path") if all(e.get(k) == v for k, v in attributes.items())]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def test_a_line_lies_where_its_values_are() -> None:
    root = drawn(
        [{"mode": "lines", "x": [0, 5, 10], "y": [1, 2, 3], "line": {"color": "#123456"}}],
        xaxis={"range": [0, 10]}, yaxis={"range": [1, 3]},
    )  # fmt: skip
    (left, bottom), (middle, half), (right, top) = points(paths(root, stroke="#123456")[0])
    assert left < right
    assert top < bottom  # up is up
    assert middle == pytest.approx((left + right) / 2, abs=0.6)
    assert half == pytest.approx((top + bottom) / 2, abs=0.6)


def test_steps_rise_where_the_next_value_begins() -> None:
    line = {"color": "#123456", "shape": "hv"}
    root = drawn([{"mode": "lines", "x": [0, 10], "y": [1, 3], "line": line}])
    first, corner, last = points(paths(root, stroke="#123456")[0])
    assert corner == (last[0], first[1])


def test_a_missing_value_breaks_a_line_and_has_no_mark() -> None:
    trace = {"mode": "lines+markers", "x": [0, 1, 2, 3, 4], "y": [1, 2, None, 4, 5]}
    root = drawn([{**trace, "line": {"color": "#123456"}, "marker": {"color": "#654321", "symbol": "square"}}])
    assert paths(root, stroke="#123456")[0].count("M") == 2
    assert paths(root, fill="#654321")[0].count("Z") == 4


def test_a_logarithmic_axis_gives_each_decade_the_same_room() -> None:
    root = drawn(
        [{"mode": "lines", "x": [1, 10, 100], "y": [0, 0, 0], "line": {"color": "#123456"}}],
        xaxis={"type": "log"},
    )  # fmt: skip
    places = [x for x, _ in points(paths(root, stroke="#123456")[0])]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=1)


@pytest.mark.parametrize("count", [30, 3000])
def test_every_trial_has_a_mark_however_many_there_are(count: int) -> None:
    root = drawn([{"mode": "markers", "x": list(range(count)), "y": [1] * count, "marker": {"color": "#123456"}}])
    marks = paths(root, fill="#123456") or paths(root, stroke="#123456")
    assert len(re.findall("M", "".join(marks))) == count


def test_stacked_bars_are_as_long_as_their_values_and_follow_each_other() -> None:
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "y": ["a", "b"],
            "x": [1, 2],
            "name": "one",
            "marker": {"color": "#111111"},
        },
        {
            "type": "bar",
            "orientation": "h",
            "y": ["a", "b"],
            "x": [3, 1],
            "name": "two",
            "marker": {"color": "#222222"},
        },
    ]
    root = drawn(bars, barmode="stack")
    found = {
        colour: [(float(e.attrib["x"]), float(e.attrib["width"])) for e in root.iter("rect") if e.get("fill") == colour]
        for colour in ("#111111", "#222222")
    }
    one, two = found["#111111"][:2], found["#222222"][:2]
    assert one[1][1] == pytest.approx(2 * one[0][1], rel=0.01)
    assert two[0][1] == pytest.approx(3 * one[0][1], rel=0.01)
    assert two[0][0] == pytest.approx(one[0][0] + one[0][1], abs=1)


def test_hidden_traces_are_not_drawn_and_the_pages_colours_follow_the_page() -> None:
    trace = {"mode": "lines", "x": [0, 1], "y": [0, 1], "line": {"color": "rgb(29, 33, 39)"}}
    assert len(paths(drawn([trace, {**trace, "visible": False}]), stroke="var(--ink)")) == 1


def test_names_stay_text() -> None:
    name = hostile("name").replace("<", "&lt;").replace(">", "&gt;")  # as `literal` gives names to plotly
    bars = {"type": "bar", "x": [name, "b"], "y": [1, 2], "name": name}
    root = drawn([bars, {"x": [name], "y": [1], "name": "x", "line": {"color": '"><script>'}}],
                 annotations=[{"x": 0, "y": 1, "xref": "paper", "text": name}])  # fmt: skip
    assert sum("alert(" in (element.text or "") for element in root.iter("text")) == 3


def test_what_is_not_drawn_here_is_left_to_plotly() -> None:
    heat = {"data": [{"type": "heatmap", "z": [[1]]}], "layout": {}, "name": "heat"}
    assert not can_draw(heat)
    assert draw_svg(heat) == ""


def test_every_figure_of_a_page_stands_in_it_without_scripts(make_run: MakeRun) -> None:
    run = make_run(rich(), arms=arms(2))
    figures, faults = draw_figures(build_view(run))
    assert not faults
    page = write(run.directory).read_text(encoding="utf-8")
    drawings = re.findall(r'aria-label="[^"]*">(<svg.*?</svg>)</div>', page, re.DOTALL)
    assert len(drawings) == len(figures) > 6
    for figure, svg in zip(figures, drawings, strict=True):
        root = ET.fromstring(svg)
        named = {t.name for t in figure.figure.data if isinstance(t, go.Scatter | go.Bar) and t.visible in (None, True)}
        words = {element.text for element in root.iter("text")}
        assert len([n for n in named if n]) < 2 or {n for n in named if n} <= words, figure.name
