"""All registered figures, drawn for one run. A figure that cannot be drawn is reported, and the others are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from rfsearch import plugins
from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.style import HEIGHT_PX, TEMPLATE
from rfsearch.report.figures.switches import take_switches
from rfsearch.report.view import RunView


@dataclass(frozen=True)
class DrawnFigure:
    """Hold one figure of a run, and what the page says around it.

    Attributes:
        name: Name of its entry point.
        title: Heading of its section.
        label: What it shows, for readers who cannot see it.
        introduction: Paragraphs above it.
        caption: Text below it.
        figure: The drawing itself, which also works outside of the page.
        spec: The drawing as the page's script takes it: `name`, `data`, `layout` and `switches`, ready for JSON.
    """

    name: str
    title: str
    label: str
    introduction: tuple[str, ...]
    caption: str
    figure: go.Figure
    spec: Mapping[str, Any]


def draw_figures(view: RunView) -> tuple[list[DrawnFigure], list[str]]:
    """Draw every registered figure that has something to show.

    Args:
        view: The run.

    Returns:
        The drawn figures in the order of the page, and one sentence for each figure that failed.
    """
    loaded, faults = plugins.load_all("figures")
    known = []
    for name, figure in loaded.items():
        if isinstance(figure, Figure):
            known.append((figure.order, name, figure))
        else:
            faults.append(f"Figure {name!r} is not shown: it is no rfsearch.report.figures.Figure. Got {figure!r}.")
    drawn = []
    for _, name, figure in sorted(known, key=lambda entry: entry[:2]):
        try:
            result = _draw(name, figure, view)
        except (Exception, SystemExit) as error:
            faults.append(f"Figure {name!r} is not shown: it raised {plugins.describe_error(error)}.")
            continue
        if result is not None:
            drawn.append(result)
    return drawn, faults


def _draw(name: str, figure: Figure, view: RunView) -> DrawnFigure | None:
    graph = figure.build(view)
    if graph is None:
        return None
    if not isinstance(graph, go.Figure):
        raise TypeError(f"build returns a plotly.graph_objects.Figure or None. Got {type(graph).__name__}")
    return DrawnFigure(
        name=name,
        title=figure.title,
        label=figure.label,
        introduction=tuple(figure.introduction(view)),
        caption=figure.caption(view),
        figure=graph,
        spec=_page_spec(name, graph),
    )


def _page_spec(name: str, graph: go.Figure) -> dict[str, Any]:
    """Return a drawing in the page's own style: its template, its height, and its controls in place of plotly's."""
    body = json.loads(graph.to_json())  # plotly's own encoder: numpy's numbers and arrays, null for what is not finite
    layout = {"height": HEIGHT_PX, **body["layout"], "template": TEMPLATE}
    return {"name": name, "data": body["data"], "layout": layout, "switches": take_switches(layout)}
