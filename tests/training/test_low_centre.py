"""The recipe's low-centre initialisation: it reaches the network, keeps its seed, and leaves trained weights alone."""

import pytest
import torch
from torch import nn

from rfsearch.backbones.weights import TrainedWeights
from rfsearch.choices import Dilated
from rfsearch.layers.initialisation import low_centre_
from rfsearch.space import Space
from rfsearch.tasks.from_space import task_of
from rfsearch.training import build_network, network
from rfsearch.training.loop import TrainingLoop
from tests.toys import toy_faces, toy_space

DATA = toy_faces()


def weights(space: Space, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build_network(space, task_of(space, DATA), DATA, space.uniform(Dilated(2)))[0].state_dict()


def test_it_is_off_unless_asked_for_and_then_what_the_layer_package_does(tmp_path):
    space = toy_space(tmp_path)
    assert not space.recipe.low_centre
    plain, low = weights(space), weights(toy_space(tmp_path, low_centre=True))
    assert plain.keys() == low.keys()
    changed = {name for name in plain if not torch.equal(plain[name], low[name])}
    kernels = {name for name, weight in plain.items() if weight.dim() == 4 and weight.shape[-1] > 1}
    assert changed == kernels
    for name in kernels:
        by_hand = nn.Conv2d(1, 1, plain[name].shape[-1])
        by_hand.weight = nn.Parameter(plain[name].clone())
        low_centre_(by_hand)
        torch.testing.assert_close(low[name], by_hand.weight.detach())


def test_the_same_seed_gives_the_same_start(tmp_path):
    space = toy_space(tmp_path, low_centre=True)
    first, again, other = weights(space), weights(space), weights(space, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv6.weight"], other["conv6.weight"])


def test_trained_weights_are_left_as_loaded(tmp_path, monkeypatch):
    def load(model: nn.Module, source: str, spec: str) -> TrainedWeights:
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.5)
        return TrainedWeights(frozenset(name for name, _ in model.named_parameters()), "")

    monkeypatch.setattr(network, "load_weights", load)
    space = toy_space(tmp_path, low_centre=True).with_(weights="hub")
    conv6 = weights(space)["conv6.weight"]
    assert conv6.eq(0.5).all()


@pytest.mark.parametrize("low_centre", [False, True])
def test_a_network_trains_from_it(tmp_path, low_centre):
    space = toy_space(tmp_path, low_centre=low_centre)
    torch.manual_seed(0)
    work = TrainingLoop(space, DATA, space.uniform(Dilated(1)), seed=0, device=torch.device("cpu"))
    assert work.train_step(0) == work.train_step(1) > 0
