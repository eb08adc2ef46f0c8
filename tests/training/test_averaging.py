"""Averaged weights: the average by hand, and a model that is afterwards exactly what it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rfsearch.training.dilation_search import AveragedWeights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))


def test_it_is_the_exponential_average_of_a_hundredth_of_the_steps_times_four() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(3.0)
    average, expected, share = AveragedWeights(model, 200), 3.0, 1 / 8
    for value in (5.0, -1.0, 2.0):
        model.weight.data.fill_(value)
        assert average.update() == 2  # FLOP: a multiplication and an addition for its one weight
        expected = (1 - share) * expected + share * value
    with average.shown():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 2.0


def test_a_short_training_averages_nothing() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = AveragedWeights(model, 10)
    model.weight.data.fill_(7.0)
    average.update()
    with average.shown():
        assert model.weight.item() == 7.0


def test_it_normalises_by_the_batch_and_drops_nothing() -> None:
    model, x = network().train(), torch.randn(5, 3, 8, 8) * 3 + 2
    average = AveragedWeights(model, 100)
    with average.shown(), torch.no_grad():
        normal = model[1](model[0](x))
        again = model(x), model(x)
    assert normal.mean((0, 2, 3)) == pytest.approx(torch.zeros(4), abs=1e-5)
    assert normal.std((0, 2, 3), correction=0) == pytest.approx(torch.ones(4), abs=1e-3)
    assert torch.equal(*again)


@pytest.mark.parametrize("failing", [False, True])
def test_afterwards_the_model_is_as_before(failing: bool) -> None:
    model = network().train()
    model[3].eval()
    model(torch.randn(4, 3, 8, 8))
    average, before = AveragedWeights(model, 100), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
        average.update()
        expected = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            with average.shown():
                model(torch.randn(4, 3, 8, 8))
                if failing:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert failing
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert model[1].momentum == before[1].momentum


def test_it_goes_on_from_its_state() -> None:
    model = network()
    average, again = AveragedWeights(model, 500), AveragedWeights(model, 500)
    with torch.no_grad():
        model[0].weight.mul_(2)
    average.update()
    again.load_state(copy.deepcopy(average.state()))
    with torch.no_grad():
        model[0].weight.mul_(3)
    average.update()
    again.update()
    assert all(torch.equal(one, other) for one, other in zip(average.state(), again.state(), strict=True))


class Counting(nn.BatchNorm2d):
    """Batch normalisation of somebody's own, which counts its batches and follows them at a rate of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.num_batches_tracked += 1
            self.running_mean.lerp_(x.mean((0, 2, 3)), 0.5)
        return super().forward(x)


@pytest.mark.parametrize("norm", [nn.SyncBatchNorm(4), Counting(4), nn.InstanceNorm2d(4, track_running_stats=True)])
def test_every_kind_of_normalisation_goes_by_the_batch_and_keeps_its_statistics(norm: nn.Module) -> None:
    model = nn.Sequential(norm).train()
    model(torch.randn(5, 4, 8, 8))
    average, before = AveragedWeights(model, 100), copy.deepcopy(model.state_dict())
    with average.shown(), torch.no_grad():
        normal = model(torch.randn(5, 4, 8, 8) * 3 + 2)
    assert normal.mean((0, 2, 3)) == pytest.approx(torch.zeros(4), abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_normalisation_that_is_frozen_in_training_stays_so() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4)).train()
    model[0].eval()
    x = torch.randn(5, 4, 8, 8) * 3 + 2
    with AveragedWeights(model, 100).shown(), torch.no_grad():
        assert torch.equal(model(x), model[0](x))
        assert model(x) == pytest.approx(x, rel=1e-4)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.InstanceNorm2d(4, track_running_stats=True)])
def test_one_value_per_channel_is_normalised_by_the_running_statistics(norm: nn.Module) -> None:
    model = nn.Sequential(norm).train()
    x = torch.randn(1, 4, 1, 1)
    with AveragedWeights(model, 100).shown(), torch.no_grad():
        assert model(x) == pytest.approx(x, rel=1e-4)
        assert model(torch.randn(1, 4, 8, 8) + 5).mean((0, 2, 3)) == pytest.approx(torch.zeros(4), abs=1e-5)
