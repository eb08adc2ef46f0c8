"""Words that several sentences of the verdict share."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.ledger import Record
from rfsearch.numbers import counted, finite, number, score
from rfsearch.report.contenders import Contender
from rfsearch.report.statistics import SEEDS_FOR_AN_INTERVAL, mean, mean_interval
from rfsearch.report.view import RunView, setting_of
from rfsearch.report.wording import listing

_MOST_NAMED = 4


def reported_score(view: RunView, record: Record) -> tuple[float | None, str]:
    """Return a record's reported score and its split; its validation score where it has no other one."""
    value = view.score(record)
    return (value, view.split) if value is not None else (finite(record.val), "val")


def split_name(split: str) -> str:
    """Return a split's name in a sentence."""
    return "validation" if split == "val" else split


def better_or_worse(difference: float) -> str:
    """Return a difference of scores in words: 0.012 better, 0.0030 worse, equal to it."""
    if difference == 0:
        return "equal to it"
    return f"{number(abs(difference), 2)} {'better' if difference > 0 else 'worse'}"


def spread_words(values: Sequence[float]) -> str:
    """Return scores of repeated trainings in words: two or three as they are, more by their mean and its interval."""
    if len(values) < SEEDS_FOR_AN_INTERVAL:
        return listing([score(v) for v in sorted(values)])
    low, high = mean_interval(values)
    return f"{score(mean(values))} (mean of {len(values)}, 95 % interval {score(low)} to {score(high)})"


def name_contenders(contenders: Sequence[Contender]) -> str:
    """Name several contenders at the beginning of a sentence: Dilations 3, 4 and 6; where they are many, count them."""
    if all(dilations := [_only_dilation(c) for c in contenders]):
        return f"Dilations {listing([str(d) for d in sorted(dilations)])}"
    if len(contenders) > _MOST_NAMED:
        return f"The {len(contenders)} best candidates"
    names = [setting_of(c.best.candidate, c.best) for c in contenders]
    where = names[0].rpartition(" at ")[2]
    if all(name.endswith(f" at {where}") and name.count(" at ") == 1 for name in names):
        names = [name.removesuffix(f" at {where}").removesuffix(",") for name in names]
        return capitalised("; ".join(names[:-1])) + f"; and {names[-1]} at {where}"
    return capitalised("; ".join(names[:-1])) + f"; and {names[-1]}"


def _only_dilation(contender: Contender) -> int:
    """Return the dilation that a plain contender has at every site; 0 where it has no such."""
    known = contender.best.ended
    if known is None or any(contender.complexity):
        return 0
    dilations = {path.choice.plain_dilation or 0 for _, path in known}
    return dilations.pop() if len(dilations) == 1 else 0


def trainings_words(contenders: Sequence[Contender]) -> str:
    """Say how often each of several contenders was trained, and for how long where that differs: 5 trainings each."""
    counts, steps = ({value(c) for c in contenders} for value in (lambda c: len(c.trained), lambda c: c.steps))
    low, high = min(counts), max(counts)
    text = f"{counted(low, 'training')} each" if low == high else f"{low} to {high} trainings each"
    return text if len(steps) == 1 else f"{text}, of {min(steps):,} to {max(steps):,} steps"


def name_lengths(ours: Contender, theirs: Contender) -> str:
    """Name the lengths of two contenders' trainings where they differ, to stand behind a comparison; else empty."""
    return "" if ours.steps == theirs.steps else f" after {ours.steps:,} steps against {theirs.steps:,}"


def capitalised(text: str) -> str:
    """Return a text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def as_sentence(text: str) -> str:
    """Return a message as one sentence on one line, shortened to 240 characters."""
    text = " ".join(text.split())
    text = text if len(text) <= 240 else text[:237] + "..."
    return text if text.endswith((".", "!", "?", "...")) else text + "."
