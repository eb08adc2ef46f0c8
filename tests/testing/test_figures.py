"""The suite for figures: what ships passes it, and each kind of broken figure fails just the check that is meant."""

import itertools
import math
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from rfsearch import plugins
from rfsearch.report.figures import Figure, literal
from rfsearch.testing import figures


@pytest.mark.parametrize("check", figures.FIGURE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", plugins.names("figures"))
def test_every_figure_passes(check, name):
    check(plugins.load("figures", name))


def bars(view):
    """Draw a small sound figure, to be broken in one place."""
    return go.Figure(go.Bar(x=[literal(r.trial) for r in view.records], y=[r.val for r in view.records]))


SOUND = Figure("Scores", 60, "Bar chart: scores.", bars, lambda view: "One bar per trial.")
COUNTER = itertools.count()


@pytest.mark.parametrize("check", figures.FIGURE_CHECKS, ids=lambda check: check.__name__)
def test_a_sound_figure_passes(check):
    check(SOUND)


def needs_a_winner(view):
    return bars(view).add_hline(y=view.winner.val)


def raw_names(view):
    return go.Figure(go.Bar(x=[r.trial for r in view.records], y=[r.val for r in view.records]))


def an_object(view):
    return go.Figure(go.Bar(x=[1], y=[1], customdata=[object()]))


def a_counter(view):
    return bars(view).update_layout(title=f"drawn {next(COUNTER)} times")


SAYS, DRAWS, COPES = "figure_says_what_it_is", "figure_draws_and_explains_a_run", "figure_copes_with_every_run"
BROKEN = [
    (bars, SAYS, "a figure is a rfsearch.report.figures.Figure. Got <function bars"),
    (replace(SOUND, title=" "), SAYS, "the title of a figure is a text. Got ' '"),
    (replace(SOUND, label=None), SAYS, "the label of a figure is a text. Got None"),
    (replace(SOUND, order="last"), SAYS, "the order of a figure is a finite number. Got 'last'"),
    (replace(SOUND, order=math.nan), SAYS, "the order of a figure is a finite number. Got nan"),
    (replace(SOUND, build=lambda view: None), DRAWS, "build draws a run .* Got None"),
    (replace(SOUND, build=lambda view: go.Figure()), DRAWS, "a drawing has traces. Got none"),
    (replace(SOUND, build=lambda view: bars(view).to_dict()), DRAWS, "or None. Got dict"),
    (replace(SOUND, caption=lambda view: ""), DRAWS, "a caption is a text. Got ''"),
    (replace(SOUND, introduction=lambda view: "one"), DRAWS, "an introduction is a sequence of texts. Got 'one'"),
    (replace(SOUND, introduction=lambda view: [""]), DRAWS, r"an introduction is a sequence of texts. Got \[''\]"),
    (replace(SOUND, build=needs_a_winner), COPES, "build takes a run without trials. It raised AttributeError"),
    (replace(SOUND, build=a_counter), "figure_repeats_itself", "the same run gives the same drawing"),
    (replace(SOUND, build=an_object), "figure_can_be_stored", "a drawing can be stored as JSON. It raised TypeError"),
    (replace(SOUND, build=raw_names), "figure_shows_names_as_text", "not as markup. Got 'listed-0-0<img"),
]


@pytest.mark.parametrize(
    ("figure", "check", "message"), BROKEN, ids=[f"{check}-{message}" for _, check, message in BROKEN]
)
def test_a_broken_figure_fails(figure, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(figures, check)(figure)
