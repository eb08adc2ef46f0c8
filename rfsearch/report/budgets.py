"""What a budget holds, and why an arm has left some of it, in sentences."""

from __future__ import annotations

from rfsearch.ledger import Run
from rfsearch.numbers import counted, percent, plain
from rfsearch.report.view import RunView, build_view
from rfsearch.report.wording import listing


def holds(text: str, trainings: float, each: float) -> str:
    """Return the sentence that says what a budget has room for.

    Args:
        text: The budget as it was asked for.
        trainings: How many full trainings of the hand default it pays for, evaluations included; may be a fraction.
        each: What one costs, in units of 1x.
    """
    one = f"one costs {plain(each)}x with its evaluations, which 1x is without"
    if trainings < 1:
        return f"{text} is less than a full training of the hand default takes: {one}."
    return f"{text} has room for {counted(int(trainings), 'full training')} of the hand default: {one}."


def room_of(view: RunView) -> str:
    """Say what an arm's budget has room for; empty where a run does not say what a training costs."""
    facts, one = view.facts, view.facts.full_training
    if not (facts.limit and facts.reference_flop and one.get(facts.currency) and one.get("flop")):
        return ""
    return holds(facts.budget_text, facts.limit / one[facts.currency], one["flop"] / facts.reference_flop)


def left_unspent(run: Run) -> list[str]:
    """Return why arms of a run ended with budget left; see `unspent`."""
    return unspent(build_view(run))


def unspent(view: RunView) -> list[str]:
    """Return why arms ended with budget left, one sentence for each reason that the ledger holds."""
    limit, by_reason = view.facts.limit, dict[str, list[str]]()
    for arm in view.arms:
        why = view.run.ends.get((arm.strategy, arm.seed))
        spent = float(getattr(arm.spent, view.facts.currency))
        if why and limit and spent < limit:
            by_reason.setdefault(why, []).append(f"{arm.strategy}/{arm.seed} {percent(1 - spent / limit)}")
    return [f"Left unspent: {listing(arms)}, since {why.rstrip('.')}." for why, arms in by_reason.items()]
