"""Budgets: what an arm may spend, in the currency its text names, and what is left of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rfsearch.errors import BudgetError
from rfsearch.ledger.record import Cost

Currency = Literal["flop", "device_s", "epochs"]

_UNITS: dict[str, tuple[Currency, float]] = {
    "flop": ("flop", 1.0),
    "s": ("device_s", 1.0),
    "min": ("device_s", 60.0),
    "h": ("device_s", 3600.0),
    "epoch": ("epochs", 1.0),
    "epochs": ("epochs", 1.0),
}
_MOST = 1e30  # more than any training has taken, a million times over
_FORM = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """Limit what one arm may spend.

    Attributes:
        text: The budget as it was asked for.
        currency: What is counted.
        limit: How much of it may be spent.
    """

    text: str
    currency: Currency
    limit: Annotated[float, Field(gt=0)]

    @staticmethod
    def parse(text: str, reference_flop: float) -> Budget:
        """Read `7x`, `2e15flop`, `30min` (also s, h) or `40epoch`.

        Args:
            text: The budget.
            reference_flop: Training FLOP of one full training of the space's reference candidate: what 1x means.

        Raises:
            BudgetError: It is no budget, leaves nothing to spend, or is more than could be spent.
        """
        match = _FORM.fullmatch(text)
        rule = "A budget is a positive number and a unit: 7x, 2e15flop, 30min (also s, h) or 40epoch."
        if match is None:
            raise BudgetError(f"{rule} Got {text!r}.")
        amount, unit = float(match[1]), match[2].lower()
        if unit not in {"x", *_UNITS}:
            near = f"Did you mean {match[1]}x?" if not unit else f"Unknown unit {unit!r}."
            raise BudgetError(f"{rule} Got {text!r}. {near}")
        if not 0 < amount < float("inf"):
            raise BudgetError(
                f"{rule} Got {text!r}, which leaves nothing to spend." if amount <= 0 else f"{rule} Got {text!r}."
            )
        units: dict[str, tuple[Currency, float]] = {"x": ("flop", reference_flop), **_UNITS}
        currency, factor = units[unit]
        if amount * factor > _MOST:
            raise BudgetError(f"{rule} Got {text!r}, which no computer could spend: at most {_MOST:g} {currency}.")
        return Budget(text.strip(), currency, amount * factor)

    def spent(self, cost: Cost) -> float:
        """Return how much of this budget's currency a cost takes."""
        return float(getattr(cost, self.currency))

    def room(self, one: Cost, spent: Cost) -> int:
        """Return how many trainings that cost `one` each fit into what is left once `spent` is gone."""
        return max(0, int((self.limit - self.spent(spent)) / self.spent(one)))
