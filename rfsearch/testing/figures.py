"""What every figure keeps to: it draws any run or says that it has nothing to show, repeatably, and names stay text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Moved, Sampled
from rfsearch.ledger import Cost, Record, Run, Rung
from rfsearch.ledger.manifest import Manifest
from rfsearch.ledger.record import Status
from rfsearch.ledger.typed_json import read_parts
from rfsearch.plugins import describe_error
from rfsearch.report.figures import Figure
from rfsearch.report.view import RunView, build_view
from rfsearch.testing.rules import hold, same

_STRATEGIES = ("listed", "learned", "sampled", "moved")
_HOSTILE = "<img src=x onerror=alert(1)>%{x}"


def figure_says_what_it_is(figure: Figure, run: Run | None = None) -> None:
    """Check that it is a `rfsearch.report.figures.Figure` with a heading, a place, and words for who cannot see it."""
    hold(isinstance(figure, Figure), f"a figure is a rfsearch.report.figures.Figure. Got {figure!r}")
    for name in ("title", "label"):
        text = getattr(figure, name)
        hold(isinstance(text, str) and bool(text.strip()), f"the {name} of a figure is a text. Got {text!r}")
    number = isinstance(figure.order, int | float) and math.isfinite(figure.order)
    hold(number, f"the order of a figure is a finite number. Got {figure.order!r}")


def figure_draws_and_explains_a_run(figure: Figure, run: Run | None = None) -> None:
    """Check that a run which it can show gives a drawing with traces, and words that explain it.

    Args:
        figure: The figure.
        run: Such a run. Without one, a made-up run of four strategies and two seeds with learned receptive fields.
    """
    view = build_view(run or _full_run())
    drawn = _drawn(figure, view, "a run that it can show")
    traces = None if drawn is None else len(drawn.data)
    hold(traces is not None, "build draws a run that it can show; give the check such a run. Got None")
    hold(traces != 0, "a drawing has traces. Got none")
    caption, introduction = figure.caption(view), figure.introduction(view)
    hold(isinstance(caption, str) and bool(caption.strip()), f"a caption is a text. Got {caption!r}")
    texts = not isinstance(introduction, str) and all(isinstance(text, str) and text.strip() for text in introduction)
    hold(texts, f"an introduction is a sequence of texts. Got {introduction!r}")


def figure_copes_with_every_run(figure: Figure, run: Run | None = None) -> None:
    """Check runs without trials, with failures alone, of one trial, without a manifest: a drawing or None each."""
    for what, made in _odd_runs():
        _drawn(figure, build_view(made), what)


def figure_repeats_itself(figure: Figure, run: Run | None = None) -> None:
    """Check that one run always gives the same drawing, so that writing a page again changes nothing."""
    view = build_view(run or _full_run())
    first, second = (_drawn(figure, view, "a run") for _ in range(2))
    same(first and first.to_json(), second and second.to_json(), "the same run gives the same drawing")


def figure_can_be_stored(figure: Figure, run: Run | None = None) -> None:
    """Check that a drawing survives JSON, which is how it gets into the page."""
    drawn = _drawn(figure, build_view(run or _full_run()), "a run")
    if drawn is None:
        return
    try:
        stored = json.loads(drawn.to_json())
        again = json.loads(go.Figure(stored).to_json())
    except Exception as error:
        raise AssertionError(f"a drawing can be stored as JSON. It raised {describe_error(error)}.") from error
    hold(again == stored, "a drawing survives JSON unchanged. Got another one")


def figure_shows_names_as_text(figure: Figure, run: Run | None = None) -> None:
    """Check that names are shown as they are: plotly reads its labels as HTML and as templates.

    `rfsearch.report.figures.literal` turns a name into such a text.
    """
    drawn = _drawn(figure, build_view(_full_run(_HOSTILE)), "a run whose names hold markup")
    if drawn is not None:
        for text in _texts(json.loads(drawn.to_json())):
            hold("<img" not in text and "%{x}>" not in text, f"names are shown as text, not as markup. Got {text!r}")


FIGURE_CHECKS: tuple[Callable[..., None], ...] = (
    figure_says_what_it_is,
    figure_draws_and_explains_a_run,
    figure_copes_with_every_run,
    figure_repeats_itself,
    figure_can_be_stored,
    figure_shows_names_as_text,
)


def _drawn(figure: Figure, view: RunView, what: str) -> go.Figure | None:
    try:
        drawn = figure.build(view)
    except Exception as error:
        raise AssertionError(f"build takes {what}. It raised {describe_error(error)}.") from error
    kind = drawn is None or isinstance(drawn, go.Figure)
    hold(kind, f"build returns a plotly.graph_objects.Figure or None. Got {type(drawn).__name__}")
    return drawn


def _full_run(name: str = "") -> Run:
    """Return a run of four strategies and two seeds, with every status and with learned f, γ and dilations.

    Args:
        name: Ends all names of it.
    """
    site = f"conv{name}"
    moved = [(step, 1 - 0.003 * step) for step in range(0, 101, 5)]
    learned = {"ends": {site: 0.7}, "trace": tuple((step, site, value) for step, value in moved)}
    sampled = {"ends": {site: 1.4}, "trace": tuple((step, site, 2 * value) for step, value in moved)}
    found = {"ends": {site: 5.3}, "trace": tuple((step, site, 4 + 0.013 * step) for step, _ in moved)}
    trials: list[tuple[str, Choice, Status, Mapping[str, Any]]] = [
        ("listed", Dilated(1), "completed", {}),
        ("listed", Dilated(4), "completed", {}),
        ("listed", Dilated(8), "failed", {}),
        ("listed", Dilated(8), "pruned", {}),
        ("listed", Dilated(8), "cut", {}),
        ("learned", Inflated(2, learned=True), "completed", learned),
        ("sampled", Sampled(2, 2.0, learned=True), "completed", sampled),
        ("moved", Moved(4), "completed", found),
    ]
    records = [
        _record(f"{strategy}-{seed}-{i}{name}", f"{strategy}{name}", seed, choice, name, status, **changes)
        for seed in range(2)
        for i, (strategy, choice, status, changes) in enumerate(trials)
    ]
    return _run(records, name)


def _odd_runs() -> Iterator[tuple[str, Run]]:
    yield "a run without trials", _run([], manifest={})
    yield "a run whose trials all failed", _run([_record("a", "listed", 0, Dilated(1), "", "failed")])
    yield "a run of one trial", _run([_record("a", "listed", 0, Dilated(1))])
    yield "a run without a manifest", _run([_record("a", "listed", 0, Dilated(1))], manifest={})
    unknown = _record("a", "listed", 0, Dilated(1), candidate='{"conv": {"kind": "of another version"}}')
    yield "a run whose choices are unknown here", _run([unknown])
    untested = _record("a", "listed", 0, Dilated(4), test=None)
    yield "a run whose best trial has no test score", _run([untested, _record("b", "listed", 0, Dilated(1))])
    bare = _record(
        "a", "listed", 0, Dilated(1), test=None, cost=Cost(), infer_mac=None, infer_latency_ms=None, scores={}
    )
    yield "a run without costs and test scores", _run([bare])


def _record(
    trial: str, strategy: str, seed: int, choice: Choice, name: str = "", status: Status = "completed", **changes: Any
) -> Record:
    dilation = choice.numbers["dilation"]
    field_px = 60 + 16 * round(dilation)
    score = None if status == "failed" else 0.6 + 0.01 * dilation + 0.003 * seed
    candidate = Candidate({f"conv{name}": choice})
    fields: dict[str, Any] = {
        "candidate": candidate.to_json(),
        "outcome": candidate.ended(changes.pop("ends", {})).to_json(),
        "rf_px": field_px,
        "rf_init_px": field_px,
        "cost": Cost(1e12, 30.0, 4.0),
        "val": score,
        "test": score,
        "scores": {} if score is None else {"iou": score, "iou_background": score + 0.2, "iou_object": score - 0.2},
        "rungs": () if score is None else tuple(Rung(step, score * step / 100, {}, Cost()) for step in (25, 50, 75)),
        "forecast": Cost(1.1e12, 28.0, 4.0),
        "forecast_peak_bytes": 90_000_000,
        "cause": "the loss became nan" if status == "failed" else "",
        "infer_mac": 2e9 + 1e7 * dilation,
        "infer_latency_ms": 5.0,
        "infer_latency_spread_ms": (4.9, 5.2),
        "infer_peak_bytes": 100_000_000,
        "steps": 100,
        "train_seed": seed,
    }
    return Record(trial, strategy, seed, status, **{**fields, **changes})


def _run(records: list[Record], name: str = "", manifest: Mapping[str, Any] | None = None) -> Run:
    if manifest is None:
        reference = Candidate({f"conv{name}": Dilated(1)}).to_json()
        arms = [{"strategy": f"{s}{name}", "seed": seed} for seed in range(2) for s in _STRATEGIES]
        planned = [
            {"candidate": Candidate({f"conv{name}": Dilated(d)}).to_json(), "rf_px": 60 + 16 * d, "share": 0.5,
             "flop": 1e12, "seconds": 30.0, "peak_bytes": 90_000_000}
            for d in (1, 4, 8)
        ]  # fmt: skip
        manifest = {
            "space": {
                "name": "made-up",
                "metric": "mean IoU",
                "sites": [f"conv{name}"],
                "reference": reference,
                "costs": ["infer_mac"],
            },
            "arms": arms,
            "forecast": planned,
            "budget": {"text": "8x", "currency": "flop", "limit": 8e12, "reference_flop": 1e12},
            "data": {"name": "made-up", "classes": ["background", "object"], "splits": {"train": 8, "val": 4}},
        }
    folder = Path("made-up")
    return Run(folder, read_parts(Manifest, manifest, folder / "manifest.json"), tuple(records), 0)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
