"""Whether a higher score is the better one. Scores are kept as the metric gives them; merits are compared."""

from __future__ import annotations

from typing import Literal

Direction = Literal["maximize", "minimize"]


def merit(score: float, direction: Direction) -> float:
    """Return how good a score is, so that a higher merit is the better one whatever the metric.

    Example:
        >>> max([0.2, 0.1], key=lambda error: merit(error, "minimize"))
        0.1
    """
    return score if direction == "maximize" else -score
