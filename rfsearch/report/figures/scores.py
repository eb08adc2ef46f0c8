"""What the figures of scores share: the score axis, its switch between test and validation, and a trial's details."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from rfsearch.ledger import Record
from rfsearch.numbers import field_px, finite, score
from rfsearch.report.figures.switches import Option, add_switch
from rfsearch.report.latency import latency_words
from rfsearch.report.view import RunView, ScoreSplit, setting_of
from rfsearch.report.wording import literal

Value = Callable[[Record], float | None]


def score_splits(view: RunView) -> tuple[ScoreSplit, ...]:
    """Return the splits that a run has scores on, the reported one first."""
    return ("test", "val") if view.split == "test" else ("val",)


def score_on(split: ScoreSplit) -> Value:
    """Return the function that gives a record's score on a split; None where it has none."""
    return lambda record: finite(getattr(record, split))


def score_title(split: ScoreSplit) -> str:
    """Return the title of an axis of scores."""
    return "validation score" if split == "val" else "test score"


def add_score_switch(
    figure: go.Figure,
    owners: Sequence[ScoreSplit | None],
    ranges: Mapping[ScoreSplit, list[float]],
    notes: Mapping[ScoreSplit, Sequence[Mapping[str, object]]] | None = None,
) -> None:
    """Show the first split's traces, and let the reader switch to another split's.

    Args:
        figure: Has one trace per entry of `owners`.
        owners: The split whose scores each trace shows; None for a trace that shows no scores and stays.
        ranges: The score axis's range for each split, the one to show first.
        notes: Annotations of each split.
    """
    splits = tuple(ranges)
    for trace, owner in zip(figure.data, owners, strict=True):
        trace.visible = owner in (splits[0], None)
    figure.update_layout(yaxis={"range": ranges[splits[0]]}, annotations=list(notes[splits[0]]) if notes else [])
    options = [
        Option(
            "validation" if split == "val" else "test",
            {"visible": [owner in (split, None) for owner in owners]},
            {"yaxis.title.text": score_title(split), "yaxis.range": ranges[split]}
            | ({"annotations": list(notes[split])} if notes else {}),
        )
        for split in splits
    ]
    add_switch(figure, "score", options)


def whole_trainings(records: Sequence[Record]) -> Sequence[Record]:
    """Return the trials that set a plot's range: those that were not cut early, where there are any."""
    return [record for record in records if record.status == "completed"] or records


def hover_texts(view: RunView) -> dict[str, str]:
    """Return what is shown beside the mark of each scored trial, by trial."""
    return {record.trial: _hover(record, view) for record in view.scored}


def _hover(record: Record, view: RunView) -> str:
    lines = [
        f"{record.trial}, seed {record.seed}" + (", cut" if record.status == "cut" else ""),
        setting_of(record.candidate, record),
        f"RF {field_px(record.rf_px, record.path_rf_px)} px",
        f"validation {score(record.val)}" + (f", test {score(record.test)}" if view.split == "test" else ""),
    ]
    if record.infer_latency_spread_ms is not None:
        lines.append(f"latency {latency_words(record)}")
    return "<br>".join(literal(line) for line in lines)
