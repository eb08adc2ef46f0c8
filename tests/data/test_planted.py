"""Images whose labels a hidden convolution made: what it is, and that a search finds it."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rfsearch.data.planted import CLASSES, Planted, _Teacher, planted
from rfsearch.errors import DataError
from rfsearch.layers import FractionalConv2d
from rfsearch.ledger import read_run
from rfsearch.report.view import build_view
from tests.small_run import run_in_process


@pytest.mark.parametrize("dilation", [1.0, 4.0, 3.4])
def test_labels_are_those_of_a_convolution_at_the_dilation(dilation):
    teacher = _Teacher(np.random.default_rng(3), (24, 32), dilation)
    image = np.random.default_rng(4).integers(0, 256, (3, 24, 32)).astype(np.uint8)
    conv = torch.nn.Conv2d(3, len(teacher._taps), 3, padding=1, bias=False)
    conv.weight.data = torch.from_numpy(teacher._taps).float()
    layer = FractionalConv2d(conv, (dilation, dilation), learned=False)
    features = torch.tanh(layer(torch.from_numpy((image - 128.0) / 48.0).float()[None]))
    mixture = torch.from_numpy(teacher._mixture).float()[:, :, None, None]
    mixed = F.conv2d(features, mixture)[0].detach().numpy()
    expected = (mixed - teacher._mean) / teacher._spread
    np.testing.assert_allclose(teacher.logits(image), expected, atol=1e-4)
    assert np.abs(expected).max() > 1.0


def test_the_labels_of_a_set_are_its_teachers():
    data = planted(2, 1, 0, size=(24, 24), dilation=2, seed=5)
    root = np.random.SeedSequence(5, spawn_key=(0,))
    teacher = _Teacher(np.random.default_rng(root), (24, 24), 2)
    for image, labels in zip(data.splits["train"].images, data.splits["train"].targets, strict=True):
        np.testing.assert_array_equal(labels, teacher.logits(image).argmax(axis=0))


def test_an_image_does_not_depend_on_how_many_there_are():
    few, many = (planted(count, 2, 0, size=(24, 24)) for count in (3, 9))
    for split in ("train", "val"):
        images = len(few.splits[split].images)
        np.testing.assert_array_equal(few.splits[split].images, many.splits[split].images[:images])
        np.testing.assert_array_equal(few.splits[split].targets, many.splits[split].targets[:images])
    assert "test" not in few.splits
    other = planted(3, 2, 0, size=(24, 24), seed=1)
    assert (few.splits["train"].images != other.splits["train"].images).mean() > 0.5


def test_classes_are_about_as_frequent_and_near_pixels_alike():
    split = planted(64, 1, 0).splits["train"]
    shares = np.bincount(split.targets.ravel(), minlength=len(CLASSES)) / split.targets.size
    assert shares.min() > 0.4 / len(CLASSES)
    assert shares.max() < 2.5 / len(CLASSES)
    x = split.images.astype(float)
    assert np.corrcoef(x[..., 1:].ravel(), x[..., :-1].ravel())[0, 1] > 0.6  # of white noise 0
    assert x.mean() == pytest.approx(128, abs=8)


@pytest.mark.parametrize(
    ("keys", "size", "said"),
    [({"dilation": 12.0}, (24, 24), "more than 24 px"), ({"rendered": (0, 1, 1)}, None, "at least 1 image")],
)
def test_what_cannot_be_is_refused(keys, size, said):
    with pytest.raises(DataError, match=said):
        Planted(**keys).make(size)


def test_a_search_finds_what_was_planted(tmp_path):
    changes = "recipe.steps=100", "dilations=[1,4,8]", "data.rendered=[96,32,8]"
    settings = [word for change in changes for word in ("--set", change)]
    arms = "--budget", "4x", "--strategies", "exhaustive,fractional"
    run_in_process("run", "--space", "planted", *settings, *arms, "--out", tmp_path / "run")
    view = build_view(read_run(tmp_path / "run"))
    leaders = {arm.strategy: arm.incumbent.ended for arm in view.arms if arm.incumbent}
    found = {name: next(iter(candidate))[1].choice.numbers["dilation"] for name, candidate in leaders.items()}
    assert found["exhaustive"] == 4
    assert found["fractional"] == pytest.approx(4, abs=0.5)
