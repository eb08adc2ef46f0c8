"""Intervals of a few seeds: Student's t. What they cover is measured in `interval_coverage.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

FEWEST = 4
"""Seeds below which no interval is given."""


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def reach(count: int, level: float = 0.95) -> float | None:
    """Return how many standard errors the interval of a mean reaches to either side; None below FEWEST values."""
    return None if count < FEWEST else float(student.ppf((1 + level) / 2, count - 1))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t interval of a mean; None below FEWEST values."""
    errors = reach(len(values), level)
    if errors is None:
        return None
    mean, width = float(np.mean(values)), errors * standard_error(values)
    return mean - width, mean + width
