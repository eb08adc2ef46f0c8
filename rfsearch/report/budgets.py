"""What a budget holds, and why an arm has left some of it, in sentences."""

from __future__ import annotations

from rfsearch.ledger import Run
from rfsearch.report.digest import Digest, digest
from rfsearch.report.wording import counted, listing, percent


def holds(text: str, trainings: float, each: float) -> str:
    """Return the sentence that says what a budget has room for.

    Args:
        text: The budget as it was asked for.
        trainings: How many full trainings of the hand default it pays for, evaluations included; may be a fraction.
        each: What one costs, in units of 1x.
    """
    one = f"one costs {each:.3g}x with its evaluations, which 1x is without"
    if trainings < 1:
        return f"{text} is less than a full training of the hand default takes: {one}."
    return f"{text} has room for {counted(int(trainings), 'full training')} of the hand default: {one}."


def left_unspent(run: Run) -> list[str]:
    """Return why arms ended with budget left, one sentence for each reason that the ledger holds."""
    return unspent(digest(run))


def unspent(told: Digest) -> list[str]:
    limit, by_reason = told.facts.limit, dict[str, list[str]]()
    for arm in told.arms:
        why = told.run.ends.get((arm.strategy, arm.seed))
        spent = float(getattr(arm.spent, told.facts.currency))
        if why and limit and spent < limit:
            by_reason.setdefault(why, []).append(f"{arm.strategy}/{arm.seed} {percent(1 - spent / limit)}")
    return [f"Left unspent: {listing(arms)}, since {why.rstrip('.')}." for why, arms in by_reason.items()]
