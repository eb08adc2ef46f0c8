"""How every candidate of a space is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from rfsearch.space.table import LARGEST_FACTOR, MOST_IMAGES, MOST_RUNGS, MOST_STEPS, Side, Table

_LARGEST_RATE = 1e38  # single precision, in which weights are trained, holds 3.4e38


class Recipe(Table):
    """Say how every candidate of a space is trained: what may not vary between them.

    The rate follows `schedule`, after `warmup` steps of linear growth, and is multiplied by lr_drop after each of
    lr_steps.

    Args:
        steps: Length of one full training.
        batch_size: Images of one step.
        lr: Largest rate of new weights.
        optimizer: Stochastic gradient descent, or AdamW (Loshchilov and Hutter, 2019), whose weight decay is apart from
            the gradient.
        momentum: Of stochastic gradient descent.
        weight_decay: Of the optimiser; a learned f or gamma has none.
        clip_norm: Largest norm of the gradient of all weights together, f, gamma and dilations aside. None: any.
        precision: Of training steps: single, or bfloat16 where torch's autocast says so. Networks are scored in single.
        schedule: Of the rate: lr (1 - step / steps)^power; half a cosine from lr to 0; or one cycle (Smith and Topin,
            2018), up from lr / 25 for the first 30 % and down to next to 0, each along half a cosine.
        power: Of the polynomial schedule.
        warmup: Steps in which the rate grows.
        lr_steps: Shares of the training after which the rate drops.
        lr_drop: Factor of each drop.
        pretrained_lr_multiplier: Rate of the weights that a backbone brings trained, over lr.
        f_step: Relative change of a learned f, gamma or dilation in one step of a training of 300, at the largest
            rate; see `rfsearch.training.relative`. In one of n steps it is sqrt(300 / n) times that, so that noise
            takes them as far. 0: they are moved as weights are, which a recipe that names one of the next two means
            unless it says otherwise.
        f_lr_multiplier: Rate of a learned f, over lr (Wei sec. 4.2 and 5.1), where f_step is 0.
        gamma_lr_multiplier: Rate of a learned gamma, over lr, where f_step is 0.
        f_delay: Share of the training before f may move.
        f_clip: Largest size of f's gradient. None: any.
        f_background: What a background pixel counts in f's gradient; 1: like any other.
        guidance_weight: W of loss guidance (Wei eq. 12).
        normalisation: Of f's gradient: exact, or the paper's (Wei eq. 10-11), which divides the parts of inflation and
            interpolation by the pixels of their maps. That is a heuristic and the derivative of nothing: in the exact
            one the two parts nearly cancel, here the inflation's weighs more, the smaller its map is.
        border: Of inflated maps: continuous, so that the loss is continuous in f, or the paper's, floored (Wei eq. 2).
        low_centre: Kernels start with less weight at their centre, see `rfsearch.layers.initialisation.low_centre_`;
            of no effect on a space with trained weights.
        rungs: Validations on the way.
        rung_images: Images of the validation split that a rung takes.
        eval_batch_size: Images of one pass of an evaluation.
        flip: Half of the training images are mirrored.
        scale: Bounds of the zoom of training images.
        shift: Their largest displacement, as a share of the side.
        brightness: Largest amount added to them; 1 is from black to white.
        contrast: Largest relative change of their contrast.
        crop: H x W px of the window of each image that a training step sees, drawn anew each time. None: whole images.
            Networks are scored on whole images either way.
    """

    steps: int = Field(gt=0, le=MOST_STEPS)
    batch_size: int = Field(gt=0, le=MOST_IMAGES)
    lr: float = Field(gt=0)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    schedule: Literal["poly", "cosine", "one-cycle"] = "poly"
    power: float = Field(default=0.9, ge=0)
    warmup: int = Field(default=0, ge=0, le=MOST_STEPS)
    lr_steps: tuple[float, ...] = ()
    lr_drop: float = Field(default=0.1, gt=0, le=1)
    pretrained_lr_multiplier: float = Field(default=1.0, gt=0)
    f_step: float = Field(default=0.05, ge=0, le=1)
    f_lr_multiplier: float = Field(default=1.0, gt=0)
    gamma_lr_multiplier: float = Field(default=1.0, gt=0)
    f_delay: float = Field(default=0.0, ge=0, lt=1)
    f_clip: float | None = Field(default=None, gt=0)
    f_background: float = Field(default=1.0, ge=0)
    guidance_weight: float = Field(default=1.2, gt=0)
    normalisation: Literal["exact", "paper"] = "exact"
    border: Literal["continuous", "paper"] = "continuous"
    low_centre: bool = False
    rungs: int = Field(default=3, ge=0, le=MOST_RUNGS)
    rung_images: int = Field(default=64, gt=0, le=MOST_IMAGES)
    eval_batch_size: int = Field(default=16, gt=0, le=MOST_IMAGES)
    flip: bool = True
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = Field(default=0.0, ge=0, lt=1)
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)
    crop: tuple[Side, Side] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_multipliers(cls, given: object) -> object:
        if isinstance(given, Mapping) and {"f_lr_multiplier", "gamma_lr_multiplier"} & given.keys():
            return {"f_step": 0.0, **given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if any(not 0 < share < 1 for share in self.lr_steps) or list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise ValueError("lr_steps are ascending shares of the training, between 0 and 1")
        low, high = self.scale
        if not 1 / LARGEST_FACTOR <= low <= high <= LARGEST_FACTOR:
            raise ValueError(f"scale = [low, high] needs 0 < low <= high <= {LARGEST_FACTOR:g}")
        largest = self.lr * max(1.0, self.pretrained_lr_multiplier, self.f_lr_multiplier, self.gamma_lr_multiplier)
        if max(largest, self.weight_decay, self.f_clip or 0.0) > _LARGEST_RATE:
            raise ValueError(f"lr, lr times each multiplier, weight_decay and f_clip are at most {_LARGEST_RATE:g}")
        return self

    def rung_steps(self) -> tuple[int, ...]:
        """Return the steps after which a training is validated, its last one included."""
        return tuple(sorted({round(self.steps * i / (self.rungs + 1)) for i in range(1, self.rungs + 2)} - {0}))
