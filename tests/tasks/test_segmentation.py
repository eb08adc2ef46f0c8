"""The task of segmentation: an ignored id that is no class, and batches in which nothing is labelled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Dilated, SitePath
from rfsearch.data import ImageSet, Split
from rfsearch.errors import DataError, SpaceError
from rfsearch.planning.fitting import Fitted
from rfsearch.surgery import measure_sites
from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.segmentation import Segmentation
from tests.toys import toy_space

CPU = torch.device("cpu")


def segmentation(data: ImageSet, metric: str = "mean-iou", class_weights: str = "none") -> Segmentation:
    return Segmentation(Segmentation.Keys(metric=metric, class_weights=class_weights), data)


class Fixed(nn.Module):
    """Gives the same logits whatever the images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self._logits


def images_of(labels: np.ndarray, classes: int, ignored: int | None) -> ImageSet:
    count, height, width = labels.shape
    split = Split(np.zeros((count, 3, height, width), np.uint8), labels.astype(np.uint8), tuple(map(str, range(count))))
    names = tuple(f"c{k}" for k in range(classes))
    return ImageSet("toy", names, ignored, {"train": split, "val": split})


def ade(ignored: int = 0) -> tuple[ImageSet, np.ndarray]:
    """4 classes, one of them ignored, and 4,608 labelled pixels of the three others, as many of each."""
    others = [k for k in range(4) if k != ignored]
    labels = np.repeat(others, 4608 // 3).reshape(2, 48, 48)
    margin = np.full((2, 48, 2), ignored)
    return images_of(np.concatenate([labels, margin], axis=2), 4, ignored), labels


def one_hot(ids: np.ndarray, classes: int) -> Tensor:
    return 5 * nn.functional.one_hot(torch.from_numpy(ids.astype(np.int64)), classes).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("ignored", [0, 2, 3])
def test_a_pixel_called_by_the_ignored_id_is_a_miss_and_that_id_has_no_score(ignored):
    data, _ = ade(ignored)
    called = data.splits["val"].targets.astype(np.int64)
    called[called == ignored] = next(k for k in range(4) if k != ignored)
    true = called[0, 0, 0]
    called[0, 0, :2] = ignored
    scores = segmentation(data).evaluate(Fixed(one_hot(called, 4)), data.splits["val"], 2, CPU)
    assert scores.primary == pytest.approx((1 - 2 / 1536 + 1 + 1) / 3)
    assert round(scores.primary, 4) == 0.9996
    assert set(scores.all) == {"miou_dataset", *(f"iou_{k}" for k in range(4) if k != ignored)}
    assert scores.all[f"iou_{true}"] == pytest.approx(1 - 2 / 1536)


def test_the_ignored_id_is_never_predicted():
    data, labels = ade()
    logits = one_hot(labels, 4)
    logits[:, 0] = 9.0
    predicted = segmentation(data).predict(logits, torch.Size((2, 48, 48)))
    assert np.array_equal(predicted.numpy(), labels)


def test_in_the_scores_of_faces_an_ignored_class_is_in_no_group():
    labels = np.arange(11).repeat(12).reshape(1, 11, 12)
    called = labels.copy()
    called[labels == 2] = 4  # a left eyebrow called left eye
    called[labels == 6] = 5  # a nose called by the ignored id
    data = images_of(labels, 11, 5)
    scores = segmentation(data, "helen-f").evaluate(Fixed(one_hot(called, 11)), data.splits["val"], 1, CPU).all
    assert scores["f_eye_pooled"] == pytest.approx(2 * 12 / (12 + 24))  # of the left eye alone
    assert scores["f_nose_pooled"] == 0
    found = [1, 0, 1, 2 / 3, 0, 1, 1, 1, 1]  # F of 1, 2, 3, 4, 6 ... 10
    assert scores["f_classmean_pooled"] == pytest.approx(sum(found) / 9)
    alone = images_of(labels, 11, 6)
    scores = segmentation(alone, "helen-f").evaluate(Fixed(one_hot(labels, 11)), alone.splits["val"], 1, CPU).all
    assert "f_nose_pooled" not in scores
    assert scores["f_classmean_pooled"] == scores["f_overall_pooled"] == 1


def test_an_id_outside_the_classes_changes_nothing():
    labels = np.arange(3).repeat(12).reshape(1, 6, 6)
    scores = [
        segmentation(images_of(labels, 3, ignored)).evaluate(
            Fixed(one_hot(labels, 3)), images_of(labels, 3, ignored).splits["val"], 1, CPU
        )
        for ignored in (None, 255)
    ]
    assert scores[0] == scores[1]


OWN = """
def agreement(prediction, target):
    return ((prediction == target) | (target == -100)).float().mean()

def error(prediction, target):
    return 1 - agreement(prediction, target)

error.higher_is_better = False
"""


def test_a_network_is_scored_by_a_metric_of_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    data, _ = ade()
    called = data.splits["val"].targets.astype(np.int64)
    called[0, :24] = 0  # half of one image and half of the other's margin, which is ignored
    wrong = (called != data.splits["val"].targets).sum() / called.size
    task = segmentation(data, f"{tmp_path / 'mine.py'}:agreement")
    scores = task.evaluate(Fixed(one_hot(called, 4)), data.splits["val"], 2, CPU)
    assert scores.primary == pytest.approx(1 - wrong)
    assert scores.all == {"agreement_imagemean": scores.primary}
    assert task.direction == "maximize"
    assert segmentation(data, f"{tmp_path / 'mine.py'}:error").direction == "minimize"


@pytest.mark.parametrize("metric", ["dice", "boundary-iou"])
def test_scores_do_not_depend_on_the_batches(metric):
    data, _ = ade()
    called = one_hot(np.roll(data.splits["val"].targets.astype(np.int64), 5, axis=1), 4)

    class Rolled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            taken, self.left = self.left[: len(images)], self.left[len(images) :]
            return taken

    scores = []
    for batch_size in (1, 2):
        model = Rolled()
        model.left = called
        scores.append(segmentation(data, metric).evaluate(model, data.splits["val"], batch_size, CPU))
    assert scores[0] == scores[1]
    assert 0 < scores[0].primary < 1


def test_a_path_cannot_be_guided_by_the_ignored_id(tmp_path):
    data, _ = ade()
    space = toy_space(tmp_path)
    model = wei_small(data.num_classes)
    sites = tuple(measure_sites(model, space.sites, data.image_size, 3))
    fitted = Fitted(space, model, sites, segmentation(data), data, ())
    candidates = [space.uniform([SitePath(Dilated(1), ("c0",)), Dilated(2)])]
    with pytest.raises(SpaceError, match="guided by the label 'c0', which the data does not have"):
        fitted.check(candidates)
    fitted.check([space.uniform([SitePath(Dilated(1), ("c1",)), Dilated(2)])])


@pytest.mark.parametrize("class_weights", ["none", "sqrt"])
@pytest.mark.parametrize("size", [(48, 50), (12, 13)])
def test_the_loss_of_a_batch_without_labels_is_zero_with_a_gradient_of_zero(class_weights, size):
    data, _ = ade()
    task = segmentation(data, class_weights=class_weights)
    logits = torch.randn(2, 4, *size, requires_grad=True)
    loss = task.loss(logits, torch.full((2, 48, 50), IGNORE))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_labels_that_weigh_nothing_are_as_if_not_labelled():
    data, _ = ade()
    task = segmentation(data, class_weights="sqrt")
    logits = torch.randn(2, 4, 48, 50, requires_grad=True)
    loss = task.loss(logits, torch.zeros(2, 48, 50, dtype=torch.int64))  # the ignored class weighs nothing
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("class_weights", ["none", "sqrt"])
def test_the_loss_of_labelled_pixels_is_their_weighted_mean(class_weights):
    data, labels = ade()
    task = segmentation(data, class_weights=class_weights)
    target = torch.from_numpy(labels.astype(np.int64))
    target[:, :5] = IGNORE
    logits = torch.randn(2, 4, 48, 48)
    weights = task._weights.float() if class_weights == "sqrt" else None
    assert torch.equal(task.loss(logits, target), nn.functional.cross_entropy(logits, target, weights))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros((2, 5, 4), np.uint8), "2 x 4 x 5 uint8. Got 2 x 5 x 4 uint8 in the split train"),
        (np.zeros((2, 4, 5), np.float32), "Got 2 x 4 x 5 float32"),
        (np.zeros((2, 1, 4, 5), np.uint8), "Got 2 x 1 x 4 x 5 uint8"),
    ],
)
def test_targets_that_are_no_class_ids_are_refused(targets, message):
    split = Split(np.zeros((2, 3, 4, 5), np.uint8), targets, ("a", "b"))
    with pytest.raises(DataError, match=message):
        segmentation(ImageSet("toy", ("a", "b"), None, {"train": split, "val": split}))


def test_data_without_classes_is_refused():
    split = Split(np.zeros((2, 3, 4, 5), np.uint8), np.zeros((2, 4, 5), np.uint8), ("a", "b"))
    with pytest.raises(DataError, match="needs classes"):
        segmentation(ImageSet("toy", (), None, {"train": split, "val": split}))
