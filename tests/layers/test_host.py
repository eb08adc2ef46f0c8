"""Learned scalars are read from the device once a step, whoever asks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rfsearch.errors import ModelError, SpaceError, TrialError
from rfsearch.layers import LSDFN, FractionalConv2d, Inflation, InflationFactor, Interpolation, host, inflate
from rfsearch.layers.dynamic_filter import dynamic_filter


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Every reading, as if each waited for a device."""
    read, made = host._read, []
    monkeypatch.setattr(host, "_waits", lambda values: True)
    monkeypatch.setattr(host, "_read", lambda values: made.append(values) or read(values))
    return made


class Inflated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = InflationFactor(1.3, learned=True)
        self.inflation, self.interpolation = Inflation(self.factor), Interpolation(self.factor, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.interpolation(self.inflation(x), x.shape[2:])


@pytest.mark.parametrize(
    "make",
    [
        Inflated,
        lambda: LSDFN(2, 2, features=2, s=3, k=3, gamma=1.4, learned=True),
        lambda: FractionalConv2d(nn.Conv2d(2, 2, 3, padding=1), 1.7),
    ],
    ids=["inflation", "lsdfn", "fractional"],
)
def test_a_step_reads_once_and_sees_what_the_last_one_wrote(make, reads):
    torch.manual_seed(0)
    layer, x = make(), torch.randn(1, 2, 12, 12)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    (scalar,) = [p for name, p in layer.named_parameters() if p.numel() == 1 and "bias" not in name]
    for _ in range(3):
        before = host.on_host(scalar)
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
        reads.clear()
        assert host.on_host(scalar) != before
        layer(x).square().mean().backward()
        assert host.on_host(scalar) == tuple(scalar.detach().double().reshape(-1).tolist())
        assert len(reads) == 1
        scalar.data = scalar.data + 0.01  # another storage
        assert host.on_host(scalar) == tuple(scalar.detach().double().reshape(-1).tolist())


def test_a_copy_is_read_by_itself(reads):
    factor = InflationFactor(1.5)
    assert host.on_host(factor.f) == (1.5,)
    other = InflationFactor(1.5)
    other.load_state_dict({**factor.state_dict(), "f": torch.tensor(2.0)})
    assert host.on_host(other.f) == (2.0,)
    assert host.on_host(factor.f) == (1.5,)


INFLATION = ("An inflation factor", "f", "The paper's range is [0.25, 4].")
STRIDE = ("A sample stride", "gamma", "The usual range is [0.25, 16].")


def inflated(f: torch.Tensor | float) -> object:
    return inflate(torch.zeros(1, 1, 4, 4), f)


def filtered(gamma: torch.Tensor | float) -> object:
    return dynamic_filter(*(torch.zeros(1, n, 4, 4) for n in (2, 6, 9, 9, 9)), gamma)


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize(("call", "words"), [(inflated, INFLATION), (filtered, STRIDE)])
@pytest.mark.parametrize("value", [0.0, -1.5, math.inf, math.nan])
def test_a_scalar_that_is_not_finite_and_positive_is_refused(call, words, kind, value) -> None:
    name, symbol, usual = words
    if math.isfinite(value):
        error, message = SpaceError, f"{name} is greater than 0. Got {symbol}={value}. {usual}"
    else:
        error = TrialError
        message = f"{name} is finite. Got {symbol}={value}: its training diverged; lower its rate."
    with pytest.raises(error) as raised:
        call(kind(value))
    assert str(raised.value) == message


@pytest.mark.parametrize(("call", "name"), [(inflated, INFLATION[0]), (filtered, STRIDE[0])])
def test_a_tensor_of_several_numbers_is_refused_as_a_scalar(call, name) -> None:
    with pytest.raises(ModelError) as raised:
        call(torch.ones(2))
    assert str(raised.value) == f"{name} is one number. Got a tensor of shape (2,)."
