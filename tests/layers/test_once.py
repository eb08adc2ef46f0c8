"""Second derivatives: right where a layer has them, an error where it has none, and never silently wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rfsearch.errors import DerivativeError, ModelError
from rfsearch.layers import (
    LSDFN,
    FractionalConv2d,
    Inflation,
    InflationFactor,
    Interpolation,
    WeightedGradient,
    fractional_conv2d,
    guided,
    inflate,
    interpolate,
)


class _Interpolated(nn.Module):
    def __init__(self, f: float) -> None:
        super().__init__()
        self.layer = Interpolation(InflationFactor(f, learned=True), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, (12, 12))


def _inflation(f: float) -> nn.Module:
    return Inflation(InflationFactor(f, learned=True))


def _fractional(dilation: float, channels: int = 2) -> nn.Module:
    return FractionalConv2d(nn.Conv2d(channels, channels, 3, padding=1), dilation)


def _block() -> nn.Module:
    block = LSDFN(2, 2, features=2, s=3, gamma=1.5, learned=True)
    for parameter in block.parameters():
        if parameter.dim():
            nn.init.normal_(parameter, std=0.3)
    return block


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "inflation that shrinks": lambda: _inflation(0.6),
    "inflation at 1": lambda: _inflation(1.0),
    "inflation that grows": lambda: _inflation(1.7),
    "interpolation that shrinks": lambda: _Interpolated(1.3),
    "interpolation that grows": lambda: _Interpolated(0.5),
    "spread weights": lambda: _fractional(1.5),
    "spread weights on whole pixels": lambda: _fractional(2.0),
    "sampled map": lambda: _fractional(6.3, 32),
    "LS-DFN": _block,
}


def penalised(layer: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A gradient penalty on the layer's input and parameters, and these."""
    inputs = [x, *layer.parameters()]
    gradients = torch.autograd.grad(layer(x).sum(), inputs, create_graph=True)
    return sum((gradient.square().sum() for gradient in gradients), torch.zeros(())), inputs


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_gradient_penalty_raises(make):
    torch.manual_seed(0)
    layer = make()
    channels = 32 if isinstance(layer, FractionalConv2d) and layer.weight.shape[1] == 32 else 2
    x = torch.randn(1, channels, 9, 9, requires_grad=True)
    penalty, inputs = penalised(layer, x)
    with pytest.raises(DerivativeError, match="differentiated twice"):
        penalty.backward(retain_graph=True)
    for wanted in inputs:
        if _enters_the_penalty(layer, wanted):
            with pytest.raises(DerivativeError):
                torch.autograd.grad(penalty, wanted, retain_graph=True)


def _enters_the_penalty(layer: nn.Module, wanted: Tensor) -> bool:
    """Biases behind what is summed do not: their gradient is a constant."""
    return wanted is not getattr(layer, "bias", None) and not isinstance(layer, LSDFN)


def test_weights_on_either_side_of_the_layer_raise_too():
    torch.manual_seed(0)
    before, layer, behind = nn.Conv2d(1, 2, 1), _inflation(0.6), nn.Conv2d(2, 1, 1)
    x = torch.randn(1, 1, 9, 9, requires_grad=True)
    loss = behind(layer(before(x)).tanh()).square().sum()
    (slope,) = torch.autograd.grad(loss, layer.factor.f, create_graph=True)
    for weight in (before.weight, behind.weight, x, layer.factor.f):
        with pytest.raises(DerivativeError):
            torch.autograd.grad(slope, weight, retain_graph=True)


@pytest.mark.parametrize("function", [lambda x, f: inflate(x, f), lambda x, f: interpolate(x, f, 2, (12, 12))])
def test_functions_raise_on_a_second_derivative_too(function):
    x, f = torch.randn(1, 2, 9, 9, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    (slope,) = torch.autograd.grad(function(x, f).sum(), f, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivative only"):  # as torch's own would be caught
        slope.backward()
    assert issubclass(DerivativeError, ModelError)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_first_derivatives_do_not_depend_on_create_graph(make):
    torch.manual_seed(0)
    layer = make()
    channels = 32 if isinstance(layer, FractionalConv2d) and layer.weight.shape[1] == 32 else 2
    x = torch.randn(1, channels, 9, 9, requires_grad=True)
    inputs = [x, *layer.parameters()]
    plain = torch.autograd.grad(layer(x).square().sum(), inputs)
    traced = torch.autograd.grad(layer(x).square().sum(), inputs, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))


def test_weighted_gradients_have_a_right_second_derivative():
    torch.manual_seed(0)
    layer, labels = WeightedGradient([1], 1.2), torch.tensor([[[0, 1], [1, 2]]])
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    with guided(nn.Sequential(layer), labels):
        (gradient,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), x)
    weights = torch.tensor([[1.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
    # d/dx of W 3 x^2, through which the outer derivative passes the layer once more.
    torch.testing.assert_close(second, weights * weights * 6 * x.detach())


def test_a_whole_dilation_that_is_not_learned_is_a_convolution_and_has_all_derivatives():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: fractional_conv2d(x, w, dilation=2.0), (x, weight))
