"""What one full training of a candidate is expected to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rfsearch.ledger import Cost


@dataclass(frozen=True)
class Forecast:
    """Estimate one full training of a candidate.

    Attributes:
        cost: Of the training with its evaluations.
        least: Of the shortest training that still gives a score: one step, and scoring the outcome.
        stretch: The most that training costs from one rung to the next.
        peak_bytes: Peak memory of training, in bytes.
        rf_px: Receptive field, in px.
        path_rf_px: Receptive field of each path, in px, where paths are parallel.
        seen: A fingerprint of what every unit reads of the image, equal for candidates whose receptive fields cannot be
            told apart.
        step: Of the first step.
        entry: What must be left for it to begin at all, where its first step is a large piece.
    """

    cost: Cost
    least: Cost
    stretch: Cost
    peak_bytes: int
    rf_px: int
    path_rf_px: Mapping[str, int] = field(default_factory=dict)
    seen: str = ""
    step: Cost = field(default_factory=Cost)
    entry: Cost = field(default_factory=Cost)
