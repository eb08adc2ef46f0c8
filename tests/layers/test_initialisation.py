"""Low-centre initialisation against taps worked out by hand, and the wider field it is for."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from rfsearch.errors import ModelError
from rfsearch.layers.initialisation import low_centre_
from rfsearch.receptive.effective import effective_receptive_field


def test_a_tap_counts_by_its_distance_from_the_centre():
    layer = nn.Conv2d(1, 1, 3, bias=False).double()
    nn.init.ones_(layer.weight)
    low_centre_(layer, ratio=0.25)
    edge = 0.25 + 0.75 / math.sqrt(2)
    taps = np.array([[1, edge, 1], [edge, 0.25, edge], [1, edge, 1]])
    np.testing.assert_allclose(layer.weight[0, 0].detach(), taps * math.sqrt(9 / (taps**2).sum()), rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "distances"),
    [
        (nn.Conv1d(1, 1, 5), [1, 0.5, 0, 0.5, 1]),
        (nn.Conv1d(1, 1, 4), [1, 1 / 3, 1 / 3, 1]),
        (nn.Conv2d(1, 1, (1, 3)), [[1, 0, 1]]),
    ],
)
def test_one_axis_counts_alone(layer, distances):
    nn.init.ones_(layer.weight)
    low_centre_(layer, ratio=0.4)
    got = layer.weight[0, 0].detach()
    np.testing.assert_allclose(got / got.max(), 0.4 + 0.6 * torch.tensor(distances), rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 4, 5),
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, (3, 5), groups=4),
        nn.Conv3d(2, 2, 3),
        nn.Conv2d(3, 4, 2),
    ],
)
def test_every_kernel_keeps_its_size_its_signs_and_its_bias(layer):
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    low_centre_(nn.Sequential(nn.ReLU(), nn.Sequential(layer)))
    after = layer.weight.detach()
    size = [w.flatten(2).square().sum(2) for w in (before, after)]
    torch.testing.assert_close(size[1], size[0], rtol=1e-5, atol=0)
    assert torch.equal(after.sign(), before.sign())
    assert torch.equal(layer.bias, bias)
    assert layer.weight.requires_grad
    if max(layer.kernel_size) > 2:  # all four taps of a 2 x 2 kernel are corners
        assert not torch.allclose(after, before)


def test_single_taps_zeros_and_lone_centres_stay_as_they_are():
    single, zeros, lone = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    nn.init.zeros_(zeros.weight)
    nn.init.dirac_(lone.weight)
    model = nn.Sequential(single, zeros, lone, nn.Linear(3, 3), nn.ConvTranspose2d(2, 2, 3))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    low_centre_(model)
    for now, then in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(now.detach(), then)


def test_a_ratio_of_one_changes_nothing():
    layer = nn.Conv2d(3, 4, 5)
    before = layer.weight.detach().clone()
    low_centre_(layer, ratio=1)
    torch.testing.assert_close(layer.weight.detach(), before)


@pytest.mark.parametrize("ratio", [0, -0.5, 1.5, float("nan")])
def test_a_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(ModelError, match=f"above 0 and at most 1.*Got {ratio}"):
        low_centre_(nn.Conv2d(1, 1, 3), ratio)


def test_it_widens_the_effective_field_by_as_much_as_its_docstring_says():
    """Variance of position of the taps' energy, 0.80 px^2 an axis against 2/3: 1.10 times as wide."""
    widths = {False: 0.0, True: 0.0}
    for seed in range(16):
        for low in widths:
            torch.manual_seed(seed)
            model = nn.Sequential(*[nn.Conv2d(8 if i else 1, 8, 3, padding=1, bias=False) for i in range(10)])
            if low:
                low_centre_(model)
            field = effective_receptive_field(model, 1, input_shape=(1, 1, 45, 45))
            widths[low] += sum(sigma**2 for sigma in field.sigma)
    assert math.sqrt(widths[True] / widths[False]) == pytest.approx(1.10, abs=0.04)
