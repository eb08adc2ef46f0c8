"""The LS-DFN block against literal loops, gradcheck, and the plain operators that it holds as special cases."""

from __future__ import annotations

import copy
import io
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.errors import ModelError, SpaceError, TrialError
from rfsearch.layers import LSDFN, SampleStride, lsdfn
from rfsearch.layers import dynamic_filter as filtering
from rfsearch.layers.dynamic_filter import dynamic_filter
from rfsearch.layers.regions import RegionAxis
from rfsearch.training import Meter
from tests.references import lsdfn_loops as loops


class Arguments(NamedTuple):
    """What `dynamic_filter` takes, but gamma."""

    x: Tensor
    channel: Tensor
    tap: Tensor
    sampling: Tensor
    position: Tensor


def arguments(
    size: tuple[int, int],
    s: int,
    k: int,
    *,
    batch: int = 1,
    channels: int = 2,
    outputs: int = 2,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Arguments:
    generator = torch.Generator().manual_seed(s + 10 * k)
    height, width = size
    shapes = [
        (batch, channels, height, width),
        (batch, height, width, outputs, channels),
        (batch, k * k, outputs, height, width),
        (batch, s * s, outputs, height, width),
        (batch, k * k, outputs, height, width),
    ]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return Arguments(*(t.to(device, dtype).requires_grad_() for t in tensors))


def scalar(gamma: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(gamma, dtype=dtype, requires_grad=True)


def results(values: Arguments, gamma: Tensor | float) -> tuple[Tensor, ...]:
    """The output and, for a fixed random dL/d output, the gradients in all arguments."""
    output = dynamic_filter(*values, gamma)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    wanted = (*values, gamma) if isinstance(gamma, Tensor) else values
    return output, *torch.autograd.grad(output, wanted, grad.to(output))


# 9 samples beyond every map here; 0.5 puts every other place onto a pixel.
@pytest.mark.parametrize("gamma", [1.0, 2.0, 9.0, 0.5, 0.73, 1.37, 2.71])
@pytest.mark.parametrize(("s", "k", "size"), [(1, 3, (5, 7)), (3, 1, (5, 7)), (3, 3, (5, 7)), (5, 3, (4, 3))])
def test_the_filter_equals_the_loops(gamma: float, s: int, k: int, size: tuple[int, int]) -> None:
    values = arguments(size, s, k, batch=2)
    expected = loops.dynamic_filter(*(value.detach() for value in values), gamma)
    torch.testing.assert_close(dynamic_filter(*values, gamma), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (3, 2)])
def test_small_maps_equal_the_loops(size: tuple[int, int]) -> None:
    for gamma in (1.0, 1.37):
        values = arguments(size, 5, 3, outputs=1)
        expected = loops.dynamic_filter(*(value.detach() for value in values), gamma)
        torch.testing.assert_close(dynamic_filter(*values, gamma), expected)


# Of one sample, gamma moves nothing; what taps add to samples is the same at every gamma between pixels.
@pytest.mark.parametrize(
    ("s", "k", "gamma"),
    [
        (1, 3, 1.37),
        *((3, 1, gamma) for gamma in (0.73, 1.37, 5.21)),
        (3, 3, 1.37),
        *(pytest.param(s, 3, gamma, marks=pytest.mark.slow) for s in (1, 3) for gamma in (0.73, 5.21)),
    ],
)
def test_gradcheck_between_pixels(s: int, k: int, gamma: float) -> None:
    assert torch.autograd.gradcheck(dynamic_filter, (*arguments((3, 4), s, k), scalar(gamma)))


@pytest.mark.parametrize("gamma", [1.0, 3.0, 0.5])
@pytest.mark.parametrize("learned", [False, True])
def test_gradcheck_on_pixels(gamma: float, learned: bool) -> None:
    """gamma apart, whose slope jumps there. Fixed and learned go different ways through the code."""
    stride = torch.tensor(gamma, dtype=torch.float64, requires_grad=learned)
    values = arguments((3, 4), 3, 3, outputs=1)
    assert torch.autograd.gradcheck(lambda *values: dynamic_filter(*values, stride), tuple(values))


@pytest.mark.parametrize("gamma", [1.0, 2.0, 0.5])
def test_on_pixels_gamma_gets_the_mean_of_the_slopes(gamma: float) -> None:
    values, step = arguments((6, 5), 5, 3), 1e-4

    def loss(value: float) -> float:
        with torch.no_grad():
            return dynamic_filter(*values, value).square().sum().item()

    sides = [
        direction * (4 * loss(gamma + direction * step) - loss(gamma + 2 * direction * step) - 3 * loss(gamma))
        for direction in (1, -1)
    ]
    slopes = [side / (2 * step) for side in sides]
    assert abs(slopes[0] - slopes[1]) > 1
    stride = scalar(gamma)
    dynamic_filter(*values, stride).square().sum().backward()
    assert stride.grad is not None
    assert stride.grad.item() == pytest.approx(sum(slopes) / 2, rel=1e-5)


def test_the_gradient_in_gamma_is_differentiable_once() -> None:
    stride = scalar(1.37)
    loss = dynamic_filter(*arguments((3, 3), 3, 1), stride).square().sum()
    (grad,) = torch.autograd.grad(loss, stride, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        grad.backward()


@pytest.mark.parametrize("gamma", [1.0, 1.37, 12.0])
@pytest.mark.parametrize("piece", [1, 60, 500])
def test_results_do_not_depend_on_the_pieces(gamma: float, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row and one channel at a time, some of each, several images at a time."""
    values = arguments((5, 4), 3, 1, batch=3, outputs=3)
    expected = results(values, scalar(gamma)), results(values, gamma)
    monkeypatch.setattr(filtering, "_CPU_PIECE", piece)
    for ours, theirs in zip((results(values, scalar(gamma)), results(values, gamma)), expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("piece", [1, 60, 2**21])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 1.37])
def test_kernels_that_are_made_equal_given_ones(gamma: float, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, some, several images at a time; also where neighbours' regions overlap and are not copied."""
    values = arguments((5, 4), 3, 3, batch=3, outputs=3)
    generator = torch.Generator().manual_seed(2)
    image, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((3, 5, 4, 4), (6, 4), (6,))
    )
    given = F.linear(image, weight, bias).unflatten(3, (3, 2))
    others = (values.x, values.tap, values.sampling, values.position, image, weight, bias)
    monkeypatch.setattr(filtering, "_CPU_PIECE", piece)
    outputs = [
        dynamic_filter(*values._replace(channel=given), gamma),
        dynamic_filter(*values._replace(channel=image), gamma, weight, bias),
    ]
    torch.testing.assert_close(outputs[1], outputs[0])
    grad = torch.randn(outputs[0].shape, generator=generator, dtype=torch.float64)
    whole, made = (torch.autograd.grad(output, others, grad) for output in outputs)
    for one, other in zip(made, whole, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gamma", [1.0, 1.37])
def test_non_contiguous_arguments(gamma: float) -> None:
    values = arguments((4, 5), 3, 3, batch=2)
    strided = Arguments(*(v.detach().transpose(1, 3).contiguous().transpose(1, 3) for v in values))
    for value in strided:
        assert not value.requires_grad_().is_contiguous()
    for one, other in zip(results(strided, scalar(gamma)), results(values, scalar(gamma)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gamma", [1.0, 1.37])
def test_an_empty_batch(gamma: float) -> None:
    output, *gradients, grad_gamma = results(arguments((4, 5), 3, 3, batch=0), scalar(gamma))
    assert output.shape == (0, 2, 4, 5)
    assert [len(grad) for grad in gradients] == [0] * 5
    assert grad_gamma == 0


def box(s: int, gamma: int) -> dict[str, object]:
    return {"weight": torch.full((1, 1, s, s), 1 / s**2, dtype=torch.float64), "dilation": gamma}


@pytest.mark.parametrize(("s", "gamma"), [(1, 1), (3, 2), (5, 3)])
def test_a_new_block_averages_its_features(s: int, gamma: int) -> None:
    block = LSDFN(3, 2, features=4, s=s, gamma=gamma).double()
    image = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    mean = block.feature(image).mean(1, keepdim=True)
    expected = F.conv2d(mean, padding=gamma * (s - 1) // 2, **box(s, gamma))
    torch.testing.assert_close(block(image), expected.expand(-1, 2, -1, -1))


def test_one_sample_is_a_dynamic_filter_network() -> None:
    values = arguments((6, 5), 1, 3, batch=2)
    plain = values._replace(sampling=torch.zeros_like(values.sampling), position=torch.zeros_like(values.position))
    patches = F.unfold(plain.x, 3, padding=1).view(2, 2, 9, 6, 5)
    kernels = plain.tap.permute(0, 2, 1, 3, 4)[:, :, None].repeat(1, 1, 2, 1, 1, 1)
    kernels[:, :, :, 4] += plain.channel.permute(0, 3, 4, 1, 2) + 1 / 2
    expected = torch.einsum("bvujhw,bujhw->bvhw", kernels, patches)
    for gamma in (1.0, 3.7):
        torch.testing.assert_close(dynamic_filter(*plain, gamma), expected)


def test_the_same_kernel_everywhere_is_a_convolution_then_a_dilated_average() -> None:
    """U takes the residual away, and V is one kernel of the summed channels."""
    s, gamma, channels = 3, 2, 2
    values = arguments((7, 6), s, 3, outputs=1)
    kernel = torch.randn(3, 3, dtype=torch.float64)
    plain = values._replace(
        channel=torch.full_like(values.channel, -1 / channels),
        tap=kernel.reshape(1, 9, 1, 1, 1).expand_as(values.tap),
        sampling=torch.zeros_like(values.sampling),
        position=torch.zeros_like(values.position),
    )
    convolved = F.conv2d(plain.x.sum(1, keepdim=True), kernel[None, None], padding=1 + gamma * (s - 1) // 2)
    torch.testing.assert_close(dynamic_filter(*plain, gamma), F.conv2d(convolved, **box(s, gamma)))


def test_attention_is_added_to_one() -> None:
    """S = A = 1 everywhere doubles twice where no sampled place leaves the map."""
    values = arguments((9, 9), 3, 3)
    none, full = (
        values._replace(sampling=fill(values.sampling), position=fill(values.position))
        for fill in (torch.zeros_like, torch.ones_like)
    )
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(dynamic_filter(*full, 2.0)[inner], 4 * dynamic_filter(*none, 2.0)[inner])


def filled(block: LSDFN) -> LSDFN:
    """Every branch at work."""
    generator = torch.Generator().manual_seed(3)
    for parameter in block.parameters():
        if parameter.dim():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return block


@pytest.mark.parametrize("gamma", [1.0, 1.37])
def test_the_block_equals_the_loops(gamma: float) -> None:
    """Also the order of the branches' channels: U as C' x C, the others with C' last."""
    block = filled(LSDFN(3, 2, features=4, gamma=gamma, s=3)).double()
    image = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        u = block.channel_kernels(image).reshape(2, 2, 4, 4, 5).permute(0, 3, 4, 1, 2)
        v = block.tap_kernels(image).reshape(2, 9, 2, 4, 5)
        s = block.sampling_attention(image).reshape(2, 9, 2, 4, 5)
        a = block.position_attention(image).reshape(2, 9, 2, 4, 5)
        expected = loops.dynamic_filter(block.feature(image), u, v, s, a, float(block.stride.gamma))
        torch.testing.assert_close(block(image), expected)


@pytest.mark.parametrize(("gamma", "learned"), [(2.0, False), (1.37, False), (1.37, True)])
def test_gradcheck_of_the_block(gamma: float, learned: bool) -> None:
    block = filled(LSDFN(2, 2, features=2, s=3, gamma=gamma, learned=learned, post=True)).double()
    image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, parameter in block.named_parameters() if parameter.requires_grad]
    assert ("stride.gamma" in names) is learned
    assert len(names) == 12 + learned

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (image, *(block.get_parameter(name) for name in names)))


def test_new_kernels_and_attention_get_gradients() -> None:
    """Zero weights are no saddle: everything but the attention's inner product with zero is reached at once."""
    block = LSDFN(3, 2, features=4, gamma=1.37, learned=True)
    block(torch.randn(1, 3, 6, 6)).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_filters_in_single_precision_whatever_its_branches_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def single(*values: Tensor) -> Tensor:
        assert {value.dtype for value in values[:5]} == {torch.float32}
        return dynamic_filter(*values)

    monkeypatch.setattr(lsdfn, "dynamic_filter", single)
    block, image = filled(LSDFN(3, 2, features=4)), torch.randn(1, 3, 6, 7)
    expected = block(image)
    with torch.autocast("cpu", torch.bfloat16):
        output = block(image)
        output.sum().backward()
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, atol=0.2, rtol=0.05)
    half = block.bfloat16()(image.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.3, rtol=0.1)

    values = arguments((4, 5), 3, 3, dtype=torch.float32)
    exact = results(values, scalar(1.37, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(results(values, scalar(1.37, torch.float32)), exact, strict=True):
            assert torch.equal(one, other)


def flop_and_peak(values: Arguments, gamma: Tensor | float, backward: bool) -> tuple[float, int]:
    with Meter() as meter:
        output = dynamic_filter(*values, gamma)
        if backward:
            output.backward(torch.empty_like(output))
    return meter.metered.flop, meter.metered.peak_bytes


@pytest.mark.parametrize("gamma", [2.0, 1.37])
@pytest.mark.parametrize("learned", [False, True])
def test_shapes_alone_cost_the_same_flop(gamma: float, learned: bool) -> None:
    """The forecast runs on the meta device, where only gamma has a value."""
    here, there = (
        flop_and_peak(
            arguments((9, 8), 3, 3, dtype=torch.float32, device=device),
            torch.tensor(gamma, requires_grad=learned),
            backward=True,
        )
        for device in ("cpu", "meta")
    )
    assert here == there


def test_the_meter_counts_what_the_factors_cost() -> None:
    """s^2 (C C' + k^2 C') multiply-adds a position, and per output and sample 5 steps: S + 1, T (2), T times G and
    their sum; the rest is below s^2 of that: xbar, 1/C, A on the padded map, V' N."""
    outputs, channels, s, k, size = 24, 128, 5, 3, (63, 63)
    values = arguments(size, s, k, channels=channels, outputs=outputs, dtype=torch.float32, device="meta")
    positions = size[0] * size[1]
    macs = s**2 * (channels * outputs + k**2 * outputs) * positions
    rest = 5 * s**2 * outputs * positions
    forward, _ = flop_and_peak(values, 1.0, backward=False)
    assert forward == pytest.approx(2 * macs + rest, rel=0.01)
    both, _ = flop_and_peak(values, 1.0, backward=True)
    assert both == pytest.approx(3 * forward, rel=0.05)
    # a real gamma blends two neighbours along each axis for every sample of x and A: 2 x 3 FLOP each at most
    blends = 6 * s**2 * (channels + k**2 * outputs) * positions
    assert forward < flop_and_peak(values, 1.37, backward=False)[0] < forward + blends


def test_kernels_that_are_made_cost_what_their_convolution_does() -> None:
    values = arguments((9, 8), 3, 3, channels=16, outputs=8, dtype=torch.float32)
    image, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((1, 9, 8, 32), (128, 32), (128,)))
    with Meter() as apart:
        given = F.linear(image, weight, bias).unflatten(3, (8, 16))
        dynamic_filter(*values._replace(channel=given), 1.0).sum().backward()
    with Meter() as made:
        dynamic_filter(*values._replace(channel=image), 1.0, weight, bias).sum().backward()
    assert made.flop == pytest.approx(apart.flop, rel=0.01)


def test_neither_kernels_nor_the_stack_of_samples_are_expanded() -> None:
    outputs, channels, s, k, size = 24, 128, 5, 3, (63, 63)
    values = arguments(size, s, k, channels=channels, outputs=outputs, dtype=torch.float32, device="meta")
    bytes_of_kernels = 4 * outputs * channels * k**2 * size[0] * size[1]
    bytes_of_stack = 4 * channels * (s * k) ** 2 * size[0] * size[1]
    for gamma in (1.0, scalar(1.37, torch.float32)):
        _, peak = flop_and_peak(values, gamma, backward=True)
        assert peak < min(bytes_of_kernels, bytes_of_stack) / 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("gamma", [2.0, 1.37])
def test_the_gpu_agrees_with_the_cpu(gamma: float) -> None:
    here, there = (
        results(arguments((6, 7), 3, 3, batch=2, device=device), scalar(gamma)) for device in ("cpu", "cuda")
    )
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_state_copies_and_files_keep_gamma() -> None:
    block = filled(LSDFN(3, 2, features=4, gamma=2.5, learned=True, bounds=(0.5, 8.0), post=True))
    image = torch.randn(1, 3, 6, 7)
    block(image).sum().backward()
    saved = io.BytesIO()
    torch.save(block.state_dict(), saved)
    saved.seek(0)
    other = LSDFN(3, 2, features=4, post=True)
    assert not torch.equal(other(image), block(image))
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert (other.stride.gamma.item(), other.stride.bounds.tolist()) == (2.5, [0.5, 8.0])
    assert torch.equal(other(image), block(image))
    twin = copy.deepcopy(block)
    assert twin.stride.learned
    assert torch.equal(twin(image), block(image))
    assert twin.stride.gamma is not block.stride.gamma


def test_projection_clamps_the_value_and_leaves_the_gradient_alive() -> None:
    block = filled(LSDFN(2, 2, features=2, s=3, learned=True, bounds=(0.5, 2.0)))
    image = torch.randn(1, 2, 9, 9)
    for value, bound in ((5.0, 2.0), (0.1, 0.5)):
        with torch.no_grad():
            block.stride.gamma.fill_(value)
        assert torch.autograd.grad(block(image).sum(), block.stride.gamma)[0] != 0
        block.stride.project_()
        assert block.stride.gamma.item() == bound
        assert torch.autograd.grad(block(image).sum(), block.stride.gamma)[0] != 0


def test_learned_is_a_switch_of_the_gradient() -> None:
    assert not LSDFN(2, 2).stride.gamma.requires_grad
    assert LSDFN(2, 2, learned=True).stride.gamma.requires_grad
    assert not SampleStride().learned
    assert "gamma=1.5, learned=True, bounds=(0.25, 16)" in repr(LSDFN(2, 2, gamma=1.5, learned=True))


def test_an_offset_that_misses_a_pixel_by_rounding_only_lies_on_it() -> None:
    """3 x 1/3 in single precision is a little more than 1: it must still get the mean of the slopes."""
    values = arguments((6, 7), 7, 1)
    third = torch.tensor(1 / 3, dtype=torch.float32, requires_grad=True)
    rounded = results(values, third)[-1]
    assert rounded.item() == pytest.approx(results(values, scalar(1 / 3))[-1].item(), rel=1e-4)
    assert RegionAxis.of(6, 7, third.item(), 0).places[6].part == 0


def test_post_adds_a_convolution_behind_the_block() -> None:
    block = filled(LSDFN(3, 2, features=4, post=True))
    bare = copy.deepcopy(block)
    bare.post = nn.Identity()
    image = torch.randn(1, 3, 6, 7)
    assert torch.equal(block(image), block.post(bare(image)))
    assert isinstance(LSDFN(3, 2).post, nn.Identity)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"s": 4}, r"s odd and >= 1. Got s=4. Nearest legal: 3"),
        ({"s": 0}, r"Got s=0. Nearest legal: 1"),
        ({"k": 2}, r"k odd and >= 1. Got k=2. Nearest legal: 1"),
        ({"k": -3}, r"Got k=-3. Nearest legal: 1"),
        ({"gamma": 0.0}, r"within its bounds \[0.25, 16.0\]. Got gamma=0.0. Nearest legal: 0.25"),
        ({"gamma": -1.0}, r"Nearest legal: 0.25"),
        ({"gamma": 17.0}, r"Nearest legal: 16.0"),
        ({"gamma": math.nan}, r"within its bounds"),
        ({"bounds": (0.0, 4.0)}, r"0 < low <= high"),
        ({"features": 0}, r"at least one channel. Got features=0. Nearest legal: 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        LSDFN(3, 2, **settings)  # type: ignore[arg-type]


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(SpaceError, match="Got in_channels=0"):
        LSDFN(0, 2)
    with pytest.raises(SpaceError, match="Got out_channels=-1"):
        LSDFN(2, -1)
    block = LSDFN(3, 2, features=4)
    for shape in ((1, 2, 5, 5), (3, 5, 5), (1, 3, 0, 5)):
        with pytest.raises(ModelError, match="reads B x 3 x H x W"):
            block(torch.zeros(shape))
    values = arguments((3, 3), 3, 3)
    with pytest.raises(SpaceError, match="greater than 0"):
        dynamic_filter(*values, 0.0)
    with pytest.raises(TrialError, match="diverged"):
        dynamic_filter(*values, math.inf)
    with pytest.raises(ModelError, match=r"samples and of taps are squares. Got 8\. Nearest legal: 4"):
        dynamic_filter(*values._replace(sampling=values.sampling[:, :8]), 1.0)
    with pytest.raises(ModelError, match="k odd"):
        dynamic_filter(*values._replace(tap=values.tap[:, :4]), 1.0)
