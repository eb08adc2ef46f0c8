"""The page in a real browser: nothing is complained of or asked of the network, it fits, and every control works."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfsearch.report import write
from rfsearch.report.compare_page import write_comparison
from rfsearch.report.comparison import compare_runs
from rfsearch.report.field_page import Pictured, write_page
from tests.report.made_up import MakeDirectory, MakeRun, examples, record
from tests.report.test_comparison import arm, other_data
from tests.report.test_page import CASES, arms, hostile, rich

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Open a page and scroll through it, so that all of it is drawn; nothing may be complained of or fetched."""
    complaints: list[str] = []
    contexts = []

    def look(page_file: Path, width: int = 1000, **settings: object) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.append(request.url) if request.url[:4] == "http" else None)
        page.goto(page_file.as_uri())
        for figure in page.locator("figure.plot").all():
            figure.scroll_into_view_if_needed()
        return page

    yield look
    for context in contexts:
        context.close()
    assert not complaints


def figures_of(page: Any) -> list[Any]:
    """Return the figures of a page once each is drawn."""
    figures = page.locator("figure.plot").all()
    for figure in figures:
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()
    return list(figures)


@pytest.fixture
def rich_page(make_run: MakeRun) -> Path:
    run = make_run(rich(), arms=arms(2))
    for r in run.records:
        examples(run.directory / "checkpoints" / r.trial)
    return write(run.directory)


@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow) for name in CASES] + ["hostile"])
def test_a_page_is_drawn_without_a_complaint(make_run: MakeRun, opened: Open, case: str) -> None:
    if case == "hostile":
        strange = [record("a", strategy=hostile("s"), scores={hostile("x"): 0.5, "y": 0.4}, cause=hostile("cause"))]
        run = make_run(strange, data={"classes": [hostile("class")]}, space={"title": hostile("title")})
    elif case == "not finite":
        pytest.skip("a journal refuses to write such numbers")
    else:
        records, changes = CASES[case]
        run = make_run(records, **changes)
    page = opened(write(run.directory))
    assert bool(figures_of(page)) == (case != "nothing")
    assert page.locator("img[src=x]").count() == 0


def fits(page: Any, width: int) -> None:
    """Hold a page against the width of its window."""
    for figure in figures_of(page):
        assert figure.locator(".main-svg").first.bounding_box()["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll("p, h1, h2, li, pre, figcaption, .switch, button")]
        .filter(x => !x.closest(".scroll") && x.getBoundingClientRect().right > innerWidth).map(x => x.outerHTML)"""
    assert page.evaluate(outside) == []


@pytest.mark.parametrize("width", [390, 1000, 1600])
def test_a_page_fits_its_window(rich_page: Path, opened: Open, width: int) -> None:
    fits(opened(rich_page, width), width)


@pytest.mark.parametrize("width", [390, 1000])
def test_a_comparison_fits_its_window(directory: MakeDirectory, opened: Open, tmp_path: Path, width: int) -> None:
    arms = arm("a strategy of a rather long name", 0.7), arm("y", 0.6)
    write_comparison(compare_runs([directory("a", *arms), directory("b", *arms, **other_data("b"))]), tmp_path / "c")
    page_file = (tmp_path / "c").rename(tmp_path / "compare.html")
    fits(opened(page_file, width), width)


@pytest.mark.parametrize("width", [390, 1000])
def test_a_page_of_a_network_fits_its_window(opened: Open, tmp_path: Path, width: int) -> None:
    effective = np.outer(np.hanning(96), np.hanning(96))
    objects = np.linspace(0.0, 96.0, 13), {"cat": np.arange(12), "dog": np.full(12, 3)}
    write_page(Pictured("a network", ["A sentence."], [20.0, 30.0], effective, 25.0, objects), tmp_path / "rf.html")
    fits(opened(tmp_path / "rf.html", width), width)


def test_every_switch_is_worked_by_mouse_and_keyboard(rich_page: Path, opened: Open) -> None:
    page = opened(rich_page)
    shown = """figure => { const c = figure.querySelector(".canvas");
        return JSON.stringify([c.data.map(t => [t.visible, t.x, t.y, t.text]), c.layout]); }"""
    switches = 0
    for figure in figures_of(page):
        for switch in figure.locator(".switch").all():
            options = switch.locator("input")
            before = figure.evaluate(shown)
            switch.locator("label").nth(1).click()
            assert options.nth(1).is_checked()
            assert figure.evaluate(shown) != before
            options.nth(1).press("ArrowLeft")
            assert options.nth(0).is_checked()
            assert figure.evaluate(shown) == before
            switches += 1
    assert switches >= 5


def test_headings_sort_by_mouse_and_keyboard(rich_page: Path, opened: Open) -> None:
    page = opened(rich_page)
    heading = page.locator("table.sortable th", has_text="val").first
    column = heading.evaluate("head => head.cellIndex")

    def scores() -> list[float]:
        first = page.locator("table.sortable tbody").first
        cells = first.locator(f"tr:not(.head):not(.why) > :nth-child({column + 1})").all_inner_texts()
        return [float(text) for text in cells if re.fullmatch(r"[\d.]+", text)]

    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert scores() == sorted(scores())
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert scores() == sorted(scores(), reverse=True)
    assert len(set(scores())) > 2


def test_all_that_can_be_worked_is_reached_by_tab(rich_page: Path, opened: Open) -> None:
    page = opened(rich_page)
    figures_of(page)
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(300):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("""(() => { const x = document.activeElement;
            return x.tagName + "/" + (x.name || x.textContent); })()""")
        )
    wanted = page.evaluate("""[...document.querySelectorAll("button, summary, input")]
        .filter(x => x.checkVisibility()).map(x => x.tagName + "/" + (x.name || x.textContent))""")
    assert wanted
    assert set(wanted) <= reached
    details = page.locator("details").first
    details.locator("summary").press("Enter")
    assert details.evaluate("x => x.open")


def test_without_scripts_every_figure_is_there(rich_page: Path, opened: Open) -> None:
    page = opened(rich_page, java_script_enabled=False)
    figures = page.locator("figure.plot")
    assert figures.count() > 5
    assert figures.locator(".canvas > svg").count() == figures.count()
    assert page.locator(".switch").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_is_told_from_paper_in_light_and_dark(rich_page: Path, opened: Open, scheme: str) -> None:
    page = opened(rich_page, color_scheme=scheme)
    figures_of(page)

    def light(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = light(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.9) == (scheme == "light")
    for selector, property_ in (("h1", "color"), (".soft, figcaption", "color"), (".xtick text", "fill")):
        ink = light(page.locator(selector).first.evaluate(f"x => getComputedStyle(x).{property_}"))
        low, high = sorted((ink, paper))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector  # WCAG 2, contrast of text


def test_a_printed_page_keeps_to_its_paper_and_is_light(rich_page: Path, opened: Open) -> None:
    page = opened(rich_page, 1600, color_scheme="dark")
    figures_of(page)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    widths = [f.locator(".main-svg").first.evaluate("x => x.clientWidth") for f in page.locator("figure.plot").all()]
    assert widths
    assert max(widths) <= 718, "A4 at the margins that browsers leave, px"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".switches").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    page.wait_for_function("document.querySelector('figure.plot .main-svg').clientWidth > 718")  # drawn with a delay
