"""The receptive field of a real dilation: that of the plain convolution at whole ones, and in proportion between."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rfsearch.layers import FractionalConv2d
from rfsearch.receptive import receptive_field, receptive_fields
from rfsearch.surgery import set_dilation
from tests.receptive.test_trace import CHANNELS, four, linearised, support

SIZE = (49, 53)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("kernel", "stride", "groups", "dilation"), [(3, 1, 1, 4), ((3, 5), 2, 2, 3), (5, 1, 4, 1)])
def test_at_a_whole_dilation_every_unit_sees_what_it_sees_behind_a_convolution(mode, kernel, stride, groups, dilation):
    sides = [kernel] * 2 if isinstance(kernel, int) else kernel
    conv = nn.Conv2d(4, 8, kernel, stride, [k // 2 for k in sides], groups=groups, padding_mode=mode)
    plain = copy.deepcopy(conv)
    set_dilation(plain, dilation)
    stem = nn.Conv2d(3, 4, 3, 2, padding=1)
    fields = [receptive_field(nn.Sequential(stem, c), (1, 3, *SIZE)) for c in (plain, FractionalConv2d(conv, dilation))]
    assert four(fields[0]) == four(fields[1])
    for one, other in zip(fields[0].axes, fields[1].axes, strict=True):
        np.testing.assert_array_equal(one.windows, other.windows)


@pytest.mark.parametrize("dilation", [1.25, 2.6, (3.5, 1.8)])
def test_a_real_dilation_counts_as_it_is_and_lies_within_the_pixels_that_it_reads(dilation):
    layer = FractionalConv2d(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), dilation, shared=isinstance(dilation, float))
    model = nn.Sequential(nn.AvgPool2d(3), layer, nn.Conv2d(CHANNELS, 1, 1))
    fields = receptive_fields(model, (1, CHANNELS, 90, 96))
    assert list(fields) == ["0", "1", "2", ""]
    both = (dilation, dilation) if isinstance(dilation, float) else dilation
    told = [axis.windows[len(axis.windows) // 2] for axis in fields["1"].axes]
    assert [high - low + 1 for low, high in told] == pytest.approx([3 * (2 * d + 1) for d in both])
    linear = linearised(model)
    with torch.no_grad():
        linear[1].log_dilation.copy_(layer.log_dilation)
    read = support(linear, (90, 96))
    assert all(3 * 2 * d + 3 <= px <= 3 * 2 * (int(d) + 1) + 3 for d, px in zip(both, read, strict=True))


def test_a_model_on_a_device_without_values_keeps_the_dilation_it_had():
    layer = FractionalConv2d(nn.Conv2d(2, 2, 3, padding=1), 2.5)
    with torch.no_grad():
        layer.log_dilation.fill_(np.log(4.5))
    layer(torch.zeros(1, 2, 20, 20))
    assert receptive_field(layer.to("meta"), (1, 2, 20, 20)).local_px == 10
