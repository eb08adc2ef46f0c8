"""Strategies, one algorithm a file. They import neither torch nor Ray."""

from rfsearch.strategies.base import Exhausted, Formed, Listing, Pruning, Strategy, Sweep

__all__ = ["Exhausted", "Formed", "Listing", "Pruning", "Strategy", "Sweep"]
