"""Strategies, one algorithm a file. They import neither torch nor Ray."""

from rfsearch.strategies.base import (
    Budgeted,
    Exhausted,
    Formed,
    Heir,
    Listing,
    Pruning,
    Relaying,
    Strategy,
    Sweep,
)

__all__ = ["Budgeted", "Exhausted", "Formed", "Heir", "Listing", "Pruning", "Relaying", "Strategy", "Sweep"]
