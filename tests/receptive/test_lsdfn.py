"""The receptive field of an LS-DFN block against the support of its input gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rfsearch.layers import LSDFN
from rfsearch.receptive import receptive_field, receptive_fields
from tests.receptive.test_trace import CHANNELS, four, linearised, support


@pytest.mark.parametrize(
    ("s", "k", "gamma", "stride"), [(1, 3, 4, 1), (3, 1, 2, 1), (3, 3, 1, 2), (5, 3, 3, 1), (5, 3, 2, 2)]
)
def test_the_field_is_the_support_of_the_input_gradient(s: int, k: int, gamma: int, stride: int) -> None:
    block = LSDFN(CHANNELS, CHANNELS, features=3, s=s, k=k, gamma=gamma)
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, stride, padding=1), block, nn.Conv2d(CHANNELS, 1, 1))
    field = receptive_field(model, (1, CHANNELS, 61, 67))
    assert four(field) == (*[3 + (gamma * (s - 1) + k - 1) * stride] * 2, stride, stride)
    assert (field.height_px, field.width_px) == support(linearised(model), (61, 67))


def test_a_real_gamma_counts_as_it_is_and_the_block_is_one_leaf() -> None:
    model = nn.Sequential(nn.AvgPool2d(4), LSDFN(CHANNELS, CHANNELS, features=3, s=5, k=3, gamma=1.5, learned=True))
    fields = receptive_fields(model, (1, CHANNELS, 64, 64))
    assert list(fields) == ["0", "1", ""]
    assert fields["1"].height_px == 4 + (1.5 * 4 + 2) * 4
    with torch.no_grad():
        model[1].stride.gamma.fill_(3.0)
    assert receptive_field(model, (1, CHANNELS, 64, 64)).width_px == 4 + (3 * 4 + 2) * 4
