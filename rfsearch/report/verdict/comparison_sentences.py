"""Sentences that hold the winner against the hand default, and the strategies against each other."""

from __future__ import annotations

from collections.abc import Iterator

from rfsearch.ledger import Record
from rfsearch.numbers import counted, multiple, score
from rfsearch.report.latency import latency_words
from rfsearch.report.statistics import bootstrap_interval
from rfsearch.report.verdict.phrases import better_or_worse, capitalised, gain, known_scores, mean, split_name
from rfsearch.report.view import RunView, setting_of
from rfsearch.report.wording import listing


def compare_with_default(view: RunView, winner: Record) -> Iterator[str]:
    """Hold the winner against the hand default: mean scores over all trainings of each."""
    reference, defaults = view.facts.reference, view.defaults
    if reference is None:
        return
    if view.is_default(winner):
        others = {r.candidate for r in view.scored} - {winner.candidate}
        if others:
            yield f"This is the hand default itself: none of {counted(len(others), 'other candidate')} beat it."
        else:
            yield "This is the hand default itself."
        return
    if not defaults:
        yield (
            f"The hand default ({setting_of(reference)}) has no scored trial in this run, "
            "so what was gained over it is unknown."
        )
        return
    ours, theirs = view.trainings(winner), known_scores(view, defaults)
    if not ours or not theirs:
        yield f"The hand default ({setting_of(reference)}) has no {split_name(view.split)} score to compare with."
        return
    over = f" (mean of {len(theirs)} trainings)" if len(theirs) > 1 else ""
    mine = f", {score(mean(ours))} as the mean of its {len(ours)} trainings," if len(ours) > 1 else ""
    yield (
        f"The hand default ({setting_of(reference)}, {defaults[0].rf_px:,} px) reached {score(mean(theirs))}{over}: "
        f"the winner{mine} is {better_or_worse(gain(view, ours, theirs))}."
    )
    if defaults[0].rf_px == winner.rf_px:
        yield "Both have the same receptive field."


def compare_latencies(view: RunView, winner: Record) -> Iterator[str]:
    """Say how long an image takes through the winner, and whether the hand default can be told apart from it."""
    if (ours := winner.infer_latency_spread_ms) is None:
        return
    default = next((r for r in view.defaults if r.infer_latency_spread_ms is not None), None)
    if default is None or view.is_default(winner):
        yield f"One image takes the winner {latency_words(winner)}."
        return
    theirs = default.infer_latency_spread_ms
    assert theirs is not None
    tied = ours[0] <= theirs[1] and theirs[0] <= ours[1]
    ratio = (winner.infer_latency_ms or 0.0) / (default.infer_latency_ms or 1.0)
    how = "a tie, since their spreads overlap" if tied else f"{multiple(ratio)} as long"
    yield f"One image takes the winner {latency_words(winner)}, the hand default {latency_words(default)}: {how}."


def compare_strategies(view: RunView, winner: Record) -> Iterator[str]:
    """Rank the strategies by the scores of their incumbents, over seeds where there are several."""
    if len(view.strategies) < 2:
        return
    ends, silent = [], []
    for strategy in view.strategies:
        finals = list(view.finals(strategy).values())
        if not finals:
            silent.append(strategy)
            continue
        text = f"{strategy} {score(mean(finals))}"
        if len(finals) > 1:
            low, high = bootstrap_interval(finals)
            text += f" ({score(low)} to {score(high)})"
        ends.append((mean(view.merits(finals)), strategy, text))
    several = any(len(view.finals(s)) > 1 for s in view.strategies)
    what = "mean over seeds, with its 95 % bootstrap interval" if several else "one seed each"
    ends.sort(key=lambda end: -end[0])
    if ends:
        ranking = listing([text for _, _, text in ends])
        yield f"Where each strategy ended on the {split_name(view.split)} images ({what}): {ranking}."
    if silent:
        yield f"{capitalised(listing(silent))} ended without a scored trial."
    if several and ends and ends[0][1] != winner.strategy:
        end = "highest" if view.run.direction == "maximize" else "lowest"
        yield f"Over seeds {ends[0][1]} ends {end}, though {winner.strategy} found the single best trial."
