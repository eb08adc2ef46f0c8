"""The effective receptive field against kernels convolved by scipy, closed forms, and the findings of Luo et al."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import signal
from torch import nn
from torchvision.models import VisionTransformer

from rfsearch.errors import ModelError
from rfsearch.receptive.effective import EffectiveField, effective_receptive_field

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
LINEAR = nn.Identity


def uniform(kernel: int = 3, axes: int = 2, stride: int = 1, dilation: int = 1) -> nn.Module:
    """One channel, every tap 1 / taps, in double precision."""
    layer = CONVOLUTIONS[axes](1, 1, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation, bias=False)
    nn.init.constant_(layer.weight, kernel**-axes)
    return layer.double()


def random_stack(
    depth: int, activation: Callable[[], nn.Module] = LINEAR, seed: int = 0, channels: int = 8
) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(depth):
        layer = nn.Conv2d(channels if number else 1, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if activation is nn.ReLU else "linear")
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def one(model: nn.Module, *size: int, **options) -> EffectiveField:
    return effective_receptive_field(model, 1, input_shape=(1, 1, *size), **options)


def spread(field: EffectiveField) -> np.ndarray:
    """The standard deviation of the map itself, px an axis."""
    places = np.indices(field.map.shape).reshape(field.map.ndim, -1)
    shares = field.map.ravel()
    centre = places @ shares
    return np.sqrt((places - centre[:, None]) ** 2 @ shares)


def test_one_uniform_convolution_has_its_kernel_as_its_field():
    field = one(uniform(5), 21, 17)
    expected = np.zeros((21, 17))
    expected[8:13, 6:11] = 1 / 25
    np.testing.assert_allclose(field.map, expected, atol=1e-15)
    assert field.size_px == 5


@pytest.mark.parametrize("depth", [1, 4, 10])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_stack_of_uniform_convolutions_is_the_kernel_convolved_with_itself(axes, depth):
    side = 2 * depth + 5
    field = one(nn.Sequential(*[uniform(3, axes) for _ in range(depth)]), *[side] * axes)
    expected = np.ones([1] * axes)
    for _ in range(depth):
        expected = signal.convolve(expected, np.full([3] * axes, 3.0**-axes))
    np.testing.assert_allclose(field.map, np.pad(expected, 2), atol=1e-14)
    counted = (expected > 0.0455 * expected.max()).sum()
    assert field.size_px == pytest.approx(counted ** (1 / axes), rel=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_deep_uniform_stack_is_a_gaussian_of_the_closed_form_width(kernel):
    depth = 20
    field = one(nn.Sequential(*[uniform(kernel) for _ in range(depth)]), 101, 101)
    assert field.sigma_from == "fit"
    assert field.r2 > 0.9995
    assert field.sigma == pytest.approx([math.sqrt(depth * (kernel**2 - 1) / 12)] * 2, rel=0.015)
    assert field.centre == pytest.approx([50, 50], abs=1e-6)


@pytest.mark.parametrize(("axes", "sigmas"), [(1, (3.0,)), (2, (2.0, 3.5)), (3, (1.5, 2.0, 2.5))])
def test_a_gaussian_kernel_is_fitted_to_its_own_sigma_and_place(axes, sigmas):
    blurs = []
    for axis, sigma in enumerate(sigmas):
        side = 10 * math.ceil(sigma) + 1
        extents = [side if a == axis else 1 for a in range(axes)]
        blur = CONVOLUTIONS[axes](1, 1, extents, padding=[extent // 2 for extent in extents], bias=False).double()
        bell = torch.exp(-((torch.arange(side) - side // 2) ** 2) / (2 * sigma**2))
        blur.weight.data[0, 0] = bell.reshape(extents)
        blurs.append(blur)
    field = one(nn.Sequential(*blurs), *[10 * math.ceil(sigma) + 7 for sigma in sigmas])
    assert field.sigma == pytest.approx(sigmas, rel=1e-5)
    assert field.r2 == pytest.approx(1, abs=1e-8)
    mean = math.prod(sigmas) ** (1 / axes)
    assert field.gaussian_px == pytest.approx(4 * mean, rel=1e-5)
    # The volume of an ellipsoid whose half axes are sqrt(2 ln (1 / 0.0455)) sigma.
    ball = {1: 2.0, 2: math.pi, 3: 4 / 3 * math.pi}[axes]
    assert field.size_px == pytest.approx(2.486 * mean * ball ** (1 / axes), rel=0.03)


def test_the_map_sums_channels_and_averages_inputs_by_size():
    """y = conv(x^2): dy/dx = 2 x w, different for every input; the two channels of y share the unit."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 3, padding=1, dtype=torch.float64)

    class Squared(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return layer(x**2)

    inputs = torch.randn(5, 3, 7, 9, dtype=torch.float64)
    field = effective_receptive_field(Squared(), inputs)
    expected = torch.zeros(7, 9, dtype=torch.float64)
    around = inputs[:, :, 2:5, 3:6]
    expected[2:5, 3:6] = (2 * around * layer.weight.detach().sum(0)).abs().sum((0, 1))
    np.testing.assert_allclose(field.map, expected / expected.sum(), atol=1e-14)


def test_the_ratio_to_the_theoretical_field_falls_as_one_over_the_root_of_the_depth():
    depths = np.array([5, 10, 20, 40])
    stacks = [nn.Sequential(*[uniform() for _ in range(depth)]) for depth in depths]
    fields = [one(m, 95, 95, theoretical_px=2 * int(n) + 1) for m, n in zip(stacks, depths, strict=True)]
    ratios = [field.ratio for field in fields]
    assert ratios == [field.size_px / (2 * n + 1) for field, n in zip(fields, depths, strict=True)]
    slope = np.polyfit(np.log(depths), np.log(ratios), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)
    growth = np.polyfit(np.log(depths), np.log([field.size_px for field in fields]), 1)[0]
    assert growth == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("activation", [LINEAR, nn.ReLU, nn.Tanh, nn.Sigmoid])
@pytest.mark.parametrize("depth", [8, 16])
def test_random_weights_give_a_gaussian_whatever_the_activation(activation, depth):
    """The variance of a gradient is the uniform stack's Gaussian; its size is the root of that: sqrt(2) as wide."""
    fields = [one(random_stack(depth, activation, seed), 2 * depth + 31, 2 * depth + 31) for seed in range(16)]
    mean = np.mean([field.map for field in fields], axis=0)
    expected = math.sqrt(depth * (3**2 - 1) / 6)
    assert np.mean([field.sigma for field in fields]) == pytest.approx(expected, rel=0.08)
    offsets = np.indices(mean.shape) - mean.shape[0] // 2
    bell = np.exp(-(offsets**2).sum(0) / (2 * expected**2))
    assert np.corrcoef(mean.ravel(), bell.ravel())[0, 1] > 0.95


def test_subsampling_and_dilation_enlarge_the_field_as_their_variances_add_up():
    plain = one(nn.Sequential(*[uniform() for _ in range(4)]), 127, 127)
    dilated = one(nn.Sequential(*[uniform(dilation=d) for d in (1, 2, 4, 8)]), 127, 127)
    subsampled = one(nn.Sequential(*[uniform(stride=2) for _ in range(4)]), 127, 127)
    one_layer = (3**2 - 1) / 12
    assert spread(plain) == pytest.approx([math.sqrt(4 * one_layer)] * 2)
    assert spread(dilated) == pytest.approx([math.sqrt((1 + 4 + 16 + 64) * one_layer)] * 2)
    assert spread(subsampled) == pytest.approx([math.sqrt((1 + 4 + 16 + 64) * one_layer)] * 2)
    assert dilated.size_px > 3 * plain.size_px
    assert subsampled.size_px > 3 * plain.size_px


def test_skip_connections_shrink_the_field():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = uniform()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.layer(x)

    plain = one(nn.Sequential(*[uniform() for _ in range(10)]), 41, 41)
    skipped = one(nn.Sequential(*[Residual() for _ in range(10)]), 41, 41)
    # Half of every layer's weight stays where it is: half the variance.
    assert spread(skipped) == pytest.approx(spread(plain) / math.sqrt(2))
    assert skipped.size_px < 0.85 * plain.size_px


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    model = VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    nn.init.normal_(model.heads.head.weight)  # torchvision's start at 0
    return model


@pytest.mark.parametrize("at", ["encoder.layers", None])
def test_a_vision_transformer_sees_the_whole_image(transformer, at):
    field = effective_receptive_field(transformer, 3, input_shape=(1, 3, 32, 32), at=at)
    assert field.map.shape == (32, 32)
    assert field.map.min() > 0
    patches = field.map.reshape(4, 8, 4, 8).sum((1, 3))
    if at:  # a token, the one in row 2 and column 2 of 4 x 4 behind the class token, depends on its own patch most
        assert np.unravel_index(patches.argmax(), patches.shape) == (2, 2)
    assert patches.min() > 1e-5


class Tokens(nn.Module):
    """Patches of an image as tokens that do not mix, behind `leading` empty ones."""

    def __init__(self, patch: int, leading: int) -> None:
        super().__init__()
        self.project, self.leading = nn.Conv2d(1, 2, patch, patch), leading

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.project(x).flatten(2).mT
        return torch.cat([tokens.new_zeros(len(x), self.leading, 2), tokens], 1)


@pytest.mark.parametrize("leading", [0, 1, 2, 5])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (6, 2)])
def test_the_centre_token_is_that_of_the_grid(leading, grid):
    rows, columns = grid
    field = one(Tokens(4, leading), 4 * rows, 4 * columns)
    patches = field.map.reshape(rows, 4, columns, 4).sum((1, 3))
    assert patches[rows // 2, columns // 2] == pytest.approx(1)


class Attention(nn.Module):
    """Means of patches of 4 px as tokens behind `leading` empty ones, each plus the mean over all or over its window.

    Queries of 0 weigh all keys alike.
    """

    def __init__(self, leading: int = 0, window: int | None = None) -> None:
        super().__init__()
        self.project, self.leading, self.window = uniform(4, stride=4), leading, window
        self.project.padding = (0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.project(x.double())
        if side := self.window:
            cut = x.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4).flatten(4)[..., None]
            mixed = nn.functional.scaled_dot_product_attention(cut * 0, cut, cut)[..., 0].unflatten(-1, (side, side))
            return (x + mixed.transpose(3, 4).reshape(x.shape)).movedim(1, -1)
        tokens = torch.cat([x.new_zeros(len(x), self.leading, 1), x.flatten(2).mT], 1)
        return tokens + nn.functional.scaled_dot_product_attention(tokens * 0, tokens, tokens)


@pytest.mark.parametrize("leading", [0, 1, 5])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (5, 6), (8, 1)])
def test_attention_to_all_gives_its_own_patch_a_peak_and_every_other_the_same_share(leading, grid):
    """1 + 1/n for its own patch and 1/n for each other, n tokens with leading ones: below 4.55 % of the peak from 21
    tokens on, so that the size is the whole image's before and the patch's from then on."""
    (rows, columns), tokens = grid, math.prod(grid) + leading
    field = one(Attention(leading), 4 * rows, 4 * columns)
    expected = np.full(grid, 1 / tokens)
    expected[rows // 2, columns // 2] += 1
    np.testing.assert_allclose(field.map, np.kron(expected / expected.sum(), np.full((4, 4), 1 / 16)), atol=1e-12)
    assert field.size_px == pytest.approx(4 if tokens >= 21 else 4 * math.sqrt(rows * columns))


def test_attention_within_windows_leaves_the_rest_of_the_image_at_nothing():
    """The centre, unit (3, 2) of 6 x 4, lies in the window of rows 2 to 3 and columns 2 to 3."""
    expected = np.zeros((6, 4))
    expected[2:4, 2:4] = 1 / 4
    expected[3, 2] += 1
    field = one(Attention(window=2), 24, 16)
    np.testing.assert_allclose(field.map, np.kron(expected / 2, np.full((4, 4), 1 / 16)), atol=1e-12)
    assert field.size_px == pytest.approx(8)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (36, 28), (31, 20)])
def test_a_map_whose_channels_are_last_is_measured_at_its_centre_too(height, width):
    """Swin's maps are like this. The 24 channels cannot be an axis: they would need another stride than the rows."""
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 24, 3, 4, padding=1)

    class ChannelsLast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return layer(x).movedim(1, -1)

    np.testing.assert_array_equal(one(ChannelsLast(), height, width).map, one(layer, height, width).map)


def test_a_map_stays_channels_first_where_both_orders_are_possible_or_neither_is():
    """Strides of 8 x 2 leave 4 x 16 units of 32 x 32 px, and neither 4 x 16 nor 24 x 4 has one stride."""
    layer = nn.Conv2d(1, 24, 3, (8, 2), padding=1)
    field = one(layer, 32, 32)
    assert np.argwhere(field.map).min(0).tolist() == [15, 15]
    for channels in (1, 2, 16):
        layer = nn.Conv2d(1, channels, 3, 2, padding=1)
        assert np.argwhere(one(layer, 32, 32).map).min(0).tolist() == [15, 15]


def test_batches_and_images_drawn_do_not_depend_on_each_other():
    model = random_stack(4, nn.ReLU)
    fields = [
        effective_receptive_field(model, 7, input_shape=(1, 1, 19, 19), batch_size=size, seed=3) for size in (1, 3, 50)
    ]
    np.testing.assert_allclose(fields[1].map, fields[0].map, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(fields[2].map, fields[0].map, rtol=1e-4, atol=1e-9)
    other = effective_receptive_field(model, 7, input_shape=(1, 1, 19, 19), seed=4)
    assert np.abs(other.map - fields[0].map).max() > 1e-4


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 2, 1))
    model.train()
    model[1].eval()  # a frozen one
    model[0].weight.grad = torch.full_like(model[0].weight, 7)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = torch.randn(3, 1, 9, 9, requires_grad=True)
    random_state = torch.get_rng_state()
    with torch.no_grad():
        first = effective_receptive_field(model, inputs, at="0")
    np.testing.assert_array_equal(first.map, effective_receptive_field(model, inputs, at="0").map)
    with pytest.raises(ModelError):
        effective_receptive_field(model, torch.ones(1, 5, 9, 9), at="0")
    effective_receptive_field(model, 2, input_shape=(1, 1, 9, 9))
    assert [module.training for module in model] == [True, False, True, True]
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model[0].weight.grad.eq(7).all()
    assert model[3].weight.grad is None
    assert inputs.grad is None
    assert not model[0]._forward_hooks
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_map_is_named_by_out_or_by_a_module():
    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = uniform(3), uniform(5)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            x = self.first(x)
            return {"aux": x, "out": self.second(x)}

    assert np.count_nonzero(one(Segmenter(), 15, 15).map) == 7**2
    assert np.count_nonzero(one(Segmenter(), 15, 15, at="first").map) == 3**2


@pytest.mark.filterwarnings("error")
def test_where_no_gaussian_fits_sigma_is_the_maps_own():
    point = one(nn.Conv2d(1, 1, 1), 9, 9)
    assert (point.sigma_from, point.sigma, point.centre, point.size_px) == ("moments", (0, 0), (4, 4), 1)
    pair = nn.Conv1d(1, 1, 2, bias=False)
    nn.init.ones_(pair.weight)
    field = one(pair, 9)  # through two pixels go many Gaussians
    assert (field.sigma_from, field.sigma) == ("moments", (0.5,))
    line = one(nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), 9, 9)
    assert line.sigma_from == "moments"
    assert line.sigma == pytest.approx(spread(line), abs=1e-6)
    flat = one(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 12, 20)
    assert (flat.sigma_from, flat.r2) == ("moments", None)
    assert flat.sigma == pytest.approx([math.sqrt((side**2 - 1) / 12) for side in (12, 20)])
    assert flat.size_px == pytest.approx(math.sqrt(12 * 20))


def test_the_theoretical_field_may_differ_by_axis():
    model = nn.Conv2d(1, 1, (3, 5), padding=(1, 2), bias=False)
    nn.init.ones_(model.weight)
    assert one(model, 9, 9, theoretical_px=(3, 5)).ratio == pytest.approx(1)
    assert one(model, 9, 9, theoretical_px=math.sqrt(15)).ratio == pytest.approx(1)
    assert one(model, 9, 9).ratio is None
    with pytest.raises(ModelError, match="one for each of 2 axes. Got \\(3, 5, 7\\)"):
        one(model, 9, 9, theoretical_px=(3, 5, 7))


class Gives(nn.Module):
    """Returns what a function makes of a convolution's output."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, padding=1)
        self.unused = nn.ReLU()
        self.function = function

    def forward(self, x: torch.Tensor):
        return self.function(self.layer(x))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y: [1, y], "returns something else there"),
        (lambda y: {"scores": y}, "returns something else there"),
        (lambda y: y.mean(), "no unit in its centre.*output.shape=torch.Size\\(\\[\\]\\)"),
        (lambda y: y[:, :, :0], "no unit in its centre: its shape is \\(1, 4, 0, 8\\)"),
        (lambda y: y.flatten(2)[:, :, :7].mT, "no unit in its centre: 7 tokens"),
        (lambda y: y.unfold(2, 4, 4).unfold(3, 4, 4).reshape(-1, 16, 4), "not one entry per image.*for 1 images"),
        (lambda y: y.flatten(2).permute(2, 0, 1), "not one entry per image"),
        (lambda y: y.detach(), "does not depend on the input: it has no gradient"),
        (lambda y: torch.ones(1, 1, 8, 8, requires_grad=True), "does not depend on the input: no operation"),
        (lambda y: y * 0, "does not depend on the input: its gradient is 0"),
        (lambda y: y.softmax(1), "does not depend on the input: the sum of its channels is constant"),
        (lambda y: nn.functional.layer_norm(y.flatten(2).mT, [4]), "sum of its channels is constant"),
        (lambda y: (y - y.detach()).sqrt(), "gradients of Gives are not finite at 64 of 64 values"),
        (lambda y: y.view(3, 5), "does not run on inputs of 1 x 1 x 8 x 8: shape"),
    ],
)
def test_an_output_without_a_field_is_refused_and_says_why(function, message):
    model = Gives(function)
    with pytest.raises(ModelError, match=message):
        one(model, 8, 8)
    assert model.training


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (torch.ones(1, 8), {}, "N x C x T.*inputs.shape=\\(1, 8\\)"),
        (torch.ones(1, 1, 2, 2, 2, 2), {}, "N x C x D x H x W"),
        (torch.ones(0, 1, 8, 8), {}, "one or more"),
        (torch.ones(1, 1, 8, 8, dtype=torch.uint8), {}, "floating point.*torch.uint8"),
        (20, {}, "20 random inputs of input_shape=None"),
        (0, {"input_shape": (1, 1, 8, 8)}, "one or more"),
        (1, {"input_shape": (1, 1, 8, 8), "at": "layr"}, "Got 'layr'. Did you mean 'layer'"),
        (1, {"input_shape": (1, 1, 8, 8), "at": "unused"}, "'unused' of Gives did not run"),
        (1, {"input_shape": (1, 1, 8, 8), "batch_size": 0}, "batch_size=0"),
    ],
)
def test_a_wrong_request_is_refused(inputs, options, message):
    with pytest.raises(ModelError, match=message):
        effective_receptive_field(Gives(lambda y: y), inputs, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_is_measured_on_another_device_and_moved_back():
    model = random_stack(4, nn.ReLU)
    here = one(model, 19, 19)
    there = one(model, 19, 19, device="cuda")
    np.testing.assert_allclose(there.map, here.map, atol=1e-5)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
