"""Dilations that are learned on from where they were found: where that begins, what holds it, what is left of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rfsearch.choices import Candidate, Searched
from rfsearch.layers import FractionalConv2d
from rfsearch.planning.forecaster import Forecaster
from rfsearch.surgery import Settings, assemble
from rfsearch.tasks.from_space import task_of
from rfsearch.training.dilation_search import SharedDilations, decided_from
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.network import build_network
from tests.toys import toy_faces, toy_space
from tests.training.test_training import finished, training

CPU = torch.device("cpu")
DATA = toy_faces()
SEARCHED = Searched(1)


@pytest.fixture
def found_two(monkeypatch):
    """The looks find dilation 2: not an end of the space, where the gradient might be held."""

    def look(prelude: SharedDilations, step: int, score: object) -> None:
        prelude.load_state({"best": {"conv6": 2}, "open": {"conv6": [2]}})

    monkeypatch.setattr(SharedDilations, "look", look)


def hooked(conv: nn.Conv2d) -> nn.Conv2d:
    """As torch's older weight normalisation does, which makes the weight anew before every pass."""
    conv.register_forward_pre_hook(lambda module, args: None)
    return conv


def a_loop(folder, **recipe: object) -> TrainingLoop:
    torch.manual_seed(7)
    space = toy_space(folder, **recipe)
    return TrainingLoop(space, DATA, space.uniform(SEARCHED), seed=7, device=CPU)


def test_it_begins_where_the_dilation_was_found_and_changes_nothing_by_itself(tmp_path):
    loop = a_loop(tmp_path)
    over = decided_from(toy_space(tmp_path).recipe, Candidate({"conv6": SEARCHED}))
    for step in range(over):
        loop.train_step(step)
        assert type(loop.model.get_submodule("conv6")) is nn.Conv2d
    loop.search.before_step(over)
    layer = loop.model.get_submodule("conv6")
    assert isinstance(layer, FractionalConv2d)
    assert layer.value == loop.search.shared.best["conv6"]
    image = torch.randn(2, 3, *DATA.image_size)
    loop.model.eval()
    with torch.no_grad():
        found = loop.model(image)
        loop.settle()
        plain = loop.model.get_submodule("conv6")
        assert type(plain) is nn.Conv2d
        assert plain.dilation == (layer.value, layer.value)
        assert plain.weight is layer.weight
        torch.testing.assert_close(found, loop.model(image))


@pytest.mark.usefixtures("found_two")
def test_from_then_on_the_gradient_moves_it(tmp_path):
    loop = a_loop(tmp_path)
    for step in range(loop.steps):
        loop.train_step(step)
    layer = loop.model.get_submodule("conv6")
    assert isinstance(layer, FractionalConv2d)
    assert not layer.value.is_integer()
    assert loop.dilation_values() == {"conv6": layer.value}
    assert loop.learned_values() == loop.dilation_values()


def test_it_stays_within_the_dilations_of_the_space(tmp_path):
    space, loop = toy_space(tmp_path), a_loop(tmp_path)
    for step in range(loop.steps - 1):
        loop.train_step(step)
    with torch.no_grad():
        loop.search.moving["conv6"].log_dilation.fill_(math.log(100))
    loop.train_step(loop.steps - 1)
    assert loop.dilation_values() == {"conv6": max(space.dilations)}


def test_weight_decay_does_not_pull_it(tmp_path):
    loop = a_loop(tmp_path, weight_decay=0.5)
    for step in range(decided_from(toy_space(tmp_path).recipe, Candidate({"conv6": SEARCHED})) + 1):
        loop.train_step(step)
    (group,) = [
        g
        for g in loop.optimisation.optimizer.param_groups
        if loop.search.moving["conv6"].log_dilation in set(g["params"])
    ]
    assert group["weight_decay"] == 0


def test_whole_at_its_end_it_is_a_plain_convolution_again(tmp_path):
    loop = a_loop(tmp_path)
    for step in range(loop.steps):
        loop.train_step(step)
    with torch.no_grad():
        loop.search.moving["conv6"].log_dilation.fill_(math.log(4))
    loop.settle()
    assert loop.model.get_submodule("conv6").dilation == (4, 4)
    assert loop.dilation_values() == {"conv6": 4}


def test_its_cost_is_nearly_the_forecast(tmp_path):
    """What a step costs depends a little on where between two pixels the taps lie."""
    space = toy_space(tmp_path)
    record = finished(training(space, SEARCHED, tmp_path))
    expected = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)(space.uniform(SEARCHED))
    assert record.cost.flop == pytest.approx(expected.cost.flop, rel=0.002)


@pytest.mark.usefixtures("found_two")
def test_what_is_kept_is_built_again_from_its_candidate(tmp_path):
    space = toy_space(tmp_path)
    record = finished(training(space, SEARCHED, tmp_path))
    state = torch.load(tmp_path / "t" / "model.pt", weights_only=True)
    candidate = Candidate.from_json(state["candidate"])
    ((_, path),) = candidate
    assert path.choice == record.found["conv6"]
    assert record.outcome == candidate.to_json()
    assert record.f == {}
    model, *_ = build_network(space, task_of(space, DATA), DATA, candidate)
    model.load_state_dict(state["model"])
    assert model.get_submodule("conv6").value == pytest.approx(path.choice.dilation, rel=1e-6)


@pytest.mark.parametrize(
    ("conv", "learned"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), True),
        (nn.Conv2d(4, 4, 3, padding="same"), True),
        (nn.Conv2d(4, 4, 3, padding=1, stride=2, padding_mode="replicate"), True),
        (nn.Conv2d(4, 4, 3), False),  # its output shrinks with its dilation
        (nn.Conv2d(4, 4, 3, padding=(1, 0)), False),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), False),  # no further than the map is long
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)), False),
        (hooked(nn.Conv2d(4, 4, 3, padding=1)), False),
    ],
)
def test_which_convolutions_it_is_learned_of(conv, learned):
    model, learnable = assemble(nn.Sequential(conv), Candidate({"0": Searched(2)}), Settings())
    moving = learnable.let_move(model, (1.0, 8.0))
    assert list(moving) == ["0"] * learned
    assert isinstance(model[0], FractionalConv2d) == learned


def test_one_dilation_alone_has_nowhere_to_go():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
    model, learnable = assemble(model, Candidate({"0": Searched(2)}), Settings())
    assert learnable.let_move(model, (2.0, 2.0)) == {}
