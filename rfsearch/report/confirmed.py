"""What of a run's outcomes is worth training again before anybody relies on it.

The best of many scores is in part luck, and what a strategy answers with may have been trained longer than the hand
default. So the best outcomes are trained once more: from scratch, by the plain recipe, with seeds that chose nothing.
"""

from __future__ import annotations

from rfsearch.choices import Candidate
from rfsearch.direction import merit
from rfsearch.report.statistics import mean
from rfsearch.report.view import RunView


def best_outcomes(view: RunView, count: int) -> list[Candidate]:
    """Return what is recommended, the other best outcomes, and the hand default.

    Args:
        view: A run without confirmations.
        count: Number of outcomes, the hand default aside.

    Returns:
        Candidates in which nothing is learned, each once; none where nothing was scored.
    """
    if view.decision is None:
        return []
    first, sign = view.decision.recommended, view.run.direction
    others = sorted(view.contenders, key=lambda c: -mean([merit(r.val or 0.0, sign) for r in c.records]))
    found = dict.fromkeys(c.best.ended for c in (first, *others))
    default = Candidate.from_json(view.facts.reference) if view.facts.reference else None
    best = [one for one in found if one is not None and one != default and not one.learned and not one.searched]
    return [*best[:count], *([default] if default else [])]
