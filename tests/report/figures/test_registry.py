"""Figures of plugins on the page: in their place, in its style, and none keeps the others from being shown."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest

from rfsearch.report import write
from rfsearch.report.figures import draw_figures
from rfsearch.report.view import build_view
from tests.report.made_up import MakeRun, record
from tests.report.test_page import Page

MODULE = """
import sys
import plotly.graph_objects as go
from rfsearch.report.figures import Figure, Option, add_switch

def bars(view):
    return go.Figure(go.Bar(x=[r.trial for r in view.records], y=[r.val for r in view.records]))

def switched(view):
    figure = bars(view).update_layout(height=300, updatemenus=[{"buttons": [{"label": "own"}]}])
    add_switch(figure, "colour", [Option("red", {"marker.color": ["red"]}), Option("blue", {"marker.color": ["blue"]})])
    add_switch(figure, "nothing", [Option("one")])
    return figure

def figure(build, order=80, caption="Bars of each trial."):
    return Figure("Bars & more", order, "Bar chart.", build, lambda view: caption, lambda view: ["Takes 3 s."])

GOOD, FIRST, SWITCHED = figure(bars), figure(bars, 5), figure(switched)
EMPTY = figure(lambda view: None)
RAISES = figure(lambda view: 1 / 0)
EXITS = figure(lambda view: sys.exit("no licence"))
DICT = figure(lambda view: {"data": []})
UNSTORED = figure(lambda view: go.Figure(go.Bar(x=[1], y=[1], customdata=[object()])))
NO_CAPTION = figure(bars, caption=None)
FUNCTION = bars
"""
BUILT_IN = ["anytime", "against-rf", "pareto", "class-scores", "budget-use", "forecasts"]


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package whose figures, by name, are attributes of MODULE."""

    def make(**figures: str) -> None:
        site = tmp_path_factory.mktemp("site")
        info = site / "charts-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: charts\nVersion: 1.0\n")
        points = "".join(f"{name} = charts:{attribute}\n" for name, attribute in figures.items())
        (info / "entry_points.txt").write_text(f"[rfsearch.figures]\n{points}")
        (site / "charts.py").write_text(MODULE)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(__import__("sys").modules, "charts", raising=False)

    return make


@pytest.fixture
def page(make_run: MakeRun) -> Callable[[], tuple[Page, str]]:
    def make() -> tuple[Page, str]:
        path = write(make_run([record("a"), record("b", 4)]).directory)
        return Page(path), html.unescape(Path(path).read_text(encoding="utf-8"))

    return make


def test_a_plugins_figure_has_a_section_of_its_own_where_its_order_says(install, page) -> None:
    install(late="GOOD", early="FIRST", empty="EMPTY")
    seen, text = page()
    assert list(seen.figures) == ["early", *BUILT_IN, "late"]
    assert text.count("<h2>Bars & more</h2>") == 2
    assert text.count("<figcaption>Bars of each trial.</figcaption>") == 2
    assert "Takes 3\u00a0s." in text
    assert text.index('id="figure-early"') < text.index('id="figure-anytime"') < text.index('id="figure-late"')


def test_a_plugins_figure_is_drawn_in_the_pages_style(install, page) -> None:
    install(late="GOOD", small="SWITCHED")
    figures = page()[0].figures
    for name in ("late", "small"):
        assert figures[name]["layout"]["template"] == figures["anytime"]["layout"]["template"]
    assert (figures["late"]["layout"]["height"], figures["small"]["layout"]["height"]) == (420, 300)


def test_switches_become_the_pages_own_and_other_menus_stay_plotlys(install, page) -> None:
    install(small="SWITCHED")
    small = page()[0].figures["small"]
    (switch,) = small["switches"]
    assert (switch["label"], [option["label"] for option in switch["options"]]) == ("colour", ["red", "blue"])
    assert switch["options"][1]["traces"] == {"marker.color": ["blue"]}
    (menu,) = small["layout"]["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == ["own"]


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("RAISES", "Figure 'broken' is not shown: it raised ZeroDivisionError: division by zero."),
        ("EXITS", "Figure 'broken' is not shown: it raised SystemExit: no licence."),
        ("DICT", "build returns a plotly.graph_objects.Figure or None. Got dict."),
        ("UNSTORED", "Figure 'broken' is not shown: it raised TypeError"),
        ("FUNCTION", "Figure 'broken' is not shown: it is no rfsearch.report.figures.Figure. Got <function bars"),
        ("ABSENT", "plugin 'broken' of rfsearch.figures of the package charts 1.0 (charts:ABSENT) does not load"),
    ],
)
def test_a_figure_that_cannot_be_shown_is_named_and_the_others_go_on(install, page, attribute: str, said: str) -> None:
    install(broken=attribute, late="GOOD")
    seen, text = page()
    assert list(seen.figures) == [*BUILT_IN, "late"]
    assert said in text
    assert 'id="figure-broken"' not in text


def test_a_drawn_figure_also_works_without_the_page(make_run: MakeRun) -> None:
    drawn, faults = draw_figures(build_view(make_run([record("a"), record("b", 4)])))
    assert not faults
    figures = {one.name: one.figure for one in drawn}
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    menus = figures["pareto"].layout.updatemenus
    assert [len(menu.buttons) for menu in menus] == [5, 2]
    assert menus[0].buttons[2].args[1]["xaxis.title.text"] == "inference, GMAC"
    assert figures["pareto"].layout.template.layout.font.color == "rgb(29, 33, 39)"
