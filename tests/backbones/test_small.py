"""The small parsing path: sizes, receptive field, and that it and its factor learn."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F

from rfsearch.backbones.small import wei_small
from rfsearch.receptive import receptive_field_at
from rfsearch.surgery import set_dilation


def test_logits_at_the_size_of_the_image() -> None:
    model = wei_small(5, in_channels=1).eval()
    for height, width in ((32, 48), (33, 47)):
        assert model(torch.randn(2, 1, height, width)).shape == (2, 5, height, width)


@pytest.mark.parametrize("dilation", [1, 2, 6])
def test_the_dilation_of_conv6_sets_the_receptive_field(dilation: int) -> None:
    model, shape = wei_small(5), (1, 3, 96, 96)
    set_dilation(model.conv6, dilation)
    assert receptive_field_at(model, shape, "features").px == 15
    assert receptive_field_at(model, shape, "interpolation").px == 15 + 2 * dilation * 4


def test_inflation_divides_what_conv6_adds() -> None:
    """And the interpolation brings the inflated map back to one unit a pixel."""
    model, shape = wei_small(5), (1, 3, 96, 96)
    set_dilation(model.conv6, 3)
    model.inflation.factor.f.data.fill_(2.0)
    features, field = (receptive_field_at(model, shape, path) for path in ("features", "interpolation"))
    assert field.height_px == features.height_px + 2 * 3 * 4 / 2
    assert (features.jump_h, field.jump_h, field.jump_w) == (4, 1, 1)


def test_it_learns() -> None:
    """Where a bright square is, in forty steps; and a learned f gets a gradient from there."""
    torch.manual_seed(0)
    model = wei_small(2, in_channels=1)
    labels = torch.zeros(4, 32, 32, dtype=torch.long)
    for i in range(4):
        labels[i, 4 * i : 4 * i + 12, 8:20] = 1
    image = labels[:, None].float() + 0.1 * torch.randn(4, 1, 32, 32)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(image), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.693, abs=0.15)
    assert losses[-1] < 0.5 * losses[0]

    model.inflation.factor.f.requires_grad_()
    F.cross_entropy(model(image), labels).backward()
    assert model.inflation.factor.f.grad.abs() > 0


def test_the_factor_stays_shared_through_copies_and_files() -> None:
    model = wei_small(5)
    model.inflation.factor.f.data.fill_(1.5)
    again = copy.deepcopy(model)
    assert again.inflation.factor is again.interpolation.factor
    torch.save(model.state_dict(), saved := io.BytesIO())
    saved.seek(0)
    loaded = wei_small(5)
    loaded.load_state_dict(torch.load(saved, weights_only=True))
    assert loaded.interpolation.factor.f.item() == 1.5
    assert sum(parameter is loaded.inflation.factor.f for parameter in loaded.parameters()) == 1
