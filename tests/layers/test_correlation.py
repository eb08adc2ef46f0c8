"""The correlation against loops, gradcheck, the support of its gradient, its cost, and what it is at reach 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import Correlation, correlate
from rfsearch.receptive import receptive_field
from rfsearch.training import Meter
from tests.receptive.test_trace import linearised, support
from tests.references import correlation_loops as loops


def two_maps(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    first, second = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


@pytest.mark.parametrize("size", [(5, 7), (4, 3), (1, 6), (1, 1)])
@pytest.mark.parametrize(("reach", "stride"), [(0, 1), (2, 1), (3, 2), (4, 2), (6, 3), (5, 1)])
def test_it_equals_the_loops(reach: int, stride: int, size: tuple[int, int]) -> None:
    first, second = two_maps(2, 3, *size)
    expected = loops.correlate(first.detach(), second.detach(), reach, stride)
    torch.testing.assert_close(correlate(first, second, reach, stride), expected)


def test_maps_laid_out_otherwise_and_an_empty_batch() -> None:
    first, second = (part.detach().permute(0, 1, 3, 2) for part in two_maps(2, 3, 6, 5))
    torch.testing.assert_close(correlate(first, second, 2, 1), loops.correlate(first, second, 2, 1))
    assert correlate(first[:0], second[:0], 2, 1).shape == (0, 25, 5, 6)


@pytest.mark.parametrize(("reach", "stride"), [(1, 1), (2, 2)])
def test_gradcheck(reach: int, stride: int) -> None:
    maps = two_maps(1, 2, 3, 4)
    assert torch.autograd.gradcheck(lambda *maps: correlate(*maps, reach, stride), maps)
    assert torch.autograd.gradgradcheck(lambda *maps: correlate(*maps, reach, stride), maps)


def test_at_reach_0_it_is_the_mean_product() -> None:
    first, second = two_maps(2, 5, 4, 6)
    torch.testing.assert_close(correlate(first, second, 0, 1), (first * second).mean(dim=1, keepdim=True))


def test_it_peaks_where_a_map_has_moved_to() -> None:
    first = nn.functional.normalize(two_maps(1, 16, 12, 12)[0], dim=1)  # each place is most like itself
    moved = first.roll((2, -1), (2, 3))
    peak = Correlation(reach=3, stride=1)(first, moved)[0, :, 3:-3, 3:-3].argmax(dim=0)
    assert set(peak.flatten().tolist()) == {(2 + 3) * 7 + (-1 + 3)}


class _Siamese(nn.Module):
    """Correlate the features of two images that are stacked."""

    def __init__(self, reach: int, stride: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.correlation = Correlation(reach, stride)
        self.output = nn.Conv2d(self.correlation.side**2, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        first, second = images.chunk(2, dim=1)
        return self.output(self.correlation(self.features(first), self.features(second)))


@pytest.mark.parametrize(("reach", "stride"), [(0, 1), (2, 1), (5, 2), (6, 3)])
def test_its_receptive_field_is_the_support_of_the_gradient(reach: int, stride: int) -> None:
    model = _Siamese(reach, stride)
    field = receptive_field(model, (1, 2, 61, 67))
    edge = reach // stride * stride
    assert field.height_px == field.width_px == 3 + 2 * (2 * edge) + 2 * 2
    assert (field.jump_h, field.jump_w) == (2, 2)
    assert (field.height_px, field.width_px) == support(_with_ones(linearised(model)), (61, 67))


def _with_ones(model: nn.Module) -> nn.Module:
    """Keep the features away from 0: the gradient of a product is the other factor."""
    model.features.bias = nn.Parameter(torch.ones(2, dtype=torch.float64))
    return model


def test_its_cost_is_that_of_the_products_it_makes() -> None:
    """Every row of a map against every displaced row of the padded other one, and one division a value."""
    batch, channels, height, width, reach = 2, 5, 6, 7, 2
    first, second = (torch.randn(batch, channels, height, width, requires_grad=True) for _ in range(2))
    with Meter() as meter:
        output = correlate(first, second, reach, 1)
    products = (2 * reach + 1) * batch * height * width * (width + 2 * reach)
    forward = products * 2 * channels + first.numel()
    assert meter.flop == forward
    with Meter() as meter:
        output.backward(torch.ones_like(output))
    sums = meter.flop - 2 * products * 2 * channels  # both gradients, and what is added up from row to row
    assert 0 < sums < 0.25 * meter.flop
    shapes = [tensor.detach().to("meta") for tensor in (first, second)]
    with Meter() as meter:
        assert correlate(*shapes, reach, 1).shape == output.shape
    assert meter.flop == forward


def test_what_it_cannot_be_or_compare_is_refused() -> None:
    with pytest.raises(SpaceError, match="reach is a whole number of at least 0. Got -1"):
        Correlation(reach=-1)
    with pytest.raises(SpaceError, match="stride is a whole number of at least 1. Got 0"):
        Correlation(stride=0)
    with pytest.raises(ModelError, match=r"one shape, .* Got \(1, 2, 4, 4\) and \(1, 2, 4, 5\)"):
        Correlation()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))
