"""Warnings about learned factors and sample strides that ended at their start or at a bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rfsearch.ledger import Record
from rfsearch.numbers import percent, plain
from rfsearch.report.view import AT_START, Motion, RunView, motions
from rfsearch.report.wording import listing


def warn_of_stuck_values(view: RunView, best: Record) -> Iterator[str]:
    """Warn of learned f and γ that ended at their start or at a bound: of what is recommended, and of all trials."""
    for letter in ("f", "γ"):
        moved = {r.trial: [m for m in motions(r, view.facts) if m.letter == letter] for r in view.scored}
        yield from _sentences_of(letter, {trial: ms for trial, ms in moved.items() if ms}, best)


def _sentences_of(letter: str, moved: Mapping[str, Sequence[Motion]], best: Record) -> Iterator[str]:
    """Yield the warnings about one letter.

    Args:
        letter: f or γ.
        moved: How it moved, by trial: one motion per path. Only trials that learned it.
        best: The recommended training.
    """
    ours = moved.get(best.trial, ())
    own = "its dilation was given" if letter == "f" else "its sample stride was given"
    if ours and all(m.still for m in ours):
        yield (
            f"The recommended {letter} never left its start (less than {percent(AT_START, 1)} away): "
            f"{own}, not learned."
        )
    elif ours and all(m.still or m.returned for m in ours):
        yield (
            f"The recommended {letter} moved and came back to its start: "
            f"it ended less than {percent(AT_START, 1)} away."
        )
    if ends := sorted({m.bound for m in ours if m.bound}):
        yield (
            f"The recommended {letter} ended at its bound of {listing([plain(b) for b in ends])}: "
            "it was stopped there, not by the data."
        )
    still = [trial for trial, ms in moved.items() if all(m.still for m in ms)]
    if still and len(still) == len(moved):
        where = "The" if len(moved) == 1 else f"In all {len(moved)} trials the"
        yield f"{where} learned {letter} never left its start, so it says nothing about the receptive field."
    elif still:
        yield f"In {len(still)} of {len(moved)} learned trials {letter} never left its start: {_name_trials(still)}."
    returned = [trial for trial, ms in moved.items() if trial not in still and all(m.still or m.returned for m in ms)]
    if returned:
        count = f"In {len(returned)} of {len(moved)} learned trials"
        yield f"{count} {letter} moved and came back to its start: {_name_trials(returned)}."
    held = [trial for trial, ms in moved.items() if any(m.bound for m in ms)]
    if held:
        bounds = listing([plain(b) for b in sorted({m.bound for ms in moved.values() for m in ms if m.bound})])
        count = f"In {len(held)} of {len(moved)} learned trials"
        yield f"{count} {letter} ended at a bound ({bounds}): {_name_trials(held)}."


def _name_trials(names: Sequence[str]) -> str:
    """Return the names of trials in words, four at most."""
    return listing([*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else [])])
