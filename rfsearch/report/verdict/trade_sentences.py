"""Sentences on the front of a search that went by cost as well: its knee, and what one more per cent of cost buys."""

from __future__ import annotations

from collections.abc import Iterator

from rfsearch.numbers import counted, number, score
from rfsearch.report.front import CostAxis
from rfsearch.report.trade import Knee, axis_of, box_of, cost_words, knee_of
from rfsearch.report.view import RunView, setting_of


def describe_trades(view: RunView) -> Iterator[str]:
    """Say of each cost that was an objective what the front of it offers."""
    for cost in view.facts.costs:
        axis = axis_of(cost)
        knee = knee_of(view, axis)
        if knee is not None:
            yield _knee_words(view, axis, knee)
        elif box_of(view, axis) is None:
            yield f"The search went by {axis.title} too, but the trials do not differ in it and in their scores."
        else:
            yield f"The front of score against {axis.title} has fewer than three candidates, so it has no knee."


def _knee_words(view: RunView, axis: CostAxis, knee: Knee) -> str:
    at, (cost, merit) = knee.contenders[knee.at].best, knee.points[knee.at]
    trained = {len(contender.trained) for contender in knee.contenders}
    once = ", each trained once" if trained == {1} else ""
    size = counted(len(knee.points), "candidate")
    parts = [
        f"Of whole trainings, the front of score against {axis.title} has {size}{once}; "
        f"its knee is {setting_of(at.candidate, at)} ({cost_words(axis, cost)}, validation {score(abs(merit))})."
    ]
    if knee.at > 0:
        parts.append(f"Up to it one more per cent of cost bought {number(knee.bought(knee.at), 2)} of score.")
    if knee.at < len(knee.points) - 1:
        parts.append(f"Beyond it one more per cent of cost buys {number(knee.bought(knee.at + 1), 2)} of score.")
    if view.decision and view.decision.recommended is not knee.contenders[knee.at]:
        cut = "" if view.decision.recommended.full else ", and its training is no whole one"
        parts.append(f"What is recommended above goes by the score alone{cut}.")
    return " ".join(parts)
