"""Rates of a loss that is summed over pixels, as papers print them, and those of its mean: the same training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Inflated
from rfsearch.space import Recipe
from rfsearch.surgery import Settings, assemble
from rfsearch.training.optimisation import Optimisation

SIDE, BATCH, STEPS = 24, 2, 6
PIXELS = SIDE * SIDE
SUM = {"lr": 2e-4, "weight_decay": 0.05, "multiplier": 300.0}  # as a paper would print them


def network() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    candidate = Candidate({"conv6": Inflated(4, learned=True)})
    model, learnable = assemble(wei_small(num_classes=3), candidate, Settings(normalisation="paper", border="paper"))
    return model, learnable.factors["conv6"]


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    return images, torch.randint(0, 3, (BATCH, SIDE, SIDE), generator=generator)


class Mean:
    """The loss of a task: its mean over pixels and images."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target)

    def class_ids(self, target: Tensor) -> Tensor:
        return target


def trained_on_the_sum() -> tuple[list[Tensor], float]:
    """Gradient descent with momentum 0.9, written out: v = 0.9 v + g, w = w - rate v."""
    model, factor = network()
    weights = [p for p in model.parameters() if p.requires_grad and p is not factor.f]
    speeds = [torch.zeros_like(p) for p in (*weights, factor.f)]
    for step in range(STEPS):
        images, labels = batch(step)
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels, reduction="sum") / BATCH
        loss.backward()
        with torch.no_grad():
            for p, speed in zip((*weights, factor.f), speeds, strict=True):
                decay = 0.0 if p is factor.f else SUM["weight_decay"]
                speed.copy_(0.9 * speed + p.grad + decay * p)
                p -= SUM["lr"] * (SUM["multiplier"] if p is factor.f else 1.0) * speed
            factor.project_()
    return weights, factor.f.item()


def trained_on_the_mean(recipe: Recipe) -> tuple[list[Tensor], float]:
    model, factor = network()
    optimisation = Optimisation(model, Mean(), recipe, (), [factor])
    for step in range(STEPS):
        optimisation.set_rates(step)
        optimisation.clear()
        optimisation.find_gradients(*batch(step))
        optimisation.move()
    return [p for p in model.parameters() if p.requires_grad and p is not factor.f], factor.f.item()


def test_a_training_on_the_mean_is_that_on_the_sum_at_rates_of_as_many_pixels():
    recipe = Recipe(
        steps=STEPS,
        batch_size=BATCH,
        lr=SUM["lr"] * PIXELS,
        weight_decay=SUM["weight_decay"] / PIXELS,
        f_lr_multiplier=SUM["multiplier"],  # the same: f's gradient grows as the loss does
        power=0.0,
    )
    expected, f = trained_on_the_sum()
    weights, found = trained_on_the_mean(recipe)
    assert abs(f - 1) > 0.01
    assert found == pytest.approx(f, rel=1e-4)
    for ours, theirs in zip(weights, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
