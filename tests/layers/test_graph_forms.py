"""What layers are in an exported graph computes what they compute: on every size, and without a trace of the size."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from rfsearch.layers import FractionalConv2d, inflate, interpolate
from rfsearch.layers.dynamic_filter import dynamic_filter
from rfsearch.layers.filter_graph import filter_in_graph
from rfsearch.layers.gathering import gather, multiple
from rfsearch.layers.inflation import inflated_size
from rfsearch.layers.plain_convolutions import plain_form
from tests.references.lsdfn_loops import dynamic_filter as filter_by_loops


def conv(k, stride=1, padding="same", groups=1, mode="zeros") -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(4, 6, k, stride, padding, groups=groups, padding_mode=mode)


@pytest.mark.parametrize("way", ["one", "four", "read"])
@pytest.mark.parametrize("dilation", [1.3, 2.5, 4.0, (1.5, 3.0)], ids=str)
@pytest.mark.parametrize(
    ("k", "stride", "padding", "groups", "mode"),
    [
        (3, 1, "same", 1, "zeros"),
        (3, 2, 1, 2, "zeros"),
        (2, 1, "same", 1, "zeros"),
        ((1, 3), (3, 2), (0, 2), 1, "zeros"),
        (3, 1, "valid", 1, "zeros"),
        (3, 2, 2, 1, "reflect"),
        (5, 2, 2, 1, "replicate"),
    ],
    ids=str,
)
def test_plain_convolutions_are_one_at_a_real_dilation_on_maps_of_all_sizes(
    way, dilation, k, stride, padding, groups, mode
):
    layer = FractionalConv2d(
        conv(k, stride, padding, groups, mode), dilation, learned=False, shared=not isinstance(dilation, tuple)
    )
    if way == "four" and max(layer.weight.shape[2:]) > 3:
        pytest.skip("its outer taps move by 2 px between two whole dilations")
    paddings = (layer.padding, layer.padding) if isinstance(layer.padding, str) else layer.padding
    form = plain_form(layer.weight, layer.read_dilation(), layer.stride, paddings, layer.padded_for, groups, mode, way)
    assert form.way == way
    for size in ((17, 22), (18, 21), (19, 23)):
        x = torch.randn(2, 4, *size)
        torch.testing.assert_close(form(x, layer.bias), layer(x), rtol=0, atol=1e-5)


def test_few_outputs_are_multiplied_and_many_are_read():
    """Reading costs for each channel of the map, multiplying for each output too."""
    ways = {}
    for outputs, dilation in ((8, 1.4), (8, 4.4), (512, 1.4), (512, 4.4)):
        layer = FractionalConv2d(nn.Conv2d(4, outputs, 3, padding="same"), dilation, learned=False)
        ways[outputs, dilation] = layer.plain_form().way
    assert ways == {(8, 1.4): "one", (8, 4.4): "four", (512, 1.4): "read", (512, 4.4): "read"}


@pytest.mark.parametrize(("s", "k", "gamma"), [(3, 3, 2.0), (3, 3, 1.7), (1, 5, 1.0), (5, 1, 0.6), (3, 3, 40.0)])
def test_a_filter_in_a_graph_is_the_layers_and_the_literal_one(s, k, gamma):
    torch.manual_seed(0)
    batch, features, outputs, height, width = 2, 3, 2, 7, 9
    x = torch.randn(batch, features, height, width)
    u = torch.randn(batch, height, width, outputs, features)
    v, a = (torch.randn(batch, k * k, outputs, height, width) for _ in range(2))
    sampling = torch.randn(batch, s * s, outputs, height, width)
    got = filter_in_graph(x, u, v, sampling, a, gamma, None, None)
    torch.testing.assert_close(got, dynamic_filter(x, u, v, sampling, a, gamma), rtol=0, atol=1e-4)
    if gamma < 40:
        literal = filter_by_loops(x, u, v, sampling, a, gamma)
        torch.testing.assert_close(got, literal.to(got), rtol=0, atol=1e-4)


@pytest.mark.parametrize("f", [0.25, 0.8, 1.1999, 1.3, 4.0])
def test_gathered_maps_are_the_resampled_ones(f):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 11, 14)
    size = inflated_size(x.shape[2:], f)
    torch.testing.assert_close(gather(x, size, 1 / f, None, True), inflate(x, f), rtol=0, atol=1e-5)
    y = torch.randn(2, 3, *size)
    last = [torch.tensor([4.0 * (n - 1)]) for n in x.shape[2:]]
    torch.testing.assert_close(
        gather(y, (44, 53), f / 4, last, False), interpolate(y, f, 4, (44, 53), plain=x.shape[2:]), rtol=0, atol=1e-5
    )
    paper = interpolate(y, f, 4, (44, 53), border="paper")
    torch.testing.assert_close(gather(y, (44, 53), f / 4, None, False), paper, rtol=0, atol=1e-5)


def test_places_far_out_are_as_exact_as_near_ones():
    """In single precision, 4095 times a step alone would be off by 1e-4 px."""
    ramp = torch.arange(4096.0, dtype=torch.float32).reshape(1, 1, 1, -1) % 2
    step = 0.7310585975646973
    places = torch.arange(4096, dtype=torch.float64) * step
    before = places.floor().long()
    expected = torch.lerp(ramp[0, 0, 0].double()[before], ramp[0, 0, 0].double()[before + 1], places - before)
    got = gather(ramp, (1, 4096), step, None, False)[0, 0, 0]
    assert (got - expected).abs().max() < 3e-6


@pytest.mark.parametrize("f", [0.25, 0.8, 1.2, 1.37, 2.0, 3.99])
def test_multiples_of_open_sizes_round_as_those_of_known_ones(f):
    """f as single precision keeps it: 0.8 is a little more than 4/5, and 5 x 0.8 is 4 all the same."""
    kept = torch.tensor(f).item()
    for n in (*range(300), 4095, 8191):
        exact = Fraction(kept) * n
        whole = round(exact)
        near = abs(exact - whole) <= exact / 2**23
        assert multiple(n, kept, up=True) == (whole if near else math.ceil(exact))
        assert multiple(n, kept, up=False) == (whole if near else math.floor(exact))
