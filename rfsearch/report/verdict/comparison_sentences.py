"""Sentences that hold the recommendation against the hand default, and the strategies against each other."""

from __future__ import annotations

from collections.abc import Iterator

from rfsearch.numbers import counted, multiple, number, score, signed
from rfsearch.report.contenders import Contender, is_searched
from rfsearch.report.decision import Decision
from rfsearch.report.facts import canonical
from rfsearch.report.latency import latency_words
from rfsearch.report.statistics import mean
from rfsearch.report.verdict.phrases import better_or_worse, capitalised, split_name, spread_words
from rfsearch.report.view import RunView, setting_of
from rfsearch.report.wording import listing

# A latency whose 90th percentile is that many times its 10th tells of other work on the machine.
_BUSY = 1.5


def compare_with_default(view: RunView, decision: Decision) -> Iterator[str]:
    """Hold the recommendation against the hand default: scores over all trainings of each, and their lengths."""
    reference, default, ours = view.facts.reference, decision.default, decision.recommended
    if reference is None:
        return
    if decision.keeps_default:
        others = {canonical(r.candidate) for r in view.scored if r.status == "completed"} - {reference}
        if others and len(decision.alike) == 1:
            yield f"None of {counted(len(others), 'other candidate')} beat the hand default on the validation images."
        return
    if default is None:
        yield (
            f"The hand default ({setting_of(reference)}) has no scored trial in this run, "
            "so what was gained over it is unknown."
        )
        return
    theirs, mine = view.scores_of(default), view.scores_of(ours)
    if not mine or not theirs:
        yield f"The hand default ({setting_of(reference)}) has no {split_name(view.split)} score to compare with."
        return
    found = view.compare(ours, default)
    assert found is not None
    short = "" if default.full else ", in a training that was not run to its end"
    yield (
        f"The hand default ({setting_of(reference)}, {default.best.rf_px:,} px) reached {spread_words(theirs)}{short}: "
        f"the recommended one is {better_or_worse(found.gap)}{_least_words(found.least)}."
    )
    if default.best.rf_px == ours.best.rf_px:
        yield "Both have the same receptive field."
    yield from _say_lengths(view, ours, default)


def _least_words(least: float | None) -> str:
    return f"; noise alone reaches {number(least, 2)} in 5 % of cases" if least else ""


def _say_lengths(view: RunView, ours: Contender, default: Contender) -> Iterator[str]:
    """Name the lengths of trainings that differ, and split the gain into field and length where the run knows both."""
    if ours.steps == default.steps or not (ours.steps and default.steps):
        return
    longer = signed(100 * (ours.steps / default.steps - 1))
    yield (
        f"The trainings differ in length: {ours.steps:,} steps against {default.steps:,} of the hand default "
        f"({longer} %). A longer training scores higher at any receptive field."
    )
    whole = view.compare(ours, default)
    if whole is None:
        return
    again = _trained_plainly(view, ours, default.steps)
    longer_default = _same_candidate(view, default, ours.steps)
    if again is not None and (field := view.compare(again, default)):
        length = whole.gap - field.gap
        yield (
            f"Of its gain of {signed(whole.gap)}, the receptive field makes {signed(field.gap)}: trained from scratch "
            f"for {default.steps:,} steps it scored {spread_words(view.scores_of(again))}. The length and the way of "
            f"training make {signed(length)}."
        )
    elif longer_default is not None and (length_gap := view.compare(longer_default, default)):
        yield (
            f"Of its gain of {signed(whole.gap)}, the length makes {signed(length_gap.gap)}: the hand default trained "
            f"for {ours.steps:,} steps scored {spread_words(view.scores_of(longer_default))}. The receptive field "
            f"makes {signed(whole.gap - length_gap.gap)}."
        )
    else:
        yield "How much of the difference is the receptive field's is unknown: it was not trained for as long as that."


def _trained_plainly(view: RunView, contender: Contender, steps: int) -> Contender | None:
    """Return the trainings, from scratch and so long, of what a contender's best network ended with."""
    outcome = canonical(contender.best.outcome)
    return next(
        (
            c
            for c in view.contenders
            if c.full and c.steps == steps and canonical(c.best.candidate) == outcome and not is_searched(c.best)
        ),
        None,
    )


def _same_candidate(view: RunView, contender: Contender, steps: int) -> Contender | None:
    candidate = canonical(contender.best.candidate)
    return next(
        (c for c in view.contenders if c.full and c.steps == steps and canonical(c.best.candidate) == candidate), None
    )


def compare_latencies(view: RunView, decision: Decision) -> Iterator[str]:
    """Say how long an image takes, and whether the hand default can be told apart from it."""
    ours = decision.recommended.best
    if (spread := ours.infer_latency_spread_ms) is None:
        return
    default = next((r for r in view.defaults if r.infer_latency_spread_ms is not None), None)
    if default is None or decision.keeps_default:
        yield f"One image takes {latency_words(ours)}."
        return
    theirs = default.infer_latency_spread_ms
    assert theirs is not None
    tied = spread[0] <= theirs[1] and theirs[0] <= spread[1]
    ratio = (ours.infer_latency_ms or 0.0) / (default.infer_latency_ms or 1.0)
    how = "a tie, since their spreads overlap" if tied else f"{multiple(ratio)} as long"
    if any(high > _BUSY * low for low, high in (spread, theirs)):
        how = "not to be compared, since the machine was busy with something else"
    yield f"One image takes {latency_words(ours)}, with the hand default {latency_words(default)}: {how}."


def compare_strategies(view: RunView) -> Iterator[str]:
    """Rank the strategies by the scores of their incumbents, over seeds where there are several."""
    if len(view.strategies) < 2:
        return
    ends, silent = [], []
    lengths = {strategy: _lengths_of(view, strategy) for strategy in view.strategies}
    differ = len({length for length in lengths.values() if length}) > 1
    for strategy in view.strategies:
        finals = list(view.finals(strategy).values())
        if not finals:
            silent.append(strategy)
            continue
        how = f"{score(mean(finals))} in the mean" if view.facts.replayed else spread_words(finals)
        text = f"{strategy} {how}" + (f", {lengths[strategy]}" if differ else "")
        ends.append((mean(view.merits(finals)), strategy, text))
    ends.sort(key=lambda end: -end[0])
    if ends:
        what = "one seed each" if len(view.seeds) < 2 else f"{len(view.seeds)} seeds"
        ranking = "; ".join(text for _, _, text in ends)
        yield f"Where each strategy ended on the {split_name(view.split)} images ({what}): {ranking}."
    if silent:
        yield f"{capitalised(listing(silent))} ended without a scored trial."


def _lengths_of(view: RunView, strategy: str) -> str:
    """Return how long the trainings of a strategy's incumbents were, in words."""
    steps = [a.incumbent.steps for a in view.arms if a.strategy == strategy and a.incumbent and a.incumbent.steps]
    if not steps:
        return ""
    low, high = min(steps), max(steps)
    return f"{low:,} steps" if low == high else f"{low:,} to {high:,} steps"
