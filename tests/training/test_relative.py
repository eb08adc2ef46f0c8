"""Relative steps of f and gamma: as far whatever the size of the gradient."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Inflated
from rfsearch.layers import LSDFN, FractionalConv2d
from rfsearch.layers.inflation import Normalisation
from rfsearch.space import Recipe, read_space
from rfsearch.surgery import Settings, assemble
from rfsearch.training.optimisation import Optimisation, Scalar, value_of
from rfsearch.training.schedule import relative_step
from tests.toys import toy_file

STEP = 0.05
SHORTER = 30**0.5  # a training of 10 steps takes larger ones than one of 300, by this
# So small a rate that weights stay: what is tested moves by itself.
RECIPE = Recipe(steps=10, batch_size=2, lr=1e-30, power=0.0, weight_decay=0.0, f_step=STEP / SHORTER)


class Scaled:
    """A loss of any size."""

    def __init__(self, size: float) -> None:
        self._size = size

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self._size * (output - target).square().mean()

    def class_ids(self, target: Tensor) -> None:
        return None


def inflated(normalisation: Normalisation = "exact") -> tuple[nn.Module, Scalar]:
    torch.manual_seed(0)
    candidate = Candidate({"conv6": Inflated(4, learned=True)})
    model, learnable = assemble(wei_small(num_classes=3), candidate, Settings(normalisation=normalisation))
    return model, learnable.factors["conv6"]


def sampled() -> tuple[nn.Module, Scalar]:
    torch.manual_seed(0)
    block = LSDFN(3, 3, features=4, s=3, gamma=2.0, learned=True)
    for branch in (block.channel_kernels, block.tap_kernels, block.sampling_attention, block.position_attention):
        nn.init.normal_(branch.weight)
    return block, block.stride


def optimised(network: tuple[nn.Module, Scalar], size: float = 1.0, recipe: Recipe = RECIPE) -> Optimisation:
    return Optimisation(network[0], Scaled(size), recipe, (), [network[1]])


def moved(
    network: tuple[nn.Module, Scalar], optimisation: Optimisation, steps: range = range(4), side: int = 24
) -> list[float]:
    """What is learned, before and after each step on images that are other ones at every step."""
    value = value_of(network[1])
    found = [value.item()]
    for step in steps:
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(step))
        optimisation.set_rates(step)
        optimisation.clear()
        optimisation.find_gradients(images, images)
        optimisation.move()
        found.append(value.item())
    return found


def sizes(values: list[float]) -> list[float]:
    """Relative steps, up or down."""
    return [max(after / before, before / after) - 1 for before, after in pairwise(values)]


@pytest.mark.parametrize("make", [inflated, sampled])
def test_a_loss_a_thousand_times_as_large_moves_it_as_far(make):
    paths = {}
    for size in (1.0, 1000.0, 1e-3):
        network = make()
        paths[size] = moved(network, optimised(network, size))
    assert min(sizes(paths[1.0])) > 1e-3
    assert paths[1000.0] == pytest.approx(paths[1.0], rel=1e-4)
    assert paths[1e-3] == pytest.approx(paths[1.0], rel=1e-4)


@pytest.mark.parametrize("normalisation", ["exact", "paper"])
@pytest.mark.parametrize("side", [24, 48, 96])
def test_steps_are_as_large_on_images_of_every_size(side, normalisation):
    network = inflated(normalisation)
    (step,) = sizes(moved(network, optimised(network), range(1), side))
    assert step == pytest.approx(torch.tensor(STEP).exp().item() - 1, rel=1e-4)


def test_steps_follow_the_schedule():
    recipe = RECIPE.model_copy(update={"lr_steps": (0.5,), "lr_drop": 0.01})
    network = inflated()
    found = sizes(moved(network, optimised(network, recipe=recipe), range(10)))
    assert max(found[5:]) < 0.02 * max(found[:5])


def test_steps_that_noise_leads_take_it_as_far_in_a_training_of_any_length():
    reached = {}
    for steps in (300, 1200):
        recipe = RECIPE.model_copy(update={"steps": steps, "f_step": STEP})
        reached[steps] = steps * relative_step(recipe, 0) ** 2
    assert reached[300] == pytest.approx(300 * STEP**2)
    assert reached[1200] == pytest.approx(reached[300])


def test_what_does_not_move_yet_takes_no_part():
    network = inflated()
    optimisation = optimised(network)
    optimisation.free(False)
    held = moved(network, optimisation, range(2))
    optimisation.free(True)
    (step,) = sizes(moved(network, optimisation, range(2, 3)))
    assert len(set(held)) == 1
    assert step == pytest.approx(torch.tensor(STEP).exp().item() - 1, rel=1e-4)  # its gradients begin here


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_dilation_moves_as_far_as_an_inflation_factor_does(size):
    torch.manual_seed(0)
    layer = FractionalConv2d(nn.Conv2d(3, 3, 3, padding=1), 2.3)
    optimisation = Optimisation(layer, Scaled(size), RECIPE, (), [])
    optimisation.add_dilations([layer])
    before = layer.value
    optimisation.set_rates(0)
    images = torch.randn(2, 3, 24, 24)
    optimisation.find_gradients(images, images)
    optimisation.move()
    assert max(layer.value / before, before / layer.value) == pytest.approx(torch.tensor(STEP).exp().item(), rel=1e-4)


def test_a_state_that_is_loaded_goes_on_as_if_it_had_never_stopped():
    network = inflated()
    whole = moved(network, optimised(network), range(6))
    first, second = inflated(), inflated()
    before = optimised(first)
    half = moved(first, before, range(3))
    second[0].load_state_dict(first[0].state_dict())
    after = optimised(second)
    after.load_state(before.state())
    assert half[:-1] + moved(second, after, range(3, 6)) == whole


def test_recipes_that_name_a_multiplier_move_by_it_as_they_did(tmp_path: Path):
    assert Recipe(steps=1, batch_size=1, lr=1.0).f_step == STEP
    for key in ("f_lr_multiplier", "gamma_lr_multiplier"):
        assert Recipe(**{"steps": 1, "batch_size": 1, "lr": 1.0, key: 2.0}).f_step == 0
        assert Recipe(**{"steps": 1, "batch_size": 1, "lr": 1.0, key: 2.0, "f_step": 0.1}).f_step == 0.1
    assert read_space(toy_file(tmp_path), None).recipe.f_step == 0
    network = inflated()
    recipe = RECIPE.model_copy(update={"f_step": 0.0, "f_lr_multiplier": 1e30})
    optimisation = optimised(network, recipe=recipe)
    before, after = moved(network, optimisation, range(1))
    assert after == pytest.approx(before - value_of(network[1]).grad.item(), rel=1e-5)
