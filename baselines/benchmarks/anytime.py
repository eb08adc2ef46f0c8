"""Follow what a strategy holds as it spends: anytime curves, and the spending at which they first reach a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from intervals import reach, standard_error

from rfsearch.direction import Direction
from rfsearch.ledger import Record, incumbent

Curve = list[tuple[float, float]]
"""Compute spent (FLOP) and the incumbent's merit from there on, one entry per change, in order."""


def curve_of(records: Sequence[Record], direction: Direction, worth: Callable[[Record], float]) -> Curve:
    """Return the curve of an arm's incumbent, which validation chooses.

    Args:
        records: Of the arm, in the order in which they came in.
        direction: Whether a higher or a lower score is the better one.
        worth: The merit of a record's reported score.
    """
    curve, best, spent = [], None, 0.0
    for record in records:
        spent += record.cost.flop
        if incumbent((best, record), direction) is not best:
            best = record
            curve.append((spent, worth(record)))
    return curve


def held_at(curve: Curve, spent: float) -> float:
    """Return the merit of a curve once that much is spent, FLOP; -inf before its first incumbent."""
    return next((merit for at, merit in reversed(curve) if at <= spent), -math.inf)


def first_reached(curves: Mapping[int, Curve], sweep: Mapping[int, float], above: float = 0.0) -> float:
    """Return the spending (FLOP) at which the mean curve first reaches the sweep's mean less one standard error.

    Args:
        curves: By seed.
        sweep: The merit that each seed's sweep ends with; the seeds of `curves` are among its own.
        above: By how much the mean curve must be above the target, below it where this is negative; in standard errors
            of the mean difference between the curves and the sweeps of the same seeds.

    Returns:
        The spending; infinite if the target is never reached.
    """
    slack = standard_error(list(sweep.values()))
    for spent in sorted({at for curve in curves.values() for at, _ in curve}):
        gaps = [held_at(curve, spent) - sweep[seed] for seed, curve in curves.items()]
        if math.isfinite(sum(gaps)) and np.mean(gaps) + slack >= above * standard_error(gaps):
            return spent
    return math.inf


def reached_between(
    curves: Mapping[int, Curve], sweep: Mapping[int, float], level: float = 0.95
) -> tuple[float, float] | None:
    """Return the interval of `first_reached`.

    Its ends are the spendings at which the upper and the lower end of the t interval of the mean difference first reach
    the target: between them it is unsure whether the mean has. An arm that may never get there has an infinite end.

    Args:
        curves: As for `first_reached`.
        sweep: As for `first_reached`.
        level: Of the t interval.

    Returns:
        Both ends; None for fewer seeds than an interval takes.
    """
    errors = reach(len(curves), level)
    if errors is None:
        return None
    return first_reached(curves, sweep, -errors), first_reached(curves, sweep, errors)


def ratio_between(above: tuple[float, float] | None, below: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return an interval of the ratio of two spendings, from theirs; infinite where either may never be reached.

    It covers at least what both cover together: 95 % where they are of the level 0.975.
    """
    if above is None or below is None:
        return None
    return (0.0 if math.isinf(below[1]) else above[0] / below[1]), above[1] / below[0]
