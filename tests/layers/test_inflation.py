"""The inflation and interpolation layers against literal loops, gradcheck and their neutral settings."""

from __future__ import annotations

import io
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfsearch.errors import ModelError, SpaceError, TrialError
from rfsearch.layers import (
    Inflation,
    InflationFactor,
    Interpolation,
    LabelWeight,
    guided,
    inflate,
    inflated_size,
    interpolate,
    precision,
    resampling,
)
from rfsearch.training import Meter
from tests.references import inflation_loops as loops

# On these maps no sample t / f or t f / 4 with t > 0 falls on a pixel, where the slope in f jumps and a finite
# difference would straddle the jump: 100 / 73 t, 100 / 137 t and 100 / 271 t are whole only at t = 73, 137, 271.
FACTORS = [0.73, 1.37, 2.71]
SIZES = [(5, 7), (6, 3)]
STRIDE, LABELS = 4, (17, 23)


def scalar(f: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(f, dtype=dtype, requires_grad=True)


def feature_map(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


BORDERS = ["continuous", "paper"]


def continued(u: Tensor, f: float, border: str) -> tuple[Tensor, tuple[int, ...]]:
    """The map that the loops inflate, and to which size."""
    size_of = loops.continuous_size if border == "continuous" else loops.inflation_size
    size = tuple(size_of(n, f) for n in u.shape[2:])
    return loops.continued(u, f) if border == "continuous" else u, size


def cut_back(u: Tensor, like: Tensor) -> Tensor:
    return u[tuple(slice(n) for n in like.shape)]


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A fixed random dL/d output and the gradients it gives."""
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    grad = grad.to(output.dtype)
    return grad, torch.autograd.grad(output, inputs, grad)


# f = 1 and f = 2 sit on pixels: there both sides agree on the mean of the two slopes.
@pytest.mark.parametrize("f", [*FACTORS, 1.0, 2.0, 0.5])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", BORDERS)
def test_inflate_equals_the_loops(f: float, size: tuple[int, int], border: str) -> None:
    x, factor = feature_map(2, 2, *size), scalar(f)
    output = inflate(x, factor, border=border)
    grad, (grad_x, grad_f) = gradients(output, x, factor)

    u, target = continued(x.detach(), f, border)
    torch.testing.assert_close(output, loops.resample(u, 1 / f, target))
    torch.testing.assert_close(grad_x, cut_back(loops.gradient_in_map(u, 1 / f, grad), x))
    assert grad_f.item() == pytest.approx(loops.inflate_gradient_in_f(u, f, grad), rel=1e-9)
    assert abs(grad_f.item()) > 1e-3


@pytest.mark.parametrize("f", [*FACTORS, 1.0, 2.0])
@pytest.mark.parametrize("size", SIZES)
def test_interpolate_equals_the_loops(f: float, size: tuple[int, int]) -> None:
    x, factor = feature_map(1, 2, *size), scalar(f)
    output = interpolate(x, factor, STRIDE, LABELS)
    grad, (grad_x, grad_f) = gradients(output, x, factor)

    torch.testing.assert_close(output, loops.interpolate(x.detach(), f, STRIDE, LABELS))
    torch.testing.assert_close(grad_x, loops.gradient_in_map(x.detach(), f / STRIDE, grad))
    assert grad_f.item() == pytest.approx(loops.interpolate_gradient_in_f(x.detach(), f, STRIDE, grad), rel=1e-9)
    assert abs(grad_f.item()) > 1e-3


OTHER_RANKS = [(6,), (9,), (3, 4, 5), (4, 1, 3), (3, 3, 3)]


@pytest.mark.parametrize("f", [0.73, 1.37, 1.0, 2.0])
@pytest.mark.parametrize("size", [*OTHER_RANKS, (4, 5)])
@pytest.mark.parametrize("border", BORDERS)
def test_maps_of_one_and_three_axes_equal_the_loops(f: float, size: tuple[int, ...], border: str) -> None:
    x, factor = feature_map(2, 1, *size), scalar(f)
    output = inflate(x, factor, border=border)
    grad, (grad_x, grad_f) = gradients(output, x, factor)
    u, inflated = continued(x.detach(), f, border)
    torch.testing.assert_close(output, loops.resample_any(u, 1 / f, inflated))
    torch.testing.assert_close(grad_x, cut_back(loops.gradient_in_map_any(u, 1 / f, grad), x))
    assert grad_f.item() == pytest.approx(loops.gradient_in_step_any(u, 1 / f, grad) * (-1 / f**2), rel=1e-9, abs=1e-9)
    assert inflated_size(size, f, border) == inflated
    paper = gradients(inflate(x, factor, "paper", border=border), factor)[1][0]
    torch.testing.assert_close(paper, grad_f / math.prod(inflated))

    u, labels, plain = x.detach(), tuple(n + 2 for n in size), tuple(max(1, n - 2) for n in size)
    ends = tuple(2 * (n - 1) for n in plain) if border == "continuous" else None
    output = interpolate(x, factor, 2, labels, border=border, plain=plain)
    grad, (grad_x, grad_f) = gradients(output, x, factor)
    torch.testing.assert_close(output, loops.resample_any(u, f / 2, labels, ends))
    torch.testing.assert_close(grad_x, loops.gradient_in_map_any(u, f / 2, grad, ends))
    assert grad_f.item() == pytest.approx(loops.gradient_in_step_any(u, f / 2, grad, ends) / 2, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("size", OTHER_RANKS)
def test_gradcheck_of_one_and_three_axes(size: tuple[int, ...]) -> None:
    x, factor = feature_map(1, 2, *size), scalar(1.37)
    for border in BORDERS:
        assert torch.autograd.gradcheck(partial(inflate, border=border), (x, factor))
    assert torch.autograd.gradcheck(lambda u, g: interpolate(u, g, STRIDE, [n + 3 for n in size]), (x, factor))


def test_layers_of_three_axes_share_a_factor() -> None:
    factor = InflationFactor(1.5, learned=True)
    x = feature_map(1, 2, 3, 4, 5, dtype=torch.float32)
    inflated = Inflation(factor)(x)
    assert inflated.shape == (1, 2, 5, 6, 8)
    back = Interpolation(factor, 1)(inflated, x.shape[2:])
    assert back.shape == x.shape
    back.square().sum().backward()
    assert factor.f.grad != 0


@pytest.mark.parametrize("f", FACTORS)
@pytest.mark.parametrize("size", SIZES)
def test_gradcheck(f: float, size: tuple[int, int]) -> None:
    x, factor = feature_map(2, 1, *size), scalar(f)
    for border in BORDERS:
        assert torch.autograd.gradcheck(partial(inflate, border=border), (x, factor))
    assert torch.autograd.gradcheck(lambda u, g: interpolate(u, g, STRIDE, (9, 11)), (x, factor))
    at_last = partial(interpolate, stride=STRIDE, size=(9, 11), plain=(2, 2))
    assert torch.autograd.gradcheck(at_last, (x, factor))


def test_gradient_in_f_is_differentiable_once() -> None:
    x, factor = feature_map(1, 1, 4, 5), scalar(1.37)
    (grad_f,) = torch.autograd.grad(inflate(x, factor).square().sum(), factor, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        grad_f.backward()


@pytest.mark.parametrize("f", FACTORS)
def test_non_contiguous_input(f: float) -> None:
    x = feature_map(2, 3, 6, 5)
    strided = x.transpose(2, 3)
    assert not strided.is_contiguous()
    factor = scalar(f)
    results = [
        (output, *gradients(output, source, factor)[1])
        for source in (strided, strided.detach().contiguous().requires_grad_())
        for output in (inflate(source, factor),)
    ]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("border", BORDERS)
def test_f_one_is_the_identity(learned: bool, border: str) -> None:
    x = feature_map(2, 3, 5, 4, dtype=torch.float32)
    output = Inflation(InflationFactor(1.0, learned=learned), border=border)(x)
    assert torch.equal(output, x)
    assert (output is x) is not learned


def test_interpolation_is_the_identity_at_its_neutral_setting() -> None:
    x = feature_map(2, 3, 5, 4)
    assert interpolate(x, 2.0, 2, (5, 4)) is x
    assert torch.equal(interpolate(x, scalar(2.0), 2, (5, 4)), x)
    assert interpolate(x, 2.0, 2, (5, 5)).shape == (2, 3, 5, 5)


@pytest.mark.parametrize("f", [2, 3])
def test_integer_f_keeps_the_source_at_every_fth_pixel(f: int) -> None:
    x = feature_map(2, 2, 5, 7, dtype=torch.float32)
    output = inflate(x, torch.tensor(float(f)), border="paper")
    assert output.shape == (2, 2, 4 * f + 1, 6 * f + 1)
    assert torch.equal(output[..., ::f, ::f], x)
    output = inflate(x, torch.tensor(float(f)))
    assert output.shape == (2, 2, 5 * f, 7 * f)
    assert torch.equal(output[..., ::f, ::f], x)


def test_the_size_is_floored_free_of_rounding() -> None:
    """0.29 * 100 is 28.999999999999996 in double precision and f is kept in single precision besides."""
    assert math.floor(0.29 * 100) == 28
    for f in (0.29, torch.tensor(0.29)):
        assert inflate(torch.zeros(1, 1, 101, 1), f, border="paper").shape == (1, 1, 30, 1)
    for whole in range(1, 30):
        for n in range(2, 60):
            f = torch.tensor(whole / (n - 1))
            assert inflate(torch.zeros(1, 1, n, 1), f, border="paper").shape[2] == whole + 1
            size = whole + 1 if f < 1 else loops.continuous_size(n, whole / (n - 1))
            assert inflate(torch.zeros(1, 1, n, 1), f).shape[2] == size
    assert inflate(torch.zeros(1, 1, 101, 1), 0.2899, border="paper").shape == (1, 1, 29, 1)


def test_the_last_pixel_is_sampled_where_f_fits() -> None:
    """f = 1/3 in single precision is a little more than 1/3: the last target pixel is still the last source pixel."""
    x = feature_map(1, 1, 7, 10, dtype=torch.float32)
    for border in BORDERS:
        assert torch.equal(inflate(x, torch.tensor(1 / 3), border=border), x[..., ::3, ::3])


@pytest.mark.parametrize("f", FACTORS)
def test_empty_batch(f: float) -> None:
    x, factor = feature_map(0, 3, 5, 4), scalar(f)
    for output in (inflate(x, factor, "paper"), interpolate(x, factor, STRIDE, LABELS)):
        assert output.shape[0] == 0
        grad_x, grad_f = torch.autograd.grad(output.sum(), (x, factor))
        assert grad_x.shape == x.shape
        assert grad_f == 0


@pytest.mark.parametrize("f", FACTORS)
def test_one_pixel_axes(f: float) -> None:
    x, factor = feature_map(2, 1, 1, 1), scalar(f)
    output = inflate(x, factor, border="paper")
    assert torch.equal(output, x)
    assert gradients(output, factor)[1][0] == 0
    line = feature_map(1, 1, 1, 6)
    output = inflate(line, factor, border="paper")
    grad, (grad_f,) = gradients(output, factor)
    torch.testing.assert_close(output, loops.inflate(line.detach(), f))
    assert grad_f.item() == pytest.approx(loops.inflate_gradient_in_f(line.detach(), f, grad))


def test_paper_mode_divides_what_reaches_f_by_the_pixel_count() -> None:
    x, factor = feature_map(2, 3, 5, 7), scalar(1.37)
    layers = [
        lambda mode: inflate(x, factor, mode),
        lambda mode: interpolate(x, factor, STRIDE, LABELS, mode),
    ]
    for layer, pixels in zip(layers, [7 * 10, 17 * 23], strict=True):
        _, (exact_x, exact_f) = gradients(layer("exact"), x, factor)
        _, (paper_x, paper_f) = gradients(layer("paper"), x, factor)
        assert torch.equal(paper_x, exact_x)
        torch.testing.assert_close(paper_f, exact_f / pixels)


@pytest.mark.parametrize("mode", ["exact", "paper"])
@pytest.mark.parametrize("border", BORDERS)
def test_a_shared_factor_gets_both_gradients(mode: str, border: str) -> None:
    """Eq. 10-11: dL/df is the sum of what the inflation and the interpolation of one path give."""
    factor = InflationFactor(1.37, learned=True).double()
    inflation = Inflation(factor, mode, border=border)
    interpolation = Interpolation(factor, STRIDE, mode, border=border)
    x = feature_map(1, 2, 5, 7)
    inflated = inflation(x)
    inflated.retain_grad()
    output = interpolation(inflated.square(), LABELS)
    grad, (total,) = gradients(output, factor.f)
    f = factor.f.item()

    source = inflated.detach().square()
    at_labels = loops.interpolate_gradient_in_f(source, f, STRIDE, grad)
    grad_inflated = loops.gradient_in_map(source, f / STRIDE, grad) * 2 * inflated.detach()
    u, size = continued(x.detach(), f, border)
    assert size == ((7, 10) if border == "continuous" else (6, 9))
    at_map = loops.inflate_gradient_in_f(u, f, grad_inflated)
    if mode == "paper":
        at_labels, at_map = at_labels / (17 * 23), at_map / math.prod(size)
    assert total.item() == pytest.approx(at_labels + at_map, rel=1e-9)


RESAMPLINGS = {
    "inflate": lambda x, f, mode="exact", weight=None: inflate(x, f, mode, weight),
    "interpolate": lambda x, f, mode="exact", weight=None: interpolate(x, f, STRIDE, (9, 11), mode, weight),
}


@pytest.mark.parametrize("mode", ["exact", "paper"])
@pytest.mark.parametrize("resampled", RESAMPLINGS.values(), ids=RESAMPLINGS)
@pytest.mark.parametrize("f", [*FACTORS, 1.0])
def test_a_weighted_pixel_counts_its_weight_in_f_and_one_in_the_map(f: float, resampled, mode: str) -> None:
    x, factor = feature_map(2, 2, 5, 7), scalar(f)
    plain = resampled(x, factor, mode)
    grad, (plain_x, plain_f) = gradients(resampled(x, factor, mode), x, factor)
    weight = torch.rand(2, 1, *plain.shape[2:], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    output = resampled(x, factor, mode, weight)
    _, (grad_x, grad_f) = gradients(output, x, factor)
    assert torch.equal(output, plain)
    assert torch.equal(grad_x, plain_x)

    expected = 0.0
    for b in range(2):
        for y in range(plain.shape[2]):
            for column in range(plain.shape[3]):
                one = (plain[b, :, y, column] * grad[b, :, y, column]).sum()
                (contribution,) = torch.autograd.grad(one, factor, retain_graph=True)
                expected += weight[b, 0, y, column].item() * contribution.item()
    assert grad_f.item() == pytest.approx(expected, rel=1e-9)
    assert abs(grad_f.item() / plain_f.item() - 1) > 1e-3


@pytest.mark.parametrize("resampled", RESAMPLINGS.values(), ids=RESAMPLINGS)
def test_weights_of_one_and_of_zero(resampled) -> None:
    x, factor = feature_map(2, 1, 5, 6), scalar(1.37)
    ones = torch.ones(2, 1, *resampled(x, factor).shape[2:])
    assert torch.autograd.gradcheck(lambda u, g: resampled(u, g, weight=ones), (x, factor))
    with_ones, without = (gradients(resampled(x, factor, weight=w), x, factor)[1] for w in (ones, None))
    assert torch.equal(with_ones[0], without[0])
    assert with_ones[1].item() == pytest.approx(without[1].item(), rel=1e-12)
    assert gradients(resampled(x, factor, weight=0 * ones), factor)[1][0] == 0


def test_a_layer_weighs_pixels_by_their_labels_while_they_are_shown() -> None:
    """Both layers of a path, each at the size of its own target."""
    labels = torch.zeros(2, 20, 28, dtype=torch.int64)
    labels[:, 7:, 10:] = 1
    factor, where = InflationFactor(1.37, learned=True).double(), LabelWeight((0,), 0.25)
    x, pixels = feature_map(2, 2, 5, 7), (20, 28)
    inflation, interpolation = Inflation(factor, pixel_weight=where), Interpolation(factor, 4, pixel_weight=where)
    with guided(where, labels):
        weights = where((7, 10)), where(pixels)
        shown = [gradients(layer, x, factor.f)[1] for layer in (inflation(x), interpolation(x, pixels))]
    hidden = [gradients(layer, x, factor.f)[1] for layer in (inflation(x), interpolation(x, pixels))]
    f = factor.f
    expected = [inflate(x, f, pixel_weight=weights[0]), interpolate(x, f, 4, pixels, pixel_weight=weights[1])]
    for mine, without, output in zip(shown, hidden, expected, strict=True):
        assert torch.equal(mine[0], without[0])
        assert mine[1] == gradients(output, f)[1][0]
        assert mine[1] != without[1]


def test_no_gradient_beyond_the_last_pixel() -> None:
    """At f = 3 and stride 2, label pixels from 3 on lie beyond a 5 px map and repeat its last pixel."""
    x, factor = feature_map(1, 1, 5, 1), scalar(3.0)
    output = interpolate(x, factor, 2, (8, 1))
    assert torch.equal(output[0, 0, 3:, 0], x[0, 0, -1:, 0].expand(5))
    (clamped,) = torch.autograd.grad(output[0, 0, 3:].sum(), factor, retain_graph=True)
    (free,) = torch.autograd.grad(output[0, 0, 1].sum(), factor)
    assert clamped == 0
    assert free.item() == pytest.approx((x[0, 0, 2, 0] - x[0, 0, 1, 0]).item() / 2)


def test_autocast_and_half_precision() -> None:
    x, f = feature_map(2, 3, 6, 7, dtype=torch.float32), scalar(1.37, torch.float32)
    expected = inflate(x, f)
    with torch.autocast("cpu", torch.bfloat16):
        single = inflate(x, f)
        half = inflate(x.bfloat16(), f)
    assert torch.equal(single, expected)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.02)
    _, (grad_x, grad_f) = gradients(expected, x, f)
    _, (half_x, half_f) = gradients(half, x, f)
    assert (half_x.dtype, half_f.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(half_x, grad_x, atol=0.05, rtol=0.02)
    torch.testing.assert_close(half_f, grad_f, atol=0.1, rtol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu() -> None:
    x, f = feature_map(2, 3, 6, 7), scalar(1.37)
    expected = (inflate(x, f), *gradients(inflate(x, f), x, f)[1])
    there, f_there = x.detach().cuda().requires_grad_(), f.detach().cuda().requires_grad_()
    output = inflate(there, f_there)
    grad = gradients(inflate(x, f), x)[0].cuda()
    for one, other in zip((output, *torch.autograd.grad(output, (there, f_there), grad)), expected, strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_projection_clamps_the_value_and_leaves_the_gradient_alive() -> None:
    factor = InflationFactor(3.9, learned=True)
    torch.optim.SGD([factor.f], lr=1.0).step(lambda: (-factor.f).backward())
    assert factor.f.item() > 4
    assert torch.autograd.grad(inflate(torch.arange(9.0).reshape(1, 1, 3, 3), factor.f).sum(), factor.f)[0] != 0
    factor.project_()
    assert factor.f.item() == 4
    assert torch.autograd.grad(inflate(torch.arange(9.0).reshape(1, 1, 3, 3), factor.f).sum(), factor.f)[0] != 0
    with torch.no_grad():
        factor.f.fill_(0.1)
    factor.project_()
    assert factor.f.item() == 0.25


@pytest.mark.parametrize("f", FACTORS)
def test_resampling_in_pieces_equals_resampling_at_once(f: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def resampled() -> tuple[Tensor, ...]:
        x, factor = feature_map(2, 7, 5, 6), scalar(f)
        wide = inflate(x, factor)
        output = interpolate(wide, factor, 1, (5, 6))
        _, (grad_x, grad_f) = gradients(output, x, factor)
        return wide, output, grad_x, grad_f

    at_once = resampled()
    several = math.prod(inflated_size((5, 6), max(1, f))) * 3 / torch.get_num_threads()  # 14 maps are no multiple of 3
    monkeypatch.setattr(resampling, "_CACHED", several)
    for piecewise, whole in zip(resampled(), at_once, strict=True):
        torch.testing.assert_close(piecewise, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("f", "most"), [(0.7, 1.1), (1.3, 1.2), (2.6, 1.1)])
@pytest.mark.parametrize("border", BORDERS)
def test_resampling_holds_little_memory_besides_its_maps(
    f: float, most: float, border: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward hold the output, its gradient, the inflated map's and the map's; pieces come on top."""
    monkeypatch.setattr(resampling, "_CACHED", 2 * resampling._CACHED / torch.get_num_threads())
    x, factor = torch.zeros(2, 128, 63, 63, requires_grad=True), scalar(f, torch.float32)
    with Meter() as meter:
        output = interpolate(inflate(x, factor, border=border), factor, 1, (63, 63), border=border)
        output.backward(torch.ones_like(output))
    maps = 4 * 2 * 128 * (3 * 63**2 + inflated_size((63,), f, border)[0] ** 2)
    assert maps < meter.metered.peak_bytes < most * maps


def test_a_sum_of_products_beyond_what_blas_counts_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = feature_map(3, 7), feature_map(7, 3).T
    expected = (a * b).sum()
    monkeypatch.setattr(precision, "_BLAS", 4)
    torch.testing.assert_close(precision.inner_product(a, b), expected)
    assert precision.inner_product(a[:0], b[:0]) == 0


def test_state_dict_keeps_value_and_bounds() -> None:
    saved = io.BytesIO()
    torch.save(InflationFactor(1.5, learned=True, bounds=(0.5, 2.0)).state_dict(), saved)
    saved.seek(0)
    factor = InflationFactor(learned=True)
    factor.load_state_dict(torch.load(saved, weights_only=True))
    assert factor.f.item() == 1.5
    assert factor.bounds.tolist() == [0.5, 2.0]
    with torch.no_grad():
        factor.f.fill_(3.0)
    factor.project_()
    assert factor.f.item() == 2.0


def test_learned_is_a_switch_of_the_gradient() -> None:
    assert InflationFactor().f.requires_grad is False
    assert InflationFactor(learned=True).f.requires_grad is True


@pytest.mark.parametrize(("f", "closest"), [(4.5, "4.0"), (0.1, "0.25")])
def test_a_start_out_of_bounds_is_refused(f: float, closest: str) -> None:
    with pytest.raises(SpaceError, match=rf"Got f={f}\. Nearest legal: {closest}"):
        InflationFactor(f)


def test_wrong_requests_are_refused() -> None:
    x = torch.zeros(1, 1, 3, 3)
    with pytest.raises(SpaceError, match="0 < low <= high"):
        InflationFactor(bounds=(2.0, 1.0))
    with pytest.raises(SpaceError, match="greater than 0"):
        inflate(x, torch.tensor(-1.0))
    with pytest.raises(TrialError, match="diverged"):
        inflate(x, torch.tensor(math.nan))
    with pytest.raises(ModelError, match="one number"):
        inflate(x, torch.tensor([1.0, 2.0]))
    with pytest.raises(ModelError, match=r"floating-point type. Got torch.int64"):
        inflate(x.long(), 1.5)
    with pytest.raises(ModelError, match=r"\(3, 3\)"):
        inflate(x[0, 0], torch.tensor(1.5))
    with pytest.raises(ModelError, match="at least 1 px"):
        inflate(x[:, :, :0], torch.tensor(1.5))
    with pytest.raises(ModelError, match="B x C x L.*\\(1, 1, 1, 1, 3, 3\\)"):
        inflate(x[None, None], torch.tensor(1.5))
    with pytest.raises(ModelError, match="one size per axis"):
        interpolate(x, 1.5, 1, (3,))
    with pytest.raises(ModelError, match="one size per axis"):
        interpolate(x, 1.5, 1, (3, 3), plain=(3,))
    with pytest.raises(ModelError, match="2-D maps only"):
        inflate(x[0], 1.5, pixel_weight=torch.ones(1, 1, 4))
    with pytest.raises(ModelError, match="2-D maps only"):
        Inflation(InflationFactor(1.5), pixel_weight=LabelWeight([0], 0.5))(x[0])
    with pytest.raises(SpaceError, match="Did you mean 'paper'"):
        Inflation(InflationFactor(), "papers")
    with pytest.raises(SpaceError, match="Unknown border 'continous'. Did you mean 'continuous'"):
        Interpolation(InflationFactor(), 1, border="continous")
    with pytest.raises(SpaceError, match="Unknown padding 'reflect'"):
        inflate(x, 1.5, padding="reflect")


def test_without_a_stride_the_map_spans_the_label_map():
    """Its outermost pixels land on the label map's (eq. 8, F = (h - 1) / (H - 1)), whatever f is."""
    ramp = torch.arange(5.0)[:, None] + 10 * torch.arange(5.0)
    expected = F.interpolate(ramp[None, None], size=(13, 13), mode="bilinear", align_corners=True)
    for f in (1.0, 2.0, 3.0):
        factor = InflationFactor(f)
        spanned = Interpolation(factor, None)(Inflation(factor)(ramp[None, None]), (13, 13), (5, 5))
        torch.testing.assert_close(spanned, expected)


def test_without_a_stride_one_axis_sets_it_and_no_label_lies_behind_the_map():
    layer = Interpolation(InflationFactor(), None)
    assert layer.stride_between((375, 500), (49, 65)) == 499 / 64
    assert layer.stride_between((60, 500), (6, 65)) == 59 / 5
    assert layer.stride_between((1, 1), (1, 1)) == 1
    with pytest.raises(ModelError, match="without a stride needs the size that its map has at f = 1"):
        layer(torch.zeros(1, 1, 4, 4), (8, 8))


def test_without_a_stride_f_gets_the_gradient_of_that_stride():
    torch.manual_seed(0)
    x, goal = torch.randn(1, 2, 12, 12), torch.randn(1, 2, 33, 33)
    found = []
    for stride in (None, 32 / 8):
        factor = InflationFactor(1.3, learned=True)
        (Interpolation(factor, stride)(x, (33, 33), (9, 9)) - goal).square().mean().backward()
        found.append(factor.f.grad)
    assert found[0] == found[1] != 0
