"""How good the plan's forecast of a trial was: measured over forecast, for everything a trial costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rfsearch.ledger import Record
from rfsearch.numbers import byte_size, duration, finite, prefixed


@dataclass(frozen=True)
class Quantity:
    """Describe one thing that is forecast and measured.

    Attributes:
        title: Its name in the table.
        forecast: What was forecast for a record; None where that is missing.
        measured: What was measured; None where that is missing.
        words: How an amount of it reads.

    Example:
        >>> QUANTITIES[1].words(101)
        '1 min 41 s'
    """

    title: str
    forecast: Callable[[Record], float | None]
    measured: Callable[[Record], float | None]
    words: Callable[[object], str]


QUANTITIES = (
    Quantity(
        "training FLOP",
        lambda r: finite(r.forecast.flop) if r.forecast else None,
        lambda r: finite(r.cost.flop),
        lambda x: prefixed(x, "FLOP"),
    ),
    Quantity(
        "device time",
        lambda r: finite(r.forecast.device_s) if r.forecast else None,
        lambda r: finite(r.cost.device_s),
        duration,
    ),
    Quantity(
        "peak memory of training",
        lambda r: finite(r.forecast_peak_bytes),
        lambda r: finite(r.train_peak_bytes),
        byte_size,
    ),
)


@dataclass(frozen=True)
class Accuracy:
    """Say how good the forecasts of one quantity were, as measured over forecast.

    Attributes:
        title: The quantity.
        trials: Number of trials that were compared.
        median: Median ratio.
        worst: The ratio that is farthest from 1.
        worst_trial: The trial that it came from.

    Example:
        >>> Accuracy("device time", trials=3, median=1.0, worst=1.4, worst_trial="random-0-2").worst
        1.4
    """

    title: str
    trials: int
    median: float
    worst: float
    worst_trial: str


def ratio(quantity: Quantity, record: Record) -> float | None:
    """Return measured over forecast; None where either is missing or not greater than zero."""
    forecast, measured = quantity.forecast(record), quantity.measured(record)
    return measured / forecast if forecast and measured and forecast > 0 and measured > 0 else None


def accuracies(records: Sequence[Record]) -> list[Accuracy]:
    """Return one entry per quantity that can be judged.

    A forecast is that of a full training, so only completed trials count.
    """
    found = []
    for quantity in QUANTITIES:
        ratios = [(x, r.trial) for r in records if r.status == "completed" and (x := ratio(quantity, r)) is not None]
        if ratios:
            worst, trial = max(ratios, key=lambda pair: abs(math.log(pair[0])))
            found.append(Accuracy(quantity.title, len(ratios), median(x for x, _ in ratios), worst, trial))
    return found
