"""The learning rate over a training: linear warm-up, a schedule, and drops at given shares of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from rfsearch.space import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of new weights at a step, from 0.

    It is lr times the schedule, times lr_drop for each of lr_steps that is past, after `warmup` steps of linear growth.
    """
    rate = recipe.lr * _SCHEDULES[recipe.schedule](recipe, step)
    rate *= recipe.lr_drop ** sum(step >= share * recipe.steps for share in recipe.lr_steps)
    result: float = rate * (step + 1) / recipe.warmup if step < recipe.warmup else rate
    return result


# Of one cycle, as torch.optim.lr_scheduler.OneCycleLR has them: when the rate is largest, what it begins with and what
# it ends with, both over the largest.
_PEAK, _BEGIN, _END = 0.3, 1 / 25, 1 / 25e4


def _one_cycle(recipe: Recipe, step: int) -> float:
    peak, last = _PEAK * recipe.steps - 1, recipe.steps - 1
    if step < peak:
        return _along_cosine(1.0, _BEGIN, 1 - step / peak)
    return _along_cosine(1.0, _END, min(1.0, (step - peak) / (last - peak)) if last > peak else 1.0)


def _along_cosine(high: float, low: float, share: float) -> float:
    """Return what is reached on the way from high to low along half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


# A forecast times more steps than a short recipe may have.
_SCHEDULES: dict[str, Callable[[Recipe, int], float]] = {
    "poly": lambda recipe, step: max(0.0, 1 - step / recipe.steps) ** recipe.power,
    "cosine": lambda recipe, step: _along_cosine(1.0, 0.0, min(1.0, step / recipe.steps)),
    "one-cycle": _one_cycle,
}
_USUAL_STEPS = 300


def length_factor(steps: int) -> float:
    """Return by how much the relative steps of a training of so many are larger than those of one of 300.

    Steps in directions of noise take a number as far as the root of how many there are, so longer trainings have
    smaller ones.
    """
    return math.sqrt(_USUAL_STEPS / steps)


def relative_step(recipe: Recipe, step: int) -> float:
    """Return the relative change of what is learned of a receptive field at a step, from 0; it follows the rate."""
    result: float = recipe.f_step * length_factor(recipe.steps) * learning_rate(recipe, step) / recipe.lr
    return result


_TUNING_RATE = 0.1  # of a fine-tuning, over the training's


def tuning_recipe(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe of a fine-tuning: a tenth of the rate, which decays without warm-up or drops.

    Args:
        recipe: Of the training before it.
        steps: Length of the fine-tuning.
    """
    return recipe.model_copy(
        update={"lr": _TUNING_RATE * recipe.lr, "steps": steps, "schedule": "poly", "warmup": 0, "lr_steps": ()}
    )
