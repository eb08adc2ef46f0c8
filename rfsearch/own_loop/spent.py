"""What the parts of a user's training have cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Spent:
    """Count what the parts of a training have cost, FLOP and seconds.

    Attributes:
        score_flop: Of what ran inside `Trial.evaluating`.
        epoch_flop: Of the last epoch, evaluations included.
        growth: How much dearer the next one may be, at least 1: what a learned f makes of it.
        epoch_score_flop: Of the evaluations in the last epoch.
        most_score_flop: Of the evaluations in that epoch, of all, in which they cost most.
        epoch_s: Seconds of the last epoch, or of the one before where that took longer.
        look_flop: Of the last look.
        epochs: Whole epochs since this process has taken the training up.
        steps: Optimiser steps in the last epoch, with those that a scaler of gradients left out.
    """

    score_flop: float = 0.0
    epoch_flop: float = 0.0
    growth: float = 1.0
    epoch_score_flop: float = 0.0
    most_score_flop: float = 0.0
    epoch_s: float = 0.0
    look_flop: float = 0.0
    _last_s: float = 0.0
    epochs: int = 0
    steps: int = 0

    @property
    def epoch_train_flop(self) -> float:
        """FLOP of the last epoch without evaluations."""
        return self.epoch_flop - self.epoch_score_flop

    @property
    def next_epoch_flop(self) -> float:
        """FLOP that the next epoch may cost; one may be evaluated that follows one that was not."""
        return self.growth * (self.epoch_train_flop + self.most_score_flop)

    def end_epoch(self, flop: float, score_flop: float, seconds: float, steps: int, growth: float) -> None:
        """Note what an epoch has cost, and by how much what it has moved makes the next one dearer."""
        before = self.epoch_train_flop
        self.epoch_s = max(seconds, self._last_s)
        self._last_s = seconds
        self.epoch_flop, self.epoch_score_flop = flop, score_flop
        self.most_score_flop = max(self.most_score_flop, score_flop)
        self.growth = max(1.0, growth, self.epoch_train_flop / before if before else 1.0)
        self.epochs += 1
        self.steps = steps
