"""Words that several sentences of the verdict share."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.ledger import Record
from rfsearch.numbers import finite, number
from rfsearch.report.view import RunView


def reported_score(view: RunView, record: Record) -> tuple[float | None, str]:
    """Return a record's reported score and its split; its validation score where it has no other one."""
    value = view.score(record)
    return (value, view.split) if value is not None else (finite(record.val), "val")


def known_scores(view: RunView, records: tuple[Record, ...]) -> list[float]:
    """Return the reported scores of those records that have one."""
    found = [view.score(r) for r in records]
    return [value for value in found if value is not None]


def split_name(split: str) -> str:
    """Return a split's name in a sentence."""
    return "validation" if split == "val" else split


def better_or_worse(difference: float) -> str:
    """Return a difference of scores in words: 0.012 better, 0.0030 worse, equal to it."""
    if difference == 0:
        return "equal to it"
    return f"{number(abs(difference), 2)} {'better' if difference > 0 else 'worse'}"


def gain(view: RunView, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return by how much our mean score is better than theirs; negative where it is worse."""
    return mean(view.merits(ours)) - mean(view.merits(theirs))


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)


def capitalised(text: str) -> str:
    """Return a text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def as_sentence(text: str) -> str:
    """Return a message as one sentence on one line, shortened to 240 characters."""
    text = " ".join(text.split())
    text = text if len(text) <= 240 else text[:237] + "..."
    return text if text.endswith((".", "!", "?", "...")) else text + "."
