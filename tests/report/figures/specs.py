"""Figures as the page's script takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rfsearch.ledger import Run
from rfsearch.report.figures import draw_figures
from rfsearch.report.view import build_view


def spec(name: str, run: Run) -> Mapping[str, Any]:
    """Return one figure of a run: its data, layout and switches as plain JSON."""
    drawn, faults = draw_figures(build_view(run))
    assert not faults, faults
    return next(figure.spec for figure in drawn if figure.name == name)
