"""Strategies, one algorithm per file. They import neither torch nor Ray."""

from rfsearch.strategies.base import (
    Budgeted,
    Describing,
    Description,
    Exhausted,
    Formed,
    Heir,
    Pruning,
    Relaying,
    Strategy,
    Sweep,
)

__all__ = [
    "Budgeted",
    "Describing",
    "Description",
    "Exhausted",
    "Formed",
    "Heir",
    "Pruning",
    "Relaying",
    "Strategy",
    "Sweep",
]
