"""What a budget holds, and why an arm has left some of it, in sentences."""

from __future__ import annotations

from rfsearch.ledger import Run
from rfsearch.numbers import MISSING, counted, percent, plain
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


def over_and_under(share: float | None) -> tuple[str, str]:
    """Return by how much an arm has overshot its budget and how much of it is left, each a share of it or `none`.

    Args:
        share: What it has spent, as a share of its budget. None: that is not known.

    Example:
        >>> over_and_under(0.86)
        ('none', '14 %')
    """
    if share is None:
        return MISSING, MISSING
    return percent(share - 1) if share > 1 else "none", percent(1 - share) if share < 1 else "none"


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
