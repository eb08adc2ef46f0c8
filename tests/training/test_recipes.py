"""What a recipe may say of the optimiser: against torch's own, written out, and metered, forecast and resumed alike."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from rfsearch.choices import Dilated, Inflated, Moved
from rfsearch.errors import SpaceError
from rfsearch.planning.fitting import fit_space
from rfsearch.planning.forecaster import Forecaster
from rfsearch.tasks.from_space import task_of
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.schedule import learning_rate
from tests.toys import toy_space
from tests.training.test_training import CPU, DATA, finished, training

RECIPES = {
    "adamw": {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.05},
    "cosine, clipped": {"schedule": "cosine", "clip_norm": 0.1},
    "windows": {"crop": (32, 40)},
    "one cycle in bfloat16": {"optimizer": "adamw", "lr": 3e-3, "schedule": "one-cycle", "precision": "bf16"},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_its_steps_are_those_of_torch(tmp_path, recipe):
    space = toy_space(tmp_path, **recipe)
    given = space.recipe
    loop = TrainingLoop(space, DATA, space.uniform(Dilated(2)), 3, CPU)
    plain = copy.deepcopy(loop.model)
    if given.optimizer == "adamw":
        optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=given.weight_decay)
    else:
        optimizer = torch.optim.SGD(plain.parameters(), momentum=0.9, weight_decay=given.weight_decay)
    for step in range(4):
        loop.train_step(step)
        images, target = loop._batches.at(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
            loss = loop.task.loss(plain(images), target)
        loss.backward()
        if given.clip_norm:
            norm = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]).norm()
            assert norm > given.clip_norm
            nn.utils.clip_grad_norm_(plain.parameters(), given.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(given, step)
        optimizer.step()
    for ours, theirs in zip(loop.model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_windows_are_seen_in_training_and_whole_images_are_scored(tmp_path):
    loop = TrainingLoop(toy_space(tmp_path, crop=(32, 40)), DATA, toy_space(tmp_path).uniform(Dilated(2)), 3, CPU)
    seen = []
    loop.model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    loop.train_step(0)
    assert seen == [(32, 40)]
    loop.score(DATA.splits["val"])
    assert set(seen[1:]) == {(48, 48)}


def test_a_window_decides_what_fits_and_is_no_larger_than_the_images(tmp_path):
    def fitted(**recipe):
        space = toy_space(tmp_path, **recipe)
        return fit_space(space.with_(dilations=(1, 2, 4)), task_of(space, DATA), DATA, adapt=True)

    assert fitted().sites[0].map_size == (12, 12)
    assert fitted(crop=(32, 40)).sites[0].map_size == (8, 10)
    assert fitted(crop=(32, 40)).space.dilations == (1, 2, 3)
    with pytest.raises(SpaceError, match=r"crop = \[32, 64\] .* larger than the images. Largest: \[48, 48\]"):
        fitted(crop=(32, 64))


@pytest.mark.parametrize(
    "choice", [pytest.param(Dilated(4), id="plain"), pytest.param(Moved(2), id="moved", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_its_cost_is_the_forecast(tmp_path, recipe, choice):
    space = toy_space(tmp_path, **recipe)
    record = finished(training(space, choice, tmp_path))
    expected = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)(space.uniform(choice))
    assert record.status == "completed", record.cause
    assert record.cost.flop == pytest.approx(expected.cost.flop, rel=0 if choice == Dilated(4) else 0.02)


@pytest.mark.parametrize(
    "choice",
    [pytest.param(Inflated(2, learned=True), id="learned", marks=pytest.mark.slow), pytest.param(Moved(2), id="moved")],
)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_resumed_it_ends_as_if_never_stopped(tmp_path, recipe, choice):
    space = toy_space(tmp_path, **recipe, f_step=0.05)
    whole = finished(training(space, choice, tmp_path / "whole"))
    training(space, choice, tmp_path / "half").advance()
    second = finished(training(space, choice, tmp_path / "half"))
    assert (second.val, second.test, second.outcome) == (whole.val, whole.test, whole.outcome)
    assert replace(second.cost, device_s=0) == replace(whole.cost, device_s=0)
