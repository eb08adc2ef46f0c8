"""The continuous border of inflated maps: a loss without jumps in f, whose slope leads to a planted answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Inflated
from rfsearch.layers import Inflation, InflationFactor, Interpolation, inflate, inflated_size, interpolate
from rfsearch.surgery import Settings, build
from rfsearch.surgery.inserts import InflatedSite

STEP = 1e-3
SWEPT = [round(0.4 + STEP * i, 3) for i in range(2101)]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def seen_through(
    x: Tensor, border: str, stride: int = 1, beyond: int = 0, padding: str = "zeros"
) -> Callable[[Tensor | float], Tensor]:
    """A loss of f: x inflated, convolved, passed through a function of one pixel, and brought back to labels."""
    weight, bias = noise(3, 2, *[3] * (x.dim() - 2)), noise(3)
    plain = x.shape[2:]
    labels = [stride * (n - 1) + 1 + beyond for n in plain]
    goal = noise(1, 3, *labels)
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]

    def loss(f: Tensor | float) -> Tensor:
        wide = inflate(x, f, border=border, padding=padding)
        if padding == "replicate":
            wide = F.pad(wide, (1, 1) * len(plain), mode="replicate")
        hidden = torch.tanh(convolve(wide, weight, bias, padding=0 if padding == "replicate" else 1))
        output = interpolate(hidden, f, stride, labels, border=border, plain=plain)
        return (output - goal).square().mean()

    return loss


def steepest(loss: Callable[[Tensor | float], Tensor], swept: list[float] = SWEPT) -> float:
    """The largest slope of a loss, by its gradient at every tenth f."""
    slopes = []
    for f in swept[::10]:
        factor = torch.tensor(f, dtype=torch.float64, requires_grad=True)
        slopes.append(abs(torch.autograd.grad(loss(factor), factor)[0].item()))
    return max(slopes)


@torch.no_grad()
def largest_step(loss: Callable[[Tensor | float], Tensor], swept: list[float] = SWEPT) -> float:
    """The largest |L(f + h) - L(f)| of a fine sweep of f, over h."""
    losses = [loss(f).item() for f in swept]
    return max(abs(after - before) for before, after in pairwise(losses)) / (swept[1] - swept[0])


SWEEPS = {
    "a line": ((7,), {}),
    "a map": ((5, 8), {}),
    "three axes": ((3, 4, 3), {}),
    "label pixels behind the last": ((6,), {"stride": 4, "beyond": 3}),
    "a convolution that replicates": ((9,), {"padding": "replicate"}),
}


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name != "a map" else [])
        for name, case in SWEEPS.items()
    ],
)
def test_a_loss_has_no_jumps_in_f(size: tuple[int, ...], settings: dict[str, object]) -> None:
    """A jump of J is a step of J / h here, however small h. The paper's border has large ones below f = 1."""
    x = noise(1, 2, *size)
    continuous = seen_through(x, "continuous", **settings)
    bound = 2 * steepest(continuous)
    assert largest_step(continuous) < bound
    assert largest_step(seen_through(x, "paper", **settings), SWEPT[:602]) > 3 * bound


@pytest.mark.parametrize("f", [0.4, 0.73, 0.99, 1.0, 1.01, 1.37, 2.0, 2.71])
@pytest.mark.parametrize("size", [(5, 7), (6, 3), (9,)])
def test_the_pair_is_the_papers_on_a_map_that_zeros_continue(f: float, size: tuple[int, ...]) -> None:
    """Also its gradients, but for f where a row is about to enter: there the paper's has half of that row's slope."""
    x = noise(2, 2, *size).requires_grad_()
    weight = noise(3, 2, *[3] * len(size))
    convolve = F.conv1d if len(size) == 1 else F.conv2d
    grad = noise(2, 3, *size)
    found = []
    for border in ("continuous", "paper"):
        factor = torch.tensor(f, dtype=torch.float64, requires_grad=True)
        u = F.pad(x, (0, 12) * len(size)) if border == "paper" else x
        hidden = torch.tanh(convolve(inflate(u, factor, border=border), weight, padding=1))
        output = interpolate(hidden, factor, 1, size, border=border)
        found.append((output, *torch.autograd.grad(output, (x, factor), grad)))
    entering = any(abs(f * m - round(f * m)) < 1e-9 for n in size for m in (n - 1, n))
    for continuous, paper in list(zip(*found, strict=True))[: 2 if entering else 3]:
        torch.testing.assert_close(continuous, paper)


class Factor(nn.Module):
    """A factor that is any function of what is learned."""

    def __init__(self, f: Tensor | float) -> None:
        super().__init__()
        self.f = torch.as_tensor(f, dtype=torch.float64)


CONVOLUTIONS = {
    "a stride": nn.Conv1d(2, 3, 3, 2, 1),
    "a stride of 3 and lost pixels": nn.Conv1d(2, 3, 4, 3, 0),
    "no padding": nn.Conv1d(2, 3, 3, 1, 0, dilation=2),
    "more padding than span": nn.Conv1d(2, 3, 2, 1, 2, padding_mode="replicate"),
}


@pytest.mark.parametrize("size", [12, 13])
@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_that_changes_its_maps_size_has_no_jumps_either(conv: nn.Conv1d, size: int) -> None:
    conv, x = copy.deepcopy(conv).double(), noise(1, 2, size)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(noise(*parameter.shape))
    site = InflatedSite(conv, InflationFactor().double())
    goal = noise(*conv(x).shape)
    assert torch.equal(site(x), conv(x))

    def loss(f: Tensor | float) -> Tensor:
        site.inflation.factor = site.interpolation.factor = Factor(f)
        return (torch.tanh(site(x)) - goal).square().mean()

    swept = SWEPT[200:1400:2]
    assert largest_step(loss, swept) < 2 * steepest(loss, swept)


def test_sizes_grow_by_one_and_are_the_maps_own_at_1() -> None:
    for n in range(1, 40):
        sizes = [inflated_size((n,), f)[0] for f in SWEPT]
        assert all(after - before in (0, 1) for before, after in pairwise(sizes)), n
        assert inflated_size((n,), 1.0) == (n,)
        assert all(f * (n - 1) <= size - 1 + 1e-9 for f, size in zip(SWEPT, sizes, strict=True))


def smooth_maps(side: int) -> Tensor:
    """Maps whose values change within some pixels: on rougher ones the loss has a local minimum at every other f."""
    reach = torch.arange(-15.0, 16.0, dtype=torch.float64)
    kernel = torch.exp(-(reach**2) / 2 / 5**2).expand(3, 1, -1)
    x = noise(4, 3, side + 30, side + 30)
    x = F.conv2d(F.conv2d(x, kernel[..., None], groups=3), kernel[..., None, :], groups=3)
    return x[:2] / x.std()


def descended(dilation: int, answer: int, border: str, steps: int = 100, rate: float = 0.05) -> float:
    """The dilation that gradient descent on log f ends at, from f = 1, with the weights known."""
    x, weight = smooth_maps(24), noise(4, 3, 3, 3)
    goal = F.conv2d(x, weight, padding=answer, dilation=answer)
    log_f = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_f], betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        f = log_f.exp()
        hidden = F.conv2d(inflate(x, f, border=border), weight, padding=dilation, dilation=dilation)
        loss = (interpolate(hidden, f, 1, x.shape[2:], border=border) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dilation / log_f.exp().item()


@pytest.mark.parametrize("start", [2, 3, 6, 8, 12])
def test_a_planted_dilation_is_found_from_half_to_three_times_it(start: int) -> None:
    assert descended(start, 4, "continuous") == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("border", ["continuous", "paper"])
def test_both_borders_are_the_same_network_at_f_one(border: str) -> None:
    """Bit for bit, with label pixels behind the map's last one."""
    torch.manual_seed(0)
    network = wei_small(num_classes=3).eval()
    image = torch.randn(1, 3, 31, 28)
    with torch.no_grad():
        expected = network(image)
        learned = build(network, Candidate({"conv6": Inflated(1, learned=True)}), Settings(border=border))
        assert torch.equal(learned(image), expected)
    assert {layer.border for layer in learned.modules() if isinstance(layer, Inflation | Interpolation)} == {border}


class Parsing(nn.Module):
    def __init__(self, f: float, dtype: torch.dtype, learned: bool = True) -> None:
        super().__init__()
        self.factor = InflationFactor(f, learned)
        self.inflation, self.interpolation = Inflation(self.factor), Interpolation(self.factor, 2)
        self.conv = nn.Conv2d(2, 2, 3, padding=1).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.interpolation(self.conv(self.inflation(x)), (13, 10), x.shape[2:])


@pytest.mark.parametrize("f", [0.61, 1.0, 1.83])
def test_types_autocast_and_other_layouts_of_memory(f: float) -> None:
    torch.manual_seed(0)
    exact = Parsing(f, torch.float64)
    x = noise(2, 2, 7, 5)
    expected = exact(x)
    expected.square().sum().backward()
    for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        other = Parsing(f, dtype)
        other.conv.load_state_dict(exact.conv.state_dict())
        output = other(x.to(dtype).mT.contiguous().mT)
        output.float().square().sum().backward()
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), expected, rtol=close, atol=close)
        assert other.factor.f.grad.item() == pytest.approx(exact.factor.f.grad.item(), rel=3 * close, abs=3 * close)
    single = Parsing(f, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert single(x.float()).dtype == torch.bfloat16
    assert exact(x[:0]).shape == (0, 2, 13, 10)


@pytest.mark.parametrize("f", [0.61, 1.0, 1.83])
def test_shapes_without_values_and_repeats_bit_for_bit(f: float) -> None:
    layer, x = Parsing(f, torch.float32, learned=False), noise(2, 2, 7, 5).float()
    with torch.device("meta"):
        shape = interpolate(inflate(torch.empty(2, 2, 7, 5), f), f, 2, (13, 10), plain=(7, 5)).shape
    assert shape == layer(x).shape
    assert torch.equal(layer(x), layer(x))


def test_layers_print_their_border() -> None:
    factor = InflationFactor(math.sqrt(2))
    assert "border='paper', padding='replicate'" in repr(Inflation(factor, border="paper", padding="replicate"))
    assert "border='continuous'" in repr(Interpolation(factor, 1))
