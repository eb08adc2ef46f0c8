"""The layers of the peers: each is a known convolution where it starts, and what it should learn can be learned."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from rfsearch_peers.dash import MixedConvolution, dash
from rfsearch_peers.dcls import PLACE_GRADIENT, PLACE_RATE, WARMUP, dcls_gauss
from rfsearch_peers.dcls import dcls as spaced
from rfsearch_peers.deformable import deformable
from rfsearch_peers.rfnext import ROUNDS, rfnext, rfnext_convnext, rfnext_deeplab
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.choices import Guest
from rfsearch.errors import ModelError, RequestError
from rfsearch.receptive import receptive_field
from rfsearch.surgery import Undecayed, found_dilation, set_dilation
from tests.toys import toy_space
from tests.training.test_training import finished, training

DILATIONS = (1, 2, 4)
Make = Callable[[nn.Conv2d, Sequence[int]], nn.Module]


def needs(module: str, package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs the package {package}")


DCLS = pytest.param(spaced, id="dcls", marks=needs("DCLS", "dcls"))
RFNEXT = pytest.param(rfnext, id="rfnext", marks=needs("mmcv", "mmcv-lite"))
ALL = [pytest.param(deformable, id="deformable"), pytest.param(dash, id="dash"), DCLS, RFNEXT]

CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "same": {"kernel_size": 3, "padding": "same"},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "oblong": {"kernel_size": (3, 5), "padding": (1, 2)},
    "grouped, no bias": {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
    "larger": {"kernel_size": 5, "padding": 2},
}


def convolution(dilation: int, **arguments: object) -> nn.Conv2d:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, **(arguments or CONVOLUTIONS["plain"]))
    set_dilation(conv, dilation)
    return conv


def image() -> Tensor:
    """B x C x H x W, odd, and a view whose rows are not next to each other."""
    return torch.randn(2, 4, 15, 26, generator=torch.Generator().manual_seed(1))[..., ::2]


@pytest.mark.parametrize("arguments", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("dilation", DILATIONS)
@pytest.mark.parametrize("make", [pytest.param(deformable, id="deformable"), DCLS])
def test_at_its_start_it_is_the_convolution(make: Make, dilation: int, arguments: dict[str, object]) -> None:
    conv = convolution(dilation, **arguments)
    expected = conv(image())
    torch.testing.assert_close(make(conv, DILATIONS)(image()), expected, rtol=0, atol=1e-5)


def at(conv: nn.Conv2d, dilation: int, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The image behind a 3x3 kernel at a dilation, padded so that it keeps its size at stride 1."""
    return F.conv2d(image(), weight, bias, conv.stride, dilation, dilation, conv.groups)


@pytest.mark.parametrize("form", ["plain", "strided", "grouped, no bias"])
def test_the_mixture_is_the_sum_of_its_convolutions_and_one_dense_kernel(form: str) -> None:
    conv = convolution(2, **CONVOLUTIONS[form])
    layer = dash(conv, DILATIONS).train()
    assert isinstance(layer, MixedConvolution)
    torch.testing.assert_close(
        layer(image()), sum(at(conv, d, conv.weight, conv.bias) for d in DILATIONS) / 3, rtol=0, atol=1e-5
    )
    with torch.no_grad():
        layer.alphas.copy_(torch.tensor([0.1, 1.3, -0.7]))
        for path in layer.paths.parameters():
            path.normal_()
    shares = layer.alphas.softmax(0)
    literal = sum(
        share * at(conv, d, path.weight, path.bias)
        for share, d, path in zip(shares, DILATIONS, layer.paths, strict=True)
    )
    torch.testing.assert_close(layer(image()), literal, rtol=0, atol=1e-4)
    dense, reach = torch.zeros(6, 4 // conv.groups, 9, 9), 4
    for share, d, path in zip(shares, DILATIONS, layer.paths, strict=True):
        dense[:, :, reach - d : reach + d + 1 : d, reach - d : reach + d + 1 : d] += share * path.weight
    bias = (
        sum(share * path.bias for share, path in zip(shares, layer.paths, strict=True))
        if conv.bias is not None
        else None
    )
    aggregated = F.conv2d(image(), dense, bias, conv.stride, reach, 1, conv.groups)
    torch.testing.assert_close(layer(image()), aggregated, rtol=0, atol=1e-4)


def test_in_evaluation_the_heaviest_stands_alone() -> None:
    layer = dash(convolution(1), DILATIONS).eval()
    with torch.no_grad():
        layer.alphas[2] = 1.0
    assert found_dilation(layer) == 4.0
    assert torch.equal(layer(image()), layer.paths[2](image()))
    assert receptive_field(layer, image().shape).px == 9


@needs("mmcv", "mmcv-lite")
@pytest.mark.parametrize("form", ["plain", "strided", "grouped, no bias"])
def test_rfnext_starts_as_the_mean_of_a_smaller_and_a_larger_dilation(form: str) -> None:
    conv = convolution(2, **CONVOLUTIONS[form])
    layer = rfnext(conv, DILATIONS)
    expected = (at(conv, 1, conv.weight, conv.bias) + at(conv, 3, conv.weight, conv.bias)) / 2
    torch.testing.assert_close(layer(image()), expected, rtol=0, atol=1e-5)
    assert found_dilation(layer) == pytest.approx(2)
    assert layer.work == 2


@needs("mmcv", "mmcv-lite")
def test_rfnext_walks_by_its_branches_and_stands_at_what_it_estimated_last() -> None:
    conv = convolution(1)
    layer = rfnext(conv, (1, 2, 6))
    seen = []
    for step in range(100):
        with torch.no_grad():
            layer.search.branch_weights.copy_(torch.tensor([0.25, -0.75]))
        layer.advance(step, 100)
        if tuple(layer.search.dilation_rates) not in [rates for _, rates in seen]:
            seen.append((step, tuple(layer.search.dilation_rates)))
    # round(1.75) = 2, branches 1 and 3; round(2.5) = 2 again, for ever; the last round ends at step 50
    assert seen == [(0, ((1, 1), (2, 2))), (8, ((1, 1), (3, 3))), (50, ((2, 2),))]
    assert found_dilation(layer) == 2.0
    assert layer.work == 1
    torch.testing.assert_close(layer(image()), at(conv, 2, conv.weight, conv.bias), rtol=0, atol=1e-5)
    again = rfnext(convolution(1), (1, 2, 6))
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(image()), layer(image()), rtol=0, atol=0)
    assert again.search.op_layer.dilation == (2, 2)


@needs("mmcv", "mmcv-lite")
def test_rfnext_keeps_within_the_space() -> None:
    layer = rfnext(convolution(4), (3, 4, 5))
    assert layer.search.dilation_rates == [(3, 3), (5, 5)]
    for number in range(ROUNDS):
        layer.advance(number + 1, 2 * ROUNDS)
        assert 3 <= found_dilation(layer) <= 5


@needs("mmcv", "mmcv-lite")
def test_rfnext_for_segmentation_has_eight_rounds_and_keeps_its_branches() -> None:
    layer = rfnext_convnext(convolution(4), DILATIONS)
    assert layer.search.dilation_rates == [(2, 2), (4, 4), (6, 6)]
    rounds = []
    for step in range(101):
        before = layer.search.dilation_rates
        with torch.no_grad():
            layer.search.branch_weights.zero_()[len(before) - 1] = 1.0
        layer.advance(step, 100)
        if layer.search.dilation_rates != before:
            rounds.append((step, [rate for rate, _ in layer.search.dilation_rates]))
    # always the largest branch, half as much again, up to 24 px, beyond the space's own dilations
    assert rounds == [(10, [3, 6, 9]), (20, [4, 9, 14]), (30, [7, 14, 21]), (40, [10, 21, 24]), (50, [12, 24])]
    assert found_dilation(layer) == 24.0
    assert layer.work == 2
    assert rfnext_deeplab(convolution(4), DILATIONS).search.dilation_rates == [(3, 3), (4, 4), (5, 5)]


@needs("mmcv", "mmcv-lite")
def test_the_last_round_of_rfnext_for_segmentation_is_at_four_fifths() -> None:
    layer = rfnext_convnext(convolution(4), DILATIONS)
    ends = []
    layer.search.estimate_rates = lambda: ends.append(step)
    for step in range(101):
        layer.advance(step, 100)
    assert ends == [10, 20, 30, 40, 50, 60, 70, 80]


@needs("DCLS", "dcls")
@pytest.mark.parametrize("form", ["plain", "strided", "grouped, no bias", "oblong"])
def test_gaussian_spacings_start_near_the_centre_of_kernels_of_their_own_size(form: str) -> None:
    conv = convolution(2, **CONVOLUTIONS[form])
    torch.manual_seed(0)
    layer = dcls_gauss(conv, DILATIONS)
    assert layer(image()).shape == conv(image()).shape
    assert layer.spaced.dilated_kernel_size == tuple(8 * (k - 1) + 1 for k in conv.kernel_size)
    assert layer.spaced.P.detach().std() == pytest.approx(0.5, rel=0.2)
    assert torch.equal(layer.spaced.SIG, torch.full_like(layer.spaced.SIG, 0.23))


@needs("DCLS", "dcls")
def test_gaussian_places_move_by_the_authors_steps_alone() -> None:
    """In the first step every place goes a rate's length against its gradient, and the optimiser moves none."""
    torch.manual_seed(0)
    layer, steps = copy.deepcopy(dcls_gauss(convolution(2), DILATIONS)), 10
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    before = {name: layer.get_parameter(f"spaced.{name}").detach().clone() for name in ("P", "SIG")}
    layer.advance(0, steps)
    layer(image()).square().sum().backward()
    optimizer.step()
    for name, places in before.items():
        assert torch.equal(layer.get_parameter(f"spaced.{name}"), places)
    gradient = layer.places.gradient.clone()
    with torch.no_grad():
        layer.advance(1, steps)
    rate = PLACE_RATE * min(1.0, 1 / (WARMUP * steps)) * (1 + math.cos(math.pi / steps)) / 2
    torch.testing.assert_close(layer.spaced.P, before["P"] - rate * gradient.sign(), rtol=0, atol=1e-5)
    assert not torch.equal(layer.spaced.SIG, before["SIG"])


LEARNED = {"deformable": "offset.weight", "dash": "alphas", "dcls": "spaced.P", "rfnext": "search.branch_weights"}


@pytest.mark.parametrize("make", ALL)
def test_gradients_reach_what_is_to_be_learned(make: Make, request: pytest.FixtureRequest) -> None:
    layer = make(convolution(2), DILATIONS).train()
    layer(image()).square().sum().backward()
    name = LEARNED[request.node.callspec.id]
    gradient = layer.get_parameter(name).grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.5
    assert all(parameter.grad is not None for parameter in layer.parameters())
    if isinstance(layer, Undecayed):
        assert [id(parameter) for parameter in layer.undecayed()] == [id(layer.get_parameter(name))]


@needs("DCLS", "dcls")
@pytest.mark.parametrize("form", ["plain", "strided", "oblong", "larger"])
def test_learned_spacings_tell_their_mean_and_their_outermost_taps(form: str) -> None:
    conv = convolution(2, **CONVOLUTIONS[form])
    layer, shape = spaced(conv, DILATIONS), image().shape
    assert found_dilation(layer) == pytest.approx(2)
    plain = receptive_field(conv, shape)
    assert receptive_field(layer, shape).px == plain.px
    with torch.no_grad():
        layer.spaced.P.mul_(1.5)
    assert found_dilation(layer) == pytest.approx(3)
    set_dilation(conv, 3)
    wide = receptive_field(layer, shape)
    assert [axis.local_px for axis in wide.axes] == [axis.local_px for axis in receptive_field(conv, shape).axes]
    torch.testing.assert_close(layer(image()), conv(image()), rtol=0, atol=1e-5)


@needs("DCLS", "dcls")
def test_learned_spacings_that_part_in_all_directions_are_a_larger_dilation() -> None:
    layer = spaced(convolution(2), DILATIONS)
    with torch.no_grad():
        layer.spaced.P.add_(torch.randn(layer.spaced.P.shape, generator=torch.Generator().manual_seed(2)))
    # of the nine taps' coordinates six in nine are 2 px off the centre, and each is 1 px more on average
    assert found_dilation(layer) == pytest.approx((2**2 + 9 / 6) ** 0.5, rel=0.05)


@needs("DCLS", "dcls")
@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_places_move_alike_whatever_the_losss_scale(factor: float) -> None:
    layer = copy.deepcopy(spaced(convolution(2), DILATIONS))
    (factor * layer(image()).square().sum()).backward()
    assert layer.spaced.P.grad.square().mean().sqrt() == pytest.approx(PLACE_GRADIENT, rel=1e-4)


@needs("DCLS", "dcls")
def test_taps_are_brought_back_into_the_kernel() -> None:
    layer = spaced(convolution(2), DILATIONS)
    with torch.no_grad():
        layer.spaced.P.mul_(10)
    layer.advance(0, 10)
    assert layer.spaced.P.abs().max() == 4  # the space's next dilation
    assert spaced(convolution(4), DILATIONS).spaced.dilated_kernel_size == (9, 9)  # and at its largest, no farther


@pytest.mark.parametrize(
    "arguments",
    [{"kernel_size": 4, "padding": 1}, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}],
    ids=["even", "reflecting"],
)
@pytest.mark.parametrize("make", ALL)
def test_another_convolution_is_refused(make: Make, arguments: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="replaces a plain convolution with an odd kernel, .* Got Conv2d"):
        make(nn.Conv2d(4, 6, **arguments), DILATIONS)


@pytest.mark.parametrize(
    ("make", "module", "package"), [(spaced, "DCLS", "dcls"), (rfnext, "mmcv", "mmcv-lite"), (rfnext, "mmengine", "")]
)
def test_a_missing_package_is_one_message(
    make: Make, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the peer's other packages count as there, whether they are or not
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else ModuleSpec(name, None))
    with pytest.raises(
        RequestError, match=f"{module} is not installed. Install it with: pip install {package or module}$"
    ):
        make(convolution(2), DILATIONS)


MODULES = {"rfnext_convnext": "rfnext", "dcls_gauss": "dcls"}
AS_AUTHORS = [
    pytest.param(rfnext_convnext, id="rfnext_convnext", marks=needs("mmcv", "mmcv-lite")),
    # Kernels of 289 places for 9 taps: a minute.
    pytest.param(dcls_gauss, id="dcls_gauss", marks=[needs("DCLS", "dcls"), pytest.mark.slow]),
]


@pytest.mark.parametrize("make", [*ALL, *AS_AUTHORS])
def test_a_training_with_it_ends_resumes_and_says_what_it_found(
    make: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    space = toy_space(tmp_path)
    choice = Guest(2, f"rfsearch_peers.{MODULES.get(name, name)}:{name}")
    whole = finished(training(space, choice, tmp_path / "whole"))
    assert whole.cause == ""
    assert whole.status == "completed"
    assert list(whole.found) == ([] if name == "deformable" else ["conv6"])
    training(space, choice, tmp_path / "half").advance()
    again = finished(training(space, choice, tmp_path / "half"))
    assert (again.val, again.cost.flop, again.outcome, again.rf_px) == (
        whole.val,
        whole.cost.flop,
        whole.outcome,
        whole.rf_px,
    )
