"""The meter against costs counted by hand, on shapes alone, and against operators it does not know."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rfsearch.errors import ModelError
from rfsearch.layers import inflate, inflated_size, interpolate
from rfsearch.training import Meter, register_flop


def flop_of(work) -> float:
    with Meter() as meter:
        work()
    return meter.flop


def test_a_convolution_is_two_flop_a_multiply_add():
    conv = nn.Conv2d(3, 5, (3, 2), bias=False)
    x = torch.zeros(2, 3, 10, 9)
    macs = 2 * 5 * 3 * 3 * 2 * 8 * 8
    with torch.no_grad():
        assert flop_of(lambda: conv(x)) == 2 * macs


def test_backward_of_a_convolution_is_twice_its_forward():
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    x = torch.zeros(1, 4, 8, 8, requires_grad=True)
    forward = 2 * 4 * 4 * 9 * 64
    assert flop_of(lambda: conv(x).sum().backward()) == pytest.approx(3 * forward, rel=0.02)


def test_an_inner_product_is_two_flop_an_element():
    assert flop_of(lambda: torch.dot(torch.ones(7), torch.ones(7))) == 14


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_grouped_convolution_costs_what_it_multiplies_forward_and_backward(groups, kind):
    conv = kind(8, 8, 3, padding=2, dilation=2, stride=1, groups=groups, bias=False)
    x = torch.zeros(2, 8, 9, 9, requires_grad=True)
    forward = 2 * 2 * 8 * (8 // groups) * 9 * 81
    assert flop_of(lambda: conv(x)) == forward
    y = conv(x)
    assert flop_of(lambda: y.backward(torch.zeros_like(y))) == 2 * forward


@pytest.mark.parametrize("f", [0.6, 1.7])
def test_inflation_and_interpolation_are_not_free(f):
    x = torch.zeros(1, 8, 12, 10, requires_grad=True)
    factor = torch.tensor(f, requires_grad=True)
    height, width = inflated_size((12, 10), f)

    def mixed(height: int, width: int) -> int:
        """Each row, then each pixel of it, is a mix of two: a multiply-add each. Columns come first where maps grow."""
        first = 12 * width if height > 12 else height * 10
        return 2 * 8 * (2 * first + 2 * height * width)

    assert flop_of(lambda: inflate(x, f)) == mixed(height, width)
    assert flop_of(lambda: interpolate(x, f, 4, (48, 40))) == mixed(48, 40)
    # forward, its transpose, and as much at least for the gradient in f
    assert flop_of(lambda: inflate(x, factor).sum().backward()) > 3 * mixed(height, width)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False),
        lambda x: F.grid_sample(x, torch.zeros(x.shape[0], 5, 5, 2), align_corners=False),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)),
        lambda x: torch.relu(x),
        lambda x: F.log_softmax(x, dim=1),
    ],
    ids=["interpolate", "grid_sample", "max_pool", "batch_norm", "relu", "log_softmax"],
)
def test_what_torchs_own_counter_scores_zero_is_counted(work):
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(2, 4, 8, 8)
    with FlopCounterMode(display=False) as theirs:
        work(x)
    assert theirs.get_total_flops() == 0
    assert flop_of(lambda: work(x)) >= x.numel() / 4


def test_an_unknown_operator_is_an_error_that_says_how_to_register_it():
    library = torch.library.Library("rfsearch_test", "DEF")
    library.define("odd(Tensor x) -> Tensor")
    library.impl("odd", lambda x: x.clone(), "CPU")
    x = torch.zeros(3, 4)
    with pytest.raises(
        ModelError, match=r'rfsearch_test::odd has no FLOP formula.*register_flop\("rfsearch_test::odd"'
    ):
        flop_of(lambda: torch.ops.rfsearch_test.odd(x))
    register_flop("rfsearch_test::odd", lambda args, kwargs, out: 7.0 * out.numel())
    assert flop_of(lambda: torch.ops.rfsearch_test.odd(x)) == 84.0


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.PReLU(),
        nn.GLU(1),
        nn.GELU(),
        nn.Hardswish(),
        nn.SiLU(),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm(8),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.PixelShuffle(2),
        nn.Unfold(3),
        nn.Upsample(scale_factor=2, mode="bicubic"),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.MultiheadAttention(8, 2, batch_first=True),
    ],
    ids=lambda layer: str(layer).partition("\n")[0],
)
def test_what_networks_are_made_of_has_a_formula(layer):
    x = torch.randn(2, 4, 8, 8, requires_grad=True)

    def work():
        given = (x[:, 0],) * 3 if isinstance(layer, nn.MultiheadAttention) else (x,)
        out = layer(*given)
        (out[0] if isinstance(out, tuple) else out).square().mean().backward()

    assert flop_of(work) > 0


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1)
    )


def step(device: str) -> Meter:
    model = network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x = torch.zeros(2, 3, 16, 16, device=device)
    y = torch.zeros(2, 4, 4, dtype=torch.int64, device=device)
    for _ in range(2):
        optimizer.zero_grad()
        with Meter() as meter:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return meter


def test_shapes_alone_cost_the_same_as_numbers():
    real, shapes = step("cpu"), step("meta")
    assert shapes.flop == real.flop
    assert shapes.metered.peak_bytes == real.metered.peak_bytes


def test_peak_memory_is_the_most_held_at_once():
    x = torch.zeros(1000)  # 4000 bytes, made outside: weighs nothing

    def work():
        a = x + 1  # 4000 held
        b = a + 1  # 8000 held
        del a
        c = b + 1  # 8000 held again
        del b, c

    with Meter() as meter:
        work()
    assert meter.metered.peak_bytes == 8000
