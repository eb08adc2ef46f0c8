"""Loss guidance against gradients weighted by hand, and where it must do nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rfsearch.errors import SpaceError
from rfsearch.layers import LabelWeight, WeightedGradient, guided
from rfsearch.tasks.class_maps import IGNORE

CLASSES = 4
SETS = [(1, 3), (2,), ()]
W = 1.7


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_labels(*shape: int) -> Tensor:
    """Class ids, and a few pixels of no class in the two ways that a label map has them."""
    labels = torch.randint(CLASSES, shape, generator=torch.Generator().manual_seed(5))
    labels[:, 0, :2] = IGNORE
    return labels


class Paths(nn.Module):
    """Three different paths from image to logits, summed, each guided by its set."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.paths = nn.ModuleList(nn.Conv2d(3, CLASSES, 3, padding=1).double() for _ in SETS)
        self.guidance = nn.ModuleList(WeightedGradient(ids, W) for ids in SETS)

    def forward(self, x: Tensor) -> Tensor:
        return sum(guidance(path(x)) for path, guidance in zip(self.paths, self.guidance, strict=True))


def hand_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """dL/d logits of the mean cross-entropy over the pixels that have a class, pixel by pixel."""
    batch, classes, height, width = logits.shape
    counted = sum(int(label) != IGNORE for label in labels.flatten())
    grad = torch.zeros_like(logits)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                if (label := int(labels[b, y, x])) != IGNORE:
                    share = logits[b, :, y, x].exp() / logits[b, :, y, x].exp().sum()
                    for c in range(classes):
                        grad[b, c, y, x] = (share[c] - float(c == label)) / counted
    return grad


def test_each_path_gets_the_gradient_of_a_loss_weighted_by_hand() -> None:
    """Eq. 12: behind its interpolation, path k sees dL/d logits, times W where the label is in its set."""
    model, x, labels = Paths(), random(2, 3, 5, 6), some_labels(2, 5, 6)
    with guided(model, labels):
        loss = nn.functional.cross_entropy(model(x), labels, ignore_index=IGNORE)
        loss.backward()
    behind = hand_gradient(model(x).detach(), labels)
    for path, ids in zip(model.paths, SETS, strict=True):
        weighted = behind.clone()
        for b in range(2):
            for row in range(5):
                for column in range(6):
                    if int(labels[b, row, column]) in ids:
                        weighted[b, :, row, column] *= W
        expected = torch.autograd.grad(path(x), tuple(path.parameters()), weighted)
        for parameter, value in zip(path.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, value, rtol=1e-6, atol=1e-9)


def test_what_lies_below_gets_the_sum_of_the_weighted_paths() -> None:
    x, labels = random(1, 3, 4, 4).requires_grad_(), torch.ones(1, 4, 4, dtype=torch.int64)
    model = Paths()
    with guided(model, labels):
        (grad,) = torch.autograd.grad(model(x).sum(), x)
    plain = [torch.autograd.grad(path(x).sum(), x)[0] for path in model.paths]
    torch.testing.assert_close(grad, W * plain[0] + plain[1] + plain[2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shown", [False, True])
def test_values_are_left_alone(shown: bool) -> None:
    x, layer = random(2, 3, 4, 5).requires_grad_(), WeightedGradient((0, 1), W)
    with guided(layer if shown else nn.Identity(), some_labels(2, 4, 5)):
        assert torch.equal(layer(x), x)


def test_without_labels_it_does_nothing() -> None:
    x, layer = random(1, 2, 3, 3).requires_grad_(), WeightedGradient(range(CLASSES), W)
    assert layer(x) is x
    with guided(layer, torch.zeros(1, 3, 3, dtype=torch.int64)):
        assert layer(x) is not x
        with torch.no_grad():
            assert layer(x.detach()) is not None
        assert WeightedGradient((0,), W)(x) is x  # no labels were shown to this one
    assert layer(x) is x


def test_a_weight_of_one_and_an_empty_set_do_nothing_and_cost_nothing() -> None:
    x, labels = random(1, 2, 3, 3).requires_grad_(), torch.zeros(1, 3, 3, dtype=torch.int64)
    for layer in (WeightedGradient((0,), 1.0), WeightedGradient((), W), WeightedGradient()):
        with guided(layer, labels):
            assert layer(x) is x


def test_labels_are_let_go_even_after_a_fault() -> None:
    model = Paths()

    def fail() -> None:
        assert all(layer.where.labels is not None for layer in model.guidance)
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"), guided(model, some_labels(1, 3, 3)):
        fail()
    assert all(layer.where.labels is None for layer in model.guidance)


def nearest_label(labels: Tensor, size: tuple[int, int], b: int, y: int, x: int) -> int:
    """The label whose centre is nearest to that of unit (y, x) of a map that spans the label map; of two, the later."""
    place = []
    for source, target, t in zip(labels.shape[-2:], size, (y, x), strict=True):
        centre = (t + 0.5) * source / target
        place.append(min(range(source), key=lambda n: (abs(n + 0.5 - centre), -n)))
    return int(labels[b, place[0], place[1]])


@pytest.mark.parametrize("size", [(7, 10), (3, 4), (2, 5), (1, 1), (9, 23), (7, 4)])
def test_a_unit_takes_the_label_nearest_to_its_centre(size: tuple[int, int]) -> None:
    labels, weight = some_labels(2, 7, 10), LabelWeight((1, 3), W)
    with guided(weight, labels):
        found = weight(size)
    assert found.shape == (2, 1, *size)
    for b in range(2):
        for y in range(size[0]):
            for x in range(size[1]):
                expected = W if nearest_label(labels, size, b, y, x) in (1, 3) else 1.0
                assert found[b, 0, y, x].item() == pytest.approx(expected), (b, y, x)


@pytest.mark.parametrize("ids", [range(255), [IGNORE % 256]])
@pytest.mark.parametrize("ignored", [255, IGNORE])
def test_pixels_of_no_class_have_weight_one(ids, ignored: int) -> None:
    """IGNORE is negative: as an index it would count from the end."""
    weight = LabelWeight(ids, W)
    with guided(weight, torch.full((1, 2, 2), ignored)):
        assert torch.equal(weight((2, 2)), torch.ones(1, 1, 2, 2))
    with guided(weight, torch.full((1, 2, 2), ids[-1])):
        assert torch.equal(weight((2, 2)), torch.full((1, 1, 2, 2), W))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    weight = LabelWeight((200,), W)
    with guided(weight, torch.tensor([[[200, 3]]], dtype=dtype)):
        assert weight((1, 2)).flatten().tolist() == pytest.approx([W, 1.0])


def test_half_precision_and_an_empty_batch() -> None:
    layer = WeightedGradient((0,), 1.5)
    for x in (torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16), torch.zeros(0, 2, 2, 2)):
        x.requires_grad_()
        with guided(layer, torch.zeros(x.shape[0], 2, 2, dtype=torch.int64)):
            (grad,) = torch.autograd.grad(layer(x).sum(), x)
        assert grad.dtype == x.dtype
        assert torch.equal(grad, torch.full_like(x, 1.5))


def test_it_keeps_nothing_in_the_state_dict_and_shows_its_set() -> None:
    assert WeightedGradient((1, 3), W).state_dict() == {}
    assert "ids=[1, 3], weight=1.7" in repr(WeightedGradient((3, 1), W))
    assert "weight=1.7" in repr(WeightedGradient((3, 1), W).to("meta"))


@pytest.mark.parametrize(("ids", "weight"), [((-1,), W), ((0, 256), W), ((1,), -0.5), ((1,), float("nan"))])
def test_impossible_sets_and_weights_are_refused(ids, weight) -> None:
    with pytest.raises(SpaceError, match=r"Got (-1|256|-0\.5|nan)"):
        WeightedGradient(ids, weight)
    with pytest.raises(SpaceError):
        WeightedGradient((1,), float("inf"))
