"""A metric of the user's own: an object that accumulates, what makes one, or a function of an image."""

import math
import textwrap

import pytest
import torch

from rfsearch.errors import ModelError
from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics import make_metric
from rfsearch.tasks.metrics.iou import MeanIou
from tests.references.class_counts import pixels
from tests.toys import toy_faces

FILE = """
import torch


class Accuracy:
    higher_is_better = True

    def __init__(self, num_classes, ignore_index=None):
        assert (num_classes, ignore_index) == (11, -100)
        self.ignored = ignore_index
        self.reset()

    def reset(self):
        self.hits = self.pixels = 0

    def update(self, prediction, target):
        labelled = target != self.ignored
        self.hits += (prediction == target)[labelled].sum()
        self.pixels += labelled.sum()

    def compute(self):
        return self.hits / self.pixels

    def __call__(self, prediction, target):
        return None  # the metrics of torchmetrics are callable


class Mistakes(Accuracy):
    higher_is_better = False

    def compute(self):
        return 1 - super().compute()


class Undecided(Accuracy):
    higher_is_better = None


class PerClass(Accuracy):
    def compute(self):
        return torch.zeros(11)


class Torn(Accuracy):
    def update(self, prediction, target):
        raise IndexError("ids\\nare odd")


class Nothing:
    pass


def make(ignore_index):
    return Accuracy(11, ignore_index)


made = make(-100)


def image_accuracy(prediction, target):
    labelled = target != -100
    return (prediction == target)[labelled].float().mean()  # NaN where nothing is labelled


def with_classes(prediction, target, num_classes):
    return num_classes


def error(prediction, target):
    return 1 - image_accuracy(prediction, target)


error.higher_is_better = False


def words(prediction, target):
    return "good"


def shape_of(prediction, target):
    assert prediction.shape == target.shape == (48, 48) and prediction.dtype == target.dtype == torch.int64
    return 0.5
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(FILE))
    return lambda name: f"{tmp_path / 'mine.py'}:{name}"


def scored(metric, batches=(1, 2)):
    pred, label = (torch.from_numpy(part) for part in pixels(ignore=IGNORE))
    label[2] = IGNORE
    metric.reset()
    for batch in zip(pred.split(batches), label.split(batches), strict=True):
        metric.update(*batch)
    return metric.compute()


def shares():
    """(hits, labelled pixels) of the two images of `scored` that are labelled."""
    pred, label = pixels(ignore=IGNORE)
    return [
        (sum(p == t for p, t in pairs if t != IGNORE), sum(t != IGNORE for _, t in pairs))
        for pairs in (list(zip(a.ravel(), b.ravel(), strict=True)) for a, b in zip(pred[:2], label[:2], strict=True))
    ]


@pytest.mark.parametrize("name", ["Accuracy", "make", "made"])
def test_an_object_that_accumulates_scores_the_whole_data_set(spec, name):
    metric = make_metric(spec(name), toy_faces())
    (hits, labelled), (more, others) = shares()
    wanted = (hits + more) / (labelled + others)
    assert scored(metric) == scored(metric) == {f"{name}_dataset": pytest.approx(wanted)}
    assert (metric.primary, metric.direction) == (f"{name}_dataset", "maximize")


def test_a_function_is_averaged_over_the_images_of_which_it_says_something(spec):
    metric = make_metric(spec("image_accuracy"), toy_faces())
    assert scored(metric) == {
        "image_accuracy_imagemean": pytest.approx(sum(hits / labelled for hits, labelled in shares()) / 2)
    }
    metric.reset()
    assert math.isnan(metric.compute()["image_accuracy_imagemean"])


def test_a_function_gets_single_images_of_class_ids_and_the_number_of_classes_if_it_takes_it(spec):
    make_metric(spec("shape_of"), toy_faces())
    assert scored(make_metric(spec("with_classes"), toy_faces())) == {"with_classes_imagemean": 11}


def test_lower_may_be_better(spec):
    assert [make_metric(spec(name), toy_faces()).direction for name in ("Mistakes", "error")] == ["minimize"] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Undecided", "leaves open whether higher is better"),
        ("PerClass", r"gives one number. Got Tensor of shape \(11,\)"),
        ("Torn", "fails when it is updated with tensors of 1 x 48 x 48 and 1 x 48 x 48: IndexError: ids are odd"),
        ("Nothing", "is a function of the prediction and the target of an image, .* It made Nothing"),
        ("words", "gives one number. Got str"),
        ("absent", "no callable 'absent'"),
    ],
)
def test_what_is_no_metric_is_reported_before_anything_is_trained(spec, name, message):
    with pytest.raises(ModelError, match=message):
        make_metric(spec(name), toy_faces())


def test_metrics_of_torchmetrics_are_taken_as_they_are():
    pytest.importorskip("torchmetrics")
    for name, slow in (("MulticlassJaccardIndex", "miou_dataset"),):
        metric = make_metric(f"torchmetrics.classification:{name}", toy_faces())
        reference = MeanIou(11)
        assert scored(metric) == {f"{name}_dataset": pytest.approx(scored(reference)[slow], abs=1e-6)}
