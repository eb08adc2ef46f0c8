"""The learned sample stride γ of LS-DFN blocks over the training steps."""

from __future__ import annotations

import plotly.graph_objects as go

from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.learning_curves import draw_curves, learning_curves, say_what_is_left_out
from rfsearch.report.view import RunView


def build(view: RunView) -> go.Figure | None:
    """Draw one line per start. None where no trial learned γ."""
    curves = learning_curves(view, "γ")
    return draw_curves(curves, "sample stride γ, px of its map", view.facts.gamma_bounds) if curves else None


def caption(view: RunView) -> str:
    """Return how to read the lines."""
    return (
        "Sample stride γ over the training, one line per start and path. Above its start the block samples further "
        "away; dashed: the bounds of γ, where they are near. Lines that never moved, came back to their start or "
        "were stopped at a bound are marked."
    ) + say_what_is_left_out(view, "γ")


LEARNED_GAMMA = Figure(
    title="The learned sample stride",
    order=50,
    label="Line chart: learned sample stride γ, px of its map over training steps.",
    build=build,
    caption=caption,
)
