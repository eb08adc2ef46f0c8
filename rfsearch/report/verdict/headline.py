"""The headline: what to use and how sure that is. Then what it scored, and at which price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rfsearch.ledger import Cost, Record
from rfsearch.numbers import amount, counted, multiple, number, prefixed, score
from rfsearch.report.contenders import Contender
from rfsearch.report.decision import Decision
from rfsearch.report.statistics import mean
from rfsearch.report.verdict.phrases import (
    as_sentence,
    better_or_worse,
    name_contenders,
    name_lengths,
    reported_score,
    split_name,
    spread_words,
    trainings_words,
)
from rfsearch.report.view import RunView, has_moved, setting_of
from rfsearch.report.wording import listing


def explain_no_winner(view: RunView) -> str:
    """Say why no receptive field is recommended: no trial yet, or none that was scored."""
    if not view.records:
        return "No trial has finished yet, so there is nothing to report."
    statuses = Counter(r.status for r in view.records)
    listed = listing([f"{count} {status}" for status, count in statuses.items()])
    causes = Counter(r.cause for r in view.records if r.cause).most_common(1)
    why = f" The most frequent cause: {as_sentence(causes[0][0])}" if causes else ""
    return f"No trial was scored, so no receptive field won: {counted(len(view.records), 'trial')}, {listed}.{why}"


def say_what_to_use(view: RunView, decision: Decision) -> str:
    """Say which setting is recommended, with its receptive field, or that too little was trained."""
    best = decision.recommended.best
    field = f"{best.rf_px:,} px"
    if has_moved(best):
        field += f", moved there from {best.rf_init_px:,} px"
    setting = f"{setting_of(best.candidate, best)} ({field})"
    if all(record.status == "cut" for record in view.scored):
        return f"No training ran to its end, which is too little to recommend anything: ahead is {setting}."
    return f"{'Keep the hand default,' if decision.keeps_default else 'Use'} {setting}."


def say_how_sure(view: RunView, decision: Decision) -> Iterator[str]:
    """Say what cannot be told apart from the recommendation, and how it compares with the hand default."""
    ours, default = decision.recommended, decision.default
    yield from _say_confirmed(view, decision)
    if len(decision.alike) > 1:
        yield (
            f"{name_contenders(decision.alike)} cannot be told apart on the validation images "
            f"({trainings_words(decision.alike)}){_why_this_one(decision)}."
        )
    if default is not None and not decision.keeps_default:
        yield from _say_gain(view, decision, default)
    elif not ours.repeated and len(view.contenders) > 1:
        yield (
            f"It scored best on the validation images, in {_of_one(ours)}: "
            "how far a score varies from one training to the next is unknown."
        )


def _say_confirmed(view: RunView, decision: Decision) -> Iterator[str]:
    """Say what was trained again, at which price, and whether the search alone would have chosen otherwise."""
    confirmed = [c for c in view.contenders if c.confirmed]
    if not confirmed:
        return
    counts = sorted({len(c.confirmed) for c in confirmed})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else counted(counts[0], "seed")
    cost = sum((record.cost for record in view.run.confirmations), Cost())
    yield (
        f"{counted(len(confirmed), 'outcome')} of this run were trained again, from scratch and for the plain length, "
        f"with {seeds} each that chose nothing; the scores here are theirs. That cost {_price_words(view, cost)}, "
        "charged to no arm."
    )
    before = view.without_confirmations.decision
    if before is not None and before.recommended.best.ended != decision.recommended.best.ended:
        best = before.recommended.best
        holds = any(c.best.ended == best.ended for c in decision.alike)
        end = "" if holds else ", which did not hold up"
        yield f"The search alone would have recommended {setting_of(best.candidate, best)}{end}."


def _why_this_one(decision: Decision) -> str:
    ours = decision.recommended
    if ours is decision.alike[0]:
        return ""
    if decision.keeps_default:
        return "; the hand default needs no change"
    if ours.complexity < decision.alike[0].complexity:
        return "; this is the simplest of them"
    return ""


def _of_one(contender: Contender) -> str:
    return "a single training" if contender.full else "a single trial"


def _say_gain(view: RunView, decision: Decision, default: Contender) -> Iterator[str]:
    """Say by how much everything that leads beats the hand default, on the reported split."""
    tied = [(c, found) for c in decision.alike if c is not default and (found := view.compare(c, default))]
    where = f"on the {split_name(view.split)} images"
    if len(tied) > 1 and all(found.standing == "apart" and found.gap > 0 for _, found in tied):
        low, high = (end(found.gap for _, found in tied) for end in (min, max))
        span = number(low, 2) if number(low, 2) == number(high, 2) else f"{number(low, 2)} to {number(high, 2)}"
        steps = sorted({c.steps for c, _ in tied} | {default.steps})
        long = f", in trainings of {steps[0]:,} to {steps[-1]:,} steps" if len(steps) > 1 else ""
        yield f"{'Both' if len(tied) == 2 else 'All'} beat the hand default by {span} {where}{long}."
        return
    found = view.compare(decision.recommended, default)
    if found is None:
        return
    how = {
        "apart": "more than noise",
        "alike": "a difference within noise",
        "open": f"{trainings_words([decision.recommended, default])} are too few to say how much of that is chance",
    }[found.standing]
    if found.least is None:
        how = "each was trained once, so how much of that is chance is unknown"
    long = name_lengths(decision.recommended, default)
    yield f"Against the hand default it is {better_or_worse(found.gap)} {where}{long}: {how}."


def say_what_it_scored(view: RunView, decision: Decision) -> Iterator[str]:
    """Say what the recommended candidate scored, on which images, and which strategy found it."""
    ours = decision.recommended
    best = ours.best
    values = view.scores_of(ours)
    value, on = (None, view.split) if len(values) > 1 else reported_score(view, best)
    what = spread_words(values) if len(values) > 1 else score(value)
    chosen = f"; chosen on validation, {score(mean([r.val or 0.0 for r in ours.trained]))}" if on == "test" else ""
    yield (
        f"It scored {what} on the {split_name(on)} {_name_images(view)} ({view.metric}{chosen}). "
        f"Found by {best.strategy}."
    )
    yield from _say_best_trial(view, decision)
    yield from _say_best_on_test(view, decision)


def _say_best_trial(view: RunView, decision: Decision) -> Iterator[str]:
    """Say which single trial scored higher on validation than what is recommended, and why it is not."""
    winner = view.winner
    assert winner is not None
    if winner.trial in decision.recommended.trials or winner.val == decision.recommended.best.val:
        return
    if decision.recommended.confirmed:
        return  # what was trained again says more than one training
    long = f", {winner.steps:,} steps" if winner.steps != decision.recommended.steps else ""
    yield (
        f"The best single training was of {setting_of(winner.candidate, winner)} "
        f"({winner.trial}, validation {score(winner.val)}{long}): noise alone can make that difference."
    )


def _say_best_on_test(view: RunView, decision: Decision) -> Iterator[str]:
    """Say at once where something else scored better on the test images, which choose nothing."""
    if view.split != "test":
        return
    ours = decision.recommended
    others = [(found.gap, c, found) for c in view.contenders if c is not ours and (found := view.compare(c, ours))]
    gap, best, found = max(others, key=lambda entry: entry[0], default=(0.0, None, None))
    if best is None or found is None or gap <= 0:
        return
    there, here = (score(mean(view.scores_of(c))) for c in (best, ours))
    how = {"apart": "more than noise", "alike": "within noise", "open": "with too few trainings to tell from noise"}
    yield (
        f"It is not the best one on the test images: {setting_of(best.best.candidate, best.best)} "
        f"scored {number(gap, 2)} better there ({there} against {here}){name_lengths(best, ours)}, "
        f"{how[found.standing]}. Test images choose nothing here."
    )


def say_price(view: RunView, winner: Record) -> Iterator[str]:
    """Say what a training cost, what its arm had spent by then, and what all arms spent."""
    arm = next((a for a in view.arms if winner in a.records), None)  # none trained what only a confirmation did
    if arm is not None:
        until = arm.spent_until(winner)
        what = f"training, on from {winner.heir_of}," if winner.heir_of else "training"
        yield (
            f"Its {what} cost {_price_words(view, winner.cost)}. Including everything it had tried before, "
            f"{arm.strategy} had spent {_price_words(view, until)} when this training finished."
        )
    if arm is None or len(view.records) > len(arm.records):
        total = sum((a.spent for a in view.arms), Cost())
        yield f"All {counted(len(view.arms), 'arm')} together spent {_price_words(view, total)}."


def _name_images(view: RunView) -> str:
    """Return what the scores were measured on, in words; drawings are called so."""
    name = view.facts.data
    if not view.facts.rendered:
        return f"images of {name}" if name else "images"
    if "rendered" in name.lower():
        return f"images of {name.replace('-', ' ')}, which are drawings and no photographs"
    return f"images of {name or 'the data set'}, which are rendered: drawings and no photographs"


def _price_words(view: RunView, cost: Cost) -> str:
    """Return a cost in words, as a multiple of one reference training where that is known."""
    flop, held = prefixed(cost.flop, "FLOP"), amount(cost.device_s, "device_s")
    if view.facts.reference_flop is None:
        return f"{flop} and {held} of device time"
    times = multiple(cost.flop / view.facts.reference_flop)
    return f"{flop} ({times} one reference training) and {held} of device time"
