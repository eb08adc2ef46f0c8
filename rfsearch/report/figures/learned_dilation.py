"""The dilations that trainings found themselves, over the training steps."""

from __future__ import annotations

import plotly.graph_objects as go

from rfsearch.report.figures.base import Figure
from rfsearch.report.figures.learning_curves import draw_curves, learning_curves, say_what_is_left_out
from rfsearch.report.view import RunView


def build(view: RunView) -> go.Figure | None:
    """Draw one line per training and path. None where no training moved a dilation."""
    curves = learning_curves(view, "d")
    dilations = view.facts.dilations
    bounds = (dilations[0], dilations[-1]) if dilations else ()
    return draw_curves(curves, "dilation, px of its map", bounds) if curves else None


def caption(view: RunView) -> str:
    """Return how to read the lines."""
    return (
        "The dilation that each training stood at, one line per training and path. One that is to be found jumps while "
        "dilations are compared, and then moves as a real number; dashed: the smallest and the largest dilation of the "
        "space, where they are near."
    ) + say_what_is_left_out(view, "d")


LEARNED_DILATION = Figure(
    title="The dilations that trainings found",
    order=38,
    label="Line chart: dilation of each training that moved its own, over training steps.",
    build=build,
    caption=caption,
)
