"""Every layer computes on a GPU what it computes on a CPU: its output and the gradients of all that has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from rfsearch.layers import (
    LSDFN,
    Correlation,
    FractionalConv2d,
    Inflation,
    InflationFactor,
    Interpolation,
    WeightedGradient,
    guided,
)

GPU = "cuda"


class Pair(nn.Module):
    """An inflation, a convolution and the interpolation behind it, which share one f."""

    def __init__(self, f: float, normalisation: str, border: str) -> None:
        super().__init__()
        factor = InflationFactor(f, learned=True)
        self.inflation = Inflation(factor, normalisation, border=border)
        self.conv = nn.Conv2d(3, 4, 3, padding=2, dilation=2)
        self.interpolation = Interpolation(factor, 2, normalisation, border=border)

    def forward(self, x: Tensor) -> Tensor:
        inflated = self.conv(self.inflation(x))
        return self.interpolation(inflated, [2 * n for n in x.shape[2:]], x.shape[2:])


class Guided(nn.Module):
    """Two convolutions, the gradient of the first weighted where the labels are 1 or 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weighted, self.second = nn.Conv2d(3, 4, 1), WeightedGradient((1, 2), 1.2), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        labels = torch.arange(x.shape[0] * 9 * 10, device=x.device).reshape(-1, 9, 10) % 4
        with guided(self, labels):
            return self.second(self.weighted(self.first(x)))


class Compared(nn.Module):
    """The two halves of a batch, correlated."""

    def __init__(self) -> None:
        super().__init__()
        self.correlation = Correlation(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.correlation(*x.chunk(2))


def fractional(dilation: float | tuple[float, float], groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(3, 6, 3, padding=2, dilation=2, groups=groups)
    return FractionalConv2d(conv, dilation, shared=not isinstance(dilation, tuple))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"f={f} {normalisation} {border}": lambda f=f, n=normalisation, b=border: Pair(f, n, b)
        for f in (0.61, 1.0, 1.37)
        for normalisation, border in (("exact", "continuous"), ("paper", "paper"))
    },
    "dilation 2.4": lambda: fractional(2.4),
    "dilation 3": lambda: fractional(3.0),
    "dilations 1.3 and 2.6 in groups": lambda: fractional((1.3, 2.6), groups=3),
    "LS-DFN": lambda: LSDFN(3, 2, features=4, s=3, gamma=1.37, learned=True, post=True),
    "LS-DFN, whole stride": lambda: LSDFN(3, 2, features=4, s=5, gamma=2.0, learned=True),
    "loss guidance": Guided,
    "correlation": Compared,
}


def results(layer: nn.Module, x: Tensor) -> Sequence[Tensor]:
    """The output, and the gradients of x and of every parameter."""
    x = x.detach().requires_grad_()
    output = layer(x)
    weight = torch.linspace(-1, 1, output.numel(), device=output.device, dtype=output.dtype).reshape(output.shape)
    (output * weight).sum().backward()
    return [output, x.grad, *(parameter.grad for parameter in layer.parameters() if parameter.requires_grad)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", LAYERS)
def test_the_gpu_agrees_with_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(2, 3, 9, 10)
    for parameter in layer.parameters():  # those that begin at zero have nothing to show
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5)
    there = results(deepcopy(layer).to(GPU), x.to(GPU))
    for one, other in zip(there, results(layer, x), strict=True):
        assert one.device.type == GPU
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-4)
