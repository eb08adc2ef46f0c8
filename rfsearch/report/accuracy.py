"""How good the plan's forecast of a trial was: measured over forecast, for everything a trial costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rfsearch.ledger import Record
from rfsearch.report.wording import byte_size, duration, finite, prefixed


@dataclass(frozen=True)
class Quantity:
    """One thing that is forecast and measured. words: how an amount of it reads."""

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
    """Measured over forecast of one quantity: the median, the worst (farthest from 1) and the trial it came from."""

    title: str
    trials: int
    median: float
    worst: float
    worst_trial: str


def ratio(quantity: Quantity, record: Record) -> float | None:
    """Measured over forecast; None where either is missing or nothing."""
    forecast, measured = quantity.forecast(record), quantity.measured(record)
    return measured / forecast if forecast and measured and forecast > 0 and measured > 0 else None


def accuracies(records: Sequence[Record]) -> list[Accuracy]:
    """One entry a quantity that can be judged. A forecast is of a full training, so only completed trials count."""
    found = []
    for quantity in QUANTITIES:
        ratios = [(x, r.trial) for r in records if r.status == "completed" and (x := ratio(quantity, r)) is not None]
        if ratios:
            worst, trial = max(ratios, key=lambda pair: abs(math.log(pair[0])))
            found.append(Accuracy(quantity.title, len(ratios), median(x for x, _ in ratios), worst, trial))
    return found
