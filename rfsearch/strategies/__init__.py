"""Strategies, one algorithm a file. They import neither torch nor Ray."""

from rfsearch.strategies.base import Exhausted, Listing, Pruning, Strategy, Sweep

__all__ = ["Exhausted", "Listing", "Pruning", "Strategy", "Sweep"]
