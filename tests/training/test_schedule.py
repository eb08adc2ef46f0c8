"""The learning rate over a training, against a plain loop."""

import pytest
import torch
from torch.optim import lr_scheduler

from rfsearch.space import Recipe
from rfsearch.training.schedule import learning_rate, tuning_recipe


def slow_rate(recipe: Recipe, step: int) -> float:
    """lr (1 - step / steps)^power, dropped once for each share that has passed, grown linearly in the warm-up."""
    rate = recipe.lr * (1 - step / recipe.steps) ** recipe.power
    for share in recipe.lr_steps:
        if step / recipe.steps >= share:
            rate = rate * recipe.lr_drop
    if step < recipe.warmup:
        rate = rate * (step + 1) / recipe.warmup
    return rate


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"power": 0.0, "lr_steps": (0.25, 0.5)},
        {"power": 0.9, "lr_steps": (0.6,), "lr_drop": 0.5, "warmup": 5},
        {"warmup": 20, "power": 0.0},
    ],
)
def test_the_learning_rate_at_every_step(changes):
    recipe = Recipe(steps=20, batch_size=1, lr=0.3, **changes)
    for step in range(20):
        assert learning_rate(recipe, step) == pytest.approx(slow_rate(recipe, step), rel=1e-12)


@pytest.mark.parametrize("steps", [5, 20, 57])
@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        ("cosine", lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps)),
        ("one-cycle", lambda optimizer, steps: lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps)),
    ],
)
def test_schedules_are_those_of_torch(schedule, make, steps):
    recipe = Recipe(steps=steps, batch_size=1, lr=0.3, schedule=schedule)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3, momentum=0.9)
    scheduler = make(optimizer, steps)
    for step in range(steps):
        assert learning_rate(recipe, step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    assert learning_rate(recipe, steps + 3) >= 0


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_of_few_steps_has_a_rate(steps):
    recipe = Recipe(steps=steps, batch_size=1, lr=0.3, schedule="one-cycle")
    assert all(0 < learning_rate(recipe, step) <= 0.3 for step in range(steps))


def test_a_plain_recipe_has_the_rates_it_always_had():
    recipe = Recipe(steps=4, batch_size=1, lr=1.0, power=0.0, lr_steps=(0.5, 0.75))
    assert [learning_rate(recipe, step) for step in range(4)] == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_a_fine_tuning_begins_at_a_tenth_of_the_rate_and_only_decays():
    recipe = Recipe(steps=100, batch_size=1, lr=0.3, power=0.9, warmup=10, lr_steps=(0.5,))
    rates = [learning_rate(tuning_recipe(recipe, 20), step) for step in range(20)]
    assert rates == [0.1 * 0.3 * (1 - step / 20) ** 0.9 for step in range(20)]
