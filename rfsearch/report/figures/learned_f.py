"""The learned inflation factor f over the training steps."""

from __future__ import annotations

import plotly.graph_objects as go

from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.learning_curves import draw_curves, learning_curves, say_what_is_left_out
from rfsearch.report.view import RunView


def build(view: RunView) -> go.Figure | None:
    """Draw one line per start and path. None where no trial learned f."""
    curves = learning_curves(view, "f")
    return draw_curves(curves, "inflation factor f", view.facts.f_bounds, levels=[1.0]) if curves else None


def caption(view: RunView) -> str:
    """Return how to read the lines."""
    return (
        "Inflation factor f over the training, one line per start and path. Below 1 the receptive field grows, above 1 "
        "it shrinks; dotted: f\u00a0=\u00a01; dashed: the bounds of f, where they are near. Lines that never "
        "moved, came back to their start or were stopped at a bound are marked."
    ) + say_what_is_left_out(view, "f")


LEARNED_F = Figure(
    title="The learned factor",
    order=40,
    label="Line chart: learned inflation factor f over training steps.",
    build=build,
    caption=caption,
)
