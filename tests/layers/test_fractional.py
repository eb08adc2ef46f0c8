"""A convolution at a real dilation against literal loops, gradcheck, nn.Conv2d, and its forms against each other."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.errors import ModelError, SpaceError, TrialError
from rfsearch.layers import FractionalConv2d, fractional_conv2d, fractional_convolution, sampled_convolution
from rfsearch.training import Meter
from tests.references import fractional_loops as loops

ALGORITHMS = ["sampled", "splat"]
MODES = ["zeros", "reflect", "replicate", "circular"]


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def pixels(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return torch.autograd.grad(output, inputs, grad.to(output.dtype))


def convolution(kernel=3, dtype: torch.dtype = torch.float64, **options) -> nn.Conv2d:
    torch.manual_seed(5)
    return nn.Conv2d(4, 6, kernel, dtype=dtype, **options)


# Odd, even and flat kernels; levers of 2 px; taps that fall on a pixel (1.5 x 2), below one pixel, beyond the map.
CASES = {
    "3x3": ((3, 3), (1.37, 1.37), (1, 1), 1, (5, 7)),
    "an axis each": ((3, 3), (2.6, 1.3), (1, 1), 1, (6, 5)),
    "below one": ((3, 3), (0.35, 0.8), (1, 1), 1, (5, 4)),
    "far beyond the map": ((3, 3), (9.4, 1.2), (1, 1), 1, (4, 5)),
    "5x5": ((5, 5), (1.5, 1.3), (1, 1), 1, (6, 5)),
    "even": ((2, 4), (1.4, 2.7), (1, 1), 1, (5, 6)),
    "even below one": ((4, 2), (0.4, 0.7), (1, 1), 1, (5, 6)),
    "flat": ((1, 3), (2.2, 1.7), (1, 1), 1, (4, 7)),
    "stride": ((3, 3), (1.37, 2.2), (2, 3), 1, (7, 8)),
    "groups": ((3, 3), (1.37, 2.2), (1, 1), 2, (5, 4)),
    "depthwise": ((3, 3), (1.37, 2.2), (2, 1), 4, (6, 5)),
    "one pixel": ((3, 3), (1.37, 0.5), (1, 1), 1, (1, 1)),
    "whole": ((3, 3), (1.0, 2.0), (1, 1), 1, (6, 5)),
    "even, whole": ((2, 4), (2.0, 1.0), (1, 1), 1, (6, 5)),
}


def check_slopes(output: Tensor, dilation: Tensor, literal: tuple, **options) -> None:
    """The gradient in the dilation of each axis is that of the loops."""
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (slopes,) = torch.autograd.grad(output, dilation, grad)
    for axis in range(2):
        slope = loops.slope_in_dilation(*literal, grad=grad, axis=axis, **options)
        assert slopes[axis].item() == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_real_dilation_equals_the_loops(case, algorithm: str) -> None:
    kernel, delta, stride, groups, size = case
    x, weight, bias, dilation = random(2, 4, *size), random(4, 4 // groups, *kernel), random(4), pixels(*delta)
    # what torch's padding="same" would do, which has no strides: every output's kernel lies around its own pixel
    padding = tuple((k - 1) // 2 for k in kernel) if max(stride) > 1 else "same"
    output = fractional_conv2d(x, weight, bias, dilation, stride, padding, groups, algorithm=algorithm)
    literal = (x.detach(), weight.detach(), bias.detach(), delta, stride)
    expected = loops.convolve(*literal, groups=groups)
    torch.testing.assert_close(output, expected)
    check_slopes(output, dilation, literal, groups=groups)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("delta", [(1.37, 2.6), (0.4, 2.0)])
def test_the_map_is_continued_as_its_padding_mode_says(mode: str, algorithm: str, delta: tuple[float, float]) -> None:
    x, weight, dilation = random(1, 2, 5, 6), random(2, 2, 3, 3), pixels(*delta)
    output = fractional_conv2d(x, weight, None, dilation, padding_mode=mode, algorithm=algorithm)
    literal = (x.detach(), weight.detach(), None, delta)
    torch.testing.assert_close(output, loops.convolve(*literal, mode=mode))
    check_slopes(output, dilation, literal, mode=mode)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", [name for name in CASES if "whole" not in name and name != "5x5"])
def test_gradcheck(case: str, algorithm: str) -> None:
    kernel, delta, stride, groups, size = CASES[case]
    outputs = max(2, groups)  # it calls the function for every single number of its arguments and of its output
    x, weight, bias = random(1, 4, *size), random(outputs, 4 // groups, *kernel), random(outputs)
    dilation = pixels(*delta)
    padding = tuple((k - 1) // 2 for k in kernel) if max(stride) > 1 else "same"

    def convolve(*arguments: Tensor) -> Tensor:
        return fractional_conv2d(*arguments, stride, padding, groups, algorithm=algorithm)

    assert torch.autograd.gradcheck(convolve, (x, weight, bias, dilation))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_dilation_of_both_axes_gets_the_sum_of_their_gradients(algorithm: str) -> None:
    x, weight, one, each = random(1, 2, 5, 6), random(3, 2, 3, 3), pixels(1.37), pixels(1.37, 1.37)
    shared, split = (fractional_conv2d(x, weight, None, dilation, algorithm=algorithm) for dilation in (one, each))
    assert torch.equal(shared, split)
    torch.testing.assert_close(gradients(shared, one)[0], gradients(split, each)[0].sum().reshape(1))
    scalar = torch.tensor(1.37, dtype=torch.float64, requires_grad=True)
    assert gradients(fractional_conv2d(x, weight, None, scalar, algorithm=algorithm), scalar)[0].shape == ()


PADDED = [(3, "same"), (3, 0), (3, 2), (5, (1, 4)), (2, "same"), (4, "same"), (2, 1), ((1, 3), "valid")]
WHOLE = [
    {"kernel": kernel, "dilation": d, "padding": padding, **more}
    for kernel, padding in PADDED
    for d in (1, 2, 3)
    for more in ({}, {"groups": 2}, {"stride": 2}, {"bias": False})
    if not (padding == "same" and "stride" in more)
]


@pytest.mark.parametrize("options", WHOLE, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_at_its_own_dilation_it_is_the_convolution_it_replaces(options: dict, mode: str) -> None:
    conv = convolution(**options, padding_mode=mode)
    x = random(2, 4, 11, 12)
    expected = conv(x)
    wanted = gradients(expected, x, *conv.parameters())
    layer = FractionalConv2d(conv, float(options["dilation"]), learned=False)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    arguments = (conv.stride, conv.padding, conv.groups, mode, conv.dilation)
    for algorithm, learned in (
        ("plain", False),
        ("sampled", False),
        ("splat", False),
        ("sampled", True),
        ("splat", True),
    ):
        dilation = pixels(options["dilation"]) if learned else float(options["dilation"])
        output = fractional_conv2d(x, conv.weight, conv.bias, dilation, *arguments, algorithm)
        torch.testing.assert_close(output, expected)
        for mine, theirs in zip(gradients(output, x, *conv.parameters()), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_same_padding_agrees_with_torch_at_other_whole_dilations(kernel: int, d: int) -> None:
    conv, other = (convolution(kernel, padding="same", dilation=dilation) for dilation in (1, d))
    x = random(1, 4, 9, 8)
    torch.testing.assert_close(FractionalConv2d(conv, float(d), learned=False)(x), other(x))
    torch.testing.assert_close(FractionalConv2d(conv, float(d))(x), other(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_the_size_is_kept_at_any_dilation(stride: int, mode: str) -> None:
    conv = convolution(stride=stride, padding=1, dilation=2, padding_mode=mode)
    x = random(1, 4, 13, 10)
    for delta in (0.3, 1.0, 1.7, 4.0, 6.1, 30.5):
        assert FractionalConv2d(conv, delta)(x).shape == conv(x).shape


def test_taps_far_beyond_the_map_read_zeros_and_take_no_memory() -> None:
    x, weight, dilation = random(1, 4, 7, 6), random(6, 4, 3, 3), pixels(1e6 + 0.5)
    output = fractional_conv2d(x, weight, None, dilation)
    torch.testing.assert_close(output, F.conv2d(x, weight[:, :, 1:2, 1:2]))
    assert not gradients(output, dilation)[0].any()


@pytest.mark.parametrize("delta", [(1.37, 2.6), (1.5, 7.2)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_all_algorithms_and_four_convolutions_agree(delta: tuple[float, float], groups: int) -> None:
    x, weight, dilation = random(2, 4, 9, 8), random(8, 4 // groups, 3, 3), pixels(*delta)
    four = loops.four_convolutions(x, weight, dilation, groups)
    wanted = gradients(four, x, weight, dilation)
    for algorithm in ("auto", *ALGORITHMS):
        output = fractional_conv2d(x, weight, None, dilation, groups=groups, algorithm=algorithm)
        torch.testing.assert_close(output, four)
        for mine, theirs in zip(gradients(output, x, weight, dilation), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("limit", [1, 1000, 2**20])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_size_of_a_piece_changes_nothing(monkeypatch: pytest.MonkeyPatch, limit: int, groups: int) -> None:
    """One row of outputs at a time, a few, and all three images at once."""
    x, weight, bias, dilation = random(3, 4, 7, 6), random(6, 4 // groups, 3, 3), random(6), pixels(1.37, 2.2)

    def results() -> tuple[Tensor, ...]:
        output = fractional_conv2d(x, weight, bias, dilation, (2, 1), (1, 1), groups, algorithm="sampled")
        return output, *gradients(output, x, weight, bias, dilation)

    expected = results()
    monkeypatch.setattr(sampled_convolution, "_CPU_PIECE", limit)
    for mine, theirs in zip(results(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_inputs_of_any_layout(algorithm: str) -> None:
    x, weight, dilation = random(2, 3, 6, 5), random(4, 3, 3, 3), pixels(1.37)
    expected = fractional_conv2d(x, weight, None, dilation, algorithm=algorithm)
    wanted = gradients(expected, x, weight, dilation)
    views = {
        "last": x.detach().contiguous(memory_format=torch.channels_last),
        "transposed": x.detach().transpose(2, 3).contiguous().transpose(2, 3),
        "cut": F.pad(x.detach(), [2, 1, 1, 2])[:, :, 1:-2, 2:-1],
    }
    for name, view in views.items():
        assert not view.is_contiguous()
        source = view.requires_grad_()
        output = fractional_conv2d(source, weight, None, dilation, algorithm=algorithm)
        assert output.is_contiguous(memory_format=torch.channels_last if name == "last" else torch.contiguous_format)
        torch.testing.assert_close(output, expected, check_stride=False)
        for mine, theirs in zip(gradients(output, source, weight, dilation), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_empty_batch(algorithm: str) -> None:
    x, weight, bias, dilation = random(0, 4, 5, 6), random(6, 4, 3, 3), random(6), pixels(1.37)
    output = fractional_conv2d(x, weight, bias, dilation, algorithm=algorithm)
    assert output.shape == (0, 6, 5, 6)
    grads = torch.autograd.grad(output.sum(), (x, weight, bias, dilation))
    assert all(not grad.any() for grad in grads)
    assert [grad.shape for grad in grads] == [t.shape for t in (x, weight, bias, dilation)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_what_needs_a_gradient_gets_one(algorithm: str) -> None:
    arguments = [random(1, 3, 5, 6), random(4, 3, 3, 3), random(4), pixels(1.37)]
    output = fractional_conv2d(*arguments, algorithm=algorithm)
    wanted = gradients(output, *arguments)
    for chosen in range(4):
        inputs = [t if i == chosen else t.detach() for i, t in enumerate(arguments)]
        torch.testing.assert_close(
            gradients(fractional_conv2d(*inputs, algorithm=algorithm), inputs[chosen])[0], wanted[chosen]
        )
    with torch.no_grad():
        assert not fractional_conv2d(*arguments, algorithm=algorithm).requires_grad


def test_the_sampled_algorithm_is_differentiable_once() -> None:
    x, weight, dilation = random(1, 2, 4, 5), random(2, 2, 3, 3), pixels(1.37)
    output = fractional_conv2d(x, weight, None, dilation, algorithm="sampled")
    (slope,) = torch.autograd.grad(output.square().sum(), dilation, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        slope.sum().backward()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_precisions(algorithm: str) -> None:
    double = [random(2, 4, 7, 6), random(6, 4, 3, 3), random(6), pixels(1.37)]
    wanted = gradients(fractional_conv2d(*double, algorithm=algorithm), *double)

    def near(results: tuple[Tensor, ...], tolerance: float) -> None:
        for mine, theirs in zip(results, wanted, strict=True):
            assert ((mine.double() - theirs).norm() / theirs.norm()).item() < tolerance

    single = [t.detach().float().requires_grad_() for t in double]
    near(gradients(fractional_conv2d(*single, algorithm=algorithm), *single), 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        output = fractional_conv2d(*single, algorithm=algorithm)
    assert output.dtype == torch.bfloat16
    results = gradients(output, *single)
    assert all(grad.dtype == torch.float32 for grad in results)
    near(results, 0.03)
    half = [t.detach().bfloat16().requires_grad_() for t in single[:3]]
    near(gradients(fractional_conv2d(*half, single[3], algorithm=algorithm), *half, single[3]), 0.03)


def cheapest(monkeypatch: pytest.MonkeyPatch, *arguments, **options) -> str:
    """The algorithm that "auto" runs."""
    ran = []
    for algorithm, name in {"plain": "_whole", "splat": "_splat"}.items():
        original = getattr(fractional_convolution, name)
        monkeypatch.setattr(fractional_convolution, name, lambda *a, f=algorithm, o=original: ran.append(f) or o(*a))
    apply = sampled_convolution.SampledConvolution.apply
    monkeypatch.setattr(sampled_convolution.SampledConvolution, "apply", lambda *a: ran.append("sampled") or apply(*a))
    fractional_conv2d(*arguments, **options)
    monkeypatch.undo()
    (algorithm,) = ran
    return algorithm


def test_the_cheapest_algorithm_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, wide, depthwise = random(1, 32, 9, 9), random(2, 32, 3, 3), random(32, 1, 3, 3)
    assert cheapest(monkeypatch, x, wide, None, 3.0) == "plain"
    assert cheapest(monkeypatch, x, wide, None, pixels(3.0)) == "sampled"
    assert cheapest(monkeypatch, x, wide, None, pixels(0.7)) == "splat"
    for delta in (1.3, 2.5, 12.7):
        assert cheapest(monkeypatch, x, wide, None, delta) == "sampled"
    assert cheapest(monkeypatch, x, depthwise, None, 2.5, groups=32) == "splat"
    assert cheapest(monkeypatch, x, depthwise, None, 12.7, groups=32) == "sampled"


def test_work_is_that_of_one_convolution_and_the_blends() -> None:
    """Metered, on real and on shapes-only tensors alike."""
    flop = {}
    for device in ("cpu", "meta"):
        x, weight = (torch.zeros(s, device=device, requires_grad=True) for s in ((1, 64, 16, 16), (64, 64, 3, 3)))
        for algorithm, delta in (("sampled", 2.5), ("splat", 0.5), ("plain", 2.0)):
            dilation = torch.tensor(delta, requires_grad=algorithm != "plain")
            with Meter() as meter:
                fractional_conv2d(x, weight, None, dilation, algorithm=algorithm).sum().backward()
            flop[device, algorithm] = meter.flop
    products = 3 * 2 * 9 * 64 * 64 * 16 * 16
    for device in ("cpu", "meta"):
        assert 1 <= flop[device, "plain"] / products < 1.002
        assert 1 < flop[device, "splat"] / products < 1.03
        assert 1.01 < flop[device, "sampled"] / products < 1.06


@pytest.mark.parametrize("d", [1, 2, 3, 7, 12])
def test_a_dilation_that_its_logarithm_rounds_is_whole_again(d: int) -> None:
    conv = convolution(padding=d, dilation=d, dtype=torch.float32)
    layer = FractionalConv2d(conv, d)
    x = random(1, 4, 9, 9, dtype=torch.float32)
    assert layer.read_dilation() == (d, d)
    with torch.no_grad():
        assert torch.equal(layer(x), conv(x))
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.parametrize("shared", [True, False])
def test_a_dilation_is_learned(shared: bool) -> None:
    """Towards the dilation that made the target: 2.2, from 1.4, on a smooth map."""
    x = F.avg_pool2d(random(4, 4, 30, 30).detach(), 7, stride=1)
    conv = convolution(padding="same")
    target = FractionalConv2d(conv, 2.2, learned=False)(x).detach()
    layer = FractionalConv2d(conv, 1.4, shared=shared)
    assert layer.log_dilation.numel() == (1 if shared else 2)
    optimiser = torch.optim.Adam([layer.log_dilation], lr=0.02)
    for _ in range(100):
        optimiser.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimiser.step()
        layer.project_()
    assert layer.dilation.tolist() == pytest.approx([2.2] * (1 if shared else 2), abs=0.05)


def test_a_step_beyond_a_bound_is_clamped() -> None:
    layer = FractionalConv2d(convolution(), (1.5, 3.0), shared=False, bounds=(1.0, 4.0))
    x = random(1, 4, 9, 9)
    with torch.no_grad():
        layer.log_dilation.copy_(torch.tensor([0.5, 5.7]).log())
    assert gradients(layer(x), layer.log_dilation)[0].all()  # beyond its bounds it still has a gradient
    layer.project_()
    assert layer.dilation.tolist() == pytest.approx([1.0, 4.0])
    assert layer.read_dilation() == (1.0, 4.0)
    assert gradients(layer(x), layer.log_dilation)[0].all()


def test_learned_dilations_survive_copies_and_files() -> None:
    layer = FractionalConv2d(convolution(), (1.5, 3.0), shared=False, bounds=(1.0, 4.0))
    x = random(1, 4, 9, 9)
    with torch.no_grad():
        layer.log_dilation.add_(0.1)
    assert set(layer.state_dict()) == {"weight", "bias", "log_dilation", "bounds"}
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = FractionalConv2d(convolution(), 1.0, shared=False)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), layer(x))
    assert torch.equal(other.bounds, layer.bounds)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    with torch.no_grad():
        twin.log_dilation.add_(0.1)
    assert not torch.equal(twin(x), layer(x))


def test_the_convolutions_weights_are_kept() -> None:
    conv = convolution(padding=1)
    layer = FractionalConv2d(conv, 1.5)
    assert layer.weight is conv.weight
    assert layer.bias is conv.bias
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias", "log_dilation"]
    assert FractionalConv2d(convolution(bias=False), 1.5).bias is None
    assert not FractionalConv2d(conv, 1.5, learned=False).log_dilation.requires_grad
    assert layer.learned


def test_repr() -> None:
    layer = FractionalConv2d(convolution(stride=2, padding=1, groups=2), 1.5, bounds=(1.0, 8.0))
    assert repr(layer) == (
        "FractionalConv2d(4, 6, kernel_size=(3, 3), dilation=(1.5), learned=True, bounds=(1, 8), stride=(2, 2), "
        "padding=(1, 1), groups=2, bias=True, padding_mode='zeros')"
    )


@pytest.mark.parametrize(
    ("delta", "error", "message"),
    [
        (0.0, SpaceError, "greater than 0. Got 0.0"),
        (-1.5, SpaceError, "greater than 0. Got -1.5"),
        (math.nan, TrialError, "finite. Got nan"),
        (math.inf, TrialError, "finite. Got inf"),
        ((1.0, 2.0, 3.0), SpaceError, "one per axis .height, width.. Got 3"),
    ],
)
def test_an_illegal_dilation_is_refused(delta, error: type[Exception], message: str) -> None:
    x, weight = random(1, 4, 5, 5), random(2, 4, 3, 3)
    with pytest.raises(error, match=message):
        fractional_conv2d(x, weight, None, delta)
    with pytest.raises(error, match=message):
        fractional_conv2d(x, weight, None, torch.tensor(delta))
    with pytest.raises(error, match=message):
        FractionalConv2d(convolution(), delta)


def test_a_diverged_dilation_fails_the_trial() -> None:
    layer = FractionalConv2d(convolution(), 1.5)
    with torch.no_grad():
        layer.log_dilation.fill_(math.nan)
    with pytest.raises(TrialError, match="its training diverged"):
        layer(random(1, 4, 5, 5))


def test_wrong_arguments_are_named() -> None:
    conv = convolution()
    for wrong in (nn.ConvTranspose2d(4, 4, 3), nn.Conv1d(4, 4, 3), nn.Linear(2, 2)):
        with pytest.raises(ModelError, match=rf"replaces that of an nn.Conv2d. Got {type(wrong).__name__}"):
            FractionalConv2d(wrong, 1.5)
    with pytest.raises(SpaceError, match=r"within its bounds \[1.0, 4.0\]. Got 5.0. Nearest legal: 4.0"):
        FractionalConv2d(conv, 5.0, bounds=(1.0, 4.0))
    with pytest.raises(SpaceError, match="0 < low <= high. Got low=0.0"):
        FractionalConv2d(conv, 1.0, bounds=(0.0, 4.0))
    with pytest.raises(SpaceError, match="share is one number. Got 1.0 and 2.0"):
        FractionalConv2d(conv, (1.0, 2.0))
    x, weight = random(1, 4, 5, 5), random(2, 4, 3, 3)
    with pytest.raises(ModelError, match="Got x.shape=.4, 5, 5."):
        fractional_conv2d(x[0], weight)
    with pytest.raises(ModelError, match="groups=2"):
        fractional_conv2d(x, weight, groups=2)
    with pytest.raises(ModelError, match="has no algorithm 'plain' with a gradient .* Known: auto, sampled, splat"):
        fractional_conv2d(x, weight, None, pixels(2.0), algorithm="plain")
    with pytest.raises(ModelError, match="reflect padding .* 5 px by at most 4 px. Its taps reach 6 px"):
        fractional_conv2d(x, weight, None, 5.5, padding_mode="reflect")
    with pytest.raises(ModelError, match="spans 9 px, its padded map is 5 px"):
        fractional_conv2d(x, weight, None, 1.5, padding=0, padded_for=4)


def test_it_is_built_without_values() -> None:
    with torch.device("meta"):
        shapes = FractionalConv2d(nn.Conv2d(4, 6, 3, padding=2, dilation=2), 2.0)
    assert shapes(torch.zeros(2, 4, 9, 9, device="meta")).shape == (2, 6, 9, 9)


def test_it_loses_its_values_with_the_dilation_that_was_written_last() -> None:
    layer = FractionalConv2d(convolution(padding=2, dilation=2, dtype=torch.float32), 2.6)
    layer.load_state_dict({**layer.state_dict(), "log_dilation": torch.tensor([3.7]).log()})
    assert layer.to("meta").read_dilation() == pytest.approx((3.7, 3.7))


@pytest.mark.parametrize(
    ("dilation", "made"),
    [
        (3.56, {}),
        ((1.3, 2.0), {"stride": 2, "groups": 2}),
        (2.4, {"kernel_size": 5, "padding_mode": "replicate"}),
        (2.5, {"kernel_size": 2, "padding": "same"}),
        (2.2, {"padding_mode": "circular"}),
        (4.0, {"groups": 8}),
        (30.5, {}),
    ],
)
def test_an_exported_program_computes_the_same_for_any_number_of_maps(dilation: Any, made: dict[str, Any]) -> None:
    conv = nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1, **made}).double()
    layer = FractionalConv2d(conv, dilation, learned=False, shared=isinstance(dilation, float))
    maps = torch.randn(3, 8, 21, 19, dtype=torch.float64)
    expected = layer(maps)
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(layer, (maps[:2],), dynamic_shapes=batch, strict=False)
    torch.testing.assert_close(program.module()(maps), expected)


def test_an_exported_program_never_holds_an_outdated_dilation() -> None:
    layer, maps = FractionalConv2d(nn.Conv2d(4, 4, 3, padding=1), 2.3), torch.randn(1, 4, 9, 9)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(maps).square().sum().backward()
    optimizer.step()
    with pytest.raises(ModelError, match="Call it once on a map before exporting"):
        torch.export.export(layer, (maps,), strict=False)
    expected = layer(maps)
    torch.testing.assert_close(torch.export.export(layer, (maps,), strict=False).module()(maps), expected)


@pytest.mark.parametrize("assign", [False, True])
def test_a_loaded_dilation_is_the_exported_one(assign: bool) -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    layer, other = (FractionalConv2d(copy.deepcopy(conv), d, learned=False) for d in (2.3, 3.7))
    layer.load_state_dict(other.state_dict(), assign=assign)
    maps = torch.randn(1, 4, 9, 9)
    torch.testing.assert_close(torch.export.export(layer, (maps,), strict=False).module()(maps), other(maps))
    again = copy.deepcopy(layer)
    torch.testing.assert_close(torch.export.export(again, (maps,), strict=False).module()(maps), other(maps))


def test_work_changes_when_a_tap_moves_between_other_pixels() -> None:
    layer = FractionalConv2d(nn.Conv2d(4, 4, 3, padding=1), 2.3)
    seen = []
    for dilation in (2.3, 2.7, 3.0, 3.1):
        with torch.no_grad():
            layer.log_dilation.fill_(math.log(dilation))
        seen.append(layer.work)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    layer.log_dilation.requires_grad_(False)
    assert layer.work != seen[-1]
