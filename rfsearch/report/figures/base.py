"""The contract of a figure: what it says of itself, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from rfsearch.report.view import RunView


def no_introduction(view: RunView) -> Sequence[str]:
    """Return no paragraphs: a figure whose caption says all that there is to say."""
    return ()


@dataclass(frozen=True)
class Figure:
    """Describe one figure of the report, which gets a section of its own on the page.

    Its entry point in the group `rfsearch.figures` gives it its name.

    Attributes:
        title: Heading of its section.
        order: Its place on the page. Figures are shown by rising order, and by name where their orders are equal. The
            built-in figures have the orders 10 to 70.
        label: What kind of drawing it is and what it shows, in one sentence, for readers who cannot see it.
        build: Draws it. Returns None for a run that has nothing to show in it; its section is then left out.
        caption: Explains how to read it. Shown below the drawing.
        introduction: Returns the paragraphs that are shown above the drawing.

    Example:
        >>> def build(view):
        ...     counts = [sum(r.strategy == strategy for r in view.records) for strategy in view.strategies]
        ...     return go.Figure(go.Bar(x=view.strategies, y=counts)) if view.records else None
        >>> trials = Figure(
        ...     title="Trials of each strategy",
        ...     order=60,
        ...     label="Bar chart: number of trials of each strategy.",
        ...     build=build,
        ...     caption=lambda view: "Failed and pruned trials are counted too.",
        ... )
    """

    title: str
    order: float
    label: str
    build: Callable[[RunView], go.Figure | None]
    caption: Callable[[RunView], str]
    introduction: Callable[[RunView], Sequence[str]] = no_introduction

    def __post_init__(self) -> None:
        """Document the figure by its label: `rfsearch list` shows the documentation of what it lists."""
        object.__setattr__(self, "__doc__", self.label)
