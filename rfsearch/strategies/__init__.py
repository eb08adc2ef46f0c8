"""Strategies, one algorithm a file. They import neither torch nor Ray."""

from rfsearch.strategies.base import Exhausted, Pruning, Strategy, Sweep

__all__ = ["Exhausted", "Pruning", "Strategy", "Sweep"]
