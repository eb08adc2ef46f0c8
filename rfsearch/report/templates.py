"""The templates of pages, filled so that no text becomes markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2

from rfsearch.numbers import MISSING
from rfsearch.printable import printable
from rfsearch.report.figures.registry import DrawnFigure
from rfsearch.report.figures.style import THEME
from rfsearch.report.payload import in_script, plotly_for
from rfsearch.report.svg import can_draw, draw_svg
from rfsearch.report.wording import listing

_NUMBER = re.compile(r"-?\d+(\.\d+)?(?=$|×)")
_UNIT = re.compile(r"(\d) (px|s|ms|min|h|%|[kMGTPE]?FLOP|[KMGT]iB)\b")


def fill(template: str, figures: Sequence[DrawnFigure], **values: Any) -> str:
    """Return a page.

    Args:
        template: File name of its template in this package.
        figures: What is drawn on it.
        values: What else the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files(__package__) / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
    )
    environment.filters["unbroken"] = _unbroken
    environment.filters["sorted_by"] = _sorted_by
    environment.filters["svg"] = draw_svg
    specs = [figure.spec for figure in figures]
    return environment.get_template(template).render(
        figures=figures,
        payload=in_script(specs),
        plotly=plotly_for(specs),
        theme=THEME,
        undrawn=listing([figure.title for figure in figures if not can_draw(figure.spec)]),
        **values,
    )


def _unbroken(sentence: str) -> str:
    """Return a sentence whose numbers are not torn from their units at the end of a line."""
    return _UNIT.sub("\\1\u00a0\\2", sentence)


def _finalized(value: Any) -> Any:
    """Return what the template shows of a value: text without control characters. What is markup already stays."""
    return printable(value) if type(value) is str else value


def _sorted_by(text: str, value: float | None) -> str:
    """Return the attribute of a table's cell that says what it is sorted by, where its text does not say that."""
    if value is None:
        return "" if text == MISSING else ' data-v=""'
    read = _NUMBER.match(text.replace(",", ""))
    if read and abs(float(read[0]) - value) <= 0.005 * abs(value):
        return ""
    return f' data-v="{value:.5g}"'
