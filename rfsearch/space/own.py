"""A space whose candidates are trained by a function of the user's own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rfsearch.space.space import SearchSpace
from rfsearch.space.table import MOST_STEPS, Table


class Length(Table):
    """Say how long one full training is and what it costs, as a pilot of one epoch of the hand default found it.

    Args:
        epochs: Of the training.
        steps: Steps of the optimiser in one of them.
        train_flop: FLOP of an epoch's training.
        score_flop: FLOP of the evaluations within it.
        end_flop: FLOP of what comes behind the last one, final scores above all.
        epoch_s: Seconds of an epoch with its evaluations.
        end_s: Seconds of what comes behind the last one.
        look_flop: FLOP of one look at how good the network is; see `Trial.attach`.
        looks: Whether the training has such a look.
        peak_bytes: Peak memory of the training.
    """

    epochs: int = Field(gt=0, le=MOST_STEPS)
    steps: int = Field(gt=0, le=MOST_STEPS)
    train_flop: float = Field(gt=0)
    score_flop: float = Field(ge=0)
    end_flop: float = Field(ge=0)
    epoch_s: float = Field(gt=0)
    end_s: float = Field(ge=0)
    look_flop: float = Field(default=0.0, ge=0)
    looks: bool = False
    peak_bytes: int = Field(default=0, ge=0)

    @property
    def all_steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps


class OwnSpace(SearchSpace):
    """Add to what may vary how a user's own function trains.

    Args:
        train: SPEC of the function; empty for one that was passed to `rfsearch.search`.
        input_shape: 1 x C x its axes: what the network is shown of one image.
        f_step: Relative change of a learned f, gamma or dilation in one step of a training of 300; see
            `rfsearch.training.relative`.
        f_delay: Share of the training before it may move.
        length: Of one full training. None: it has not been found yet.
        score: Name of the score that the search goes by.
    """

    reopener: ClassVar[str] = "rfsearch.own_loop.planning:reopen"
    train: str
    input_shape: tuple[int, ...] = Field(min_length=3)
    f_step: float = Field(default=0.05, gt=0, lt=1)
    f_delay: float = Field(default=0.0, ge=0, lt=1)
    length: Length | None = None
    score: str = "score"

    @property
    def looks(self) -> bool:
        return self.length is not None and self.length.looks
