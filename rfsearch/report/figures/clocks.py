"""What is spent, as axes: training compute, device time and epochs, each in the unit in which it reads best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rfsearch.ledger import Cost
from rfsearch.numbers import si_scale
from rfsearch.report.view import RunView


@dataclass(frozen=True)
class Clock:
    """Describe one of the currencies that arms spend.

    Attributes:
        label: Its name on a switch.
        currency: Its field of `Cost`.
        unit: What amounts are divided by.
        title: Title of an axis of it.

    Example:
        >>> Clock("epochs", "epochs", 1.0, "epochs spent").unit
        1.0
    """

    label: str
    currency: Literal["flop", "device_s", "epochs"]
    unit: float
    title: str


def clocks_of(view: RunView) -> tuple[Clock, ...]:
    """Return the currencies, in units that suit what the run's arms have spent."""
    spent = [arm.spent for arm in view.arms] or [Cost()]
    reference = view.facts.reference_flop
    factor, prefix = si_scale(max(cost.flop for cost in spent))
    compute = "spent, × one reference training" if reference else f"spent, {prefix}FLOP"
    seconds, time = _time_unit(max(cost.device_s for cost in spent))
    return (
        Clock("training compute", "flop", reference or factor, compute),
        Clock("device time", "device_s", seconds, f"device time spent, {time}"),
        Clock("epochs", "epochs", 1.0, "epochs spent"),
    )


def _time_unit(longest_s: float) -> tuple[float, str]:
    for factor, unit in ((3600.0, "hours"), (60.0, "minutes")):
        if longest_s >= 2 * factor:
            return factor, unit
    return 1.0, "s"
