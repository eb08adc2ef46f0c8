"""The plugin keeps to what rfsearch expects of one: rfsearch's own checks, run on it."""

from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("rfsearch_example", reason="the plugin is installed by tests/test_plugin_example.py alone")

from rfsearch_example import Arrays, FocalSegmentation, Halving, corners, relief, two_stage
from rfsearch_example.cost_by_status import COST_BY_STATUS
from rfsearch_example.depth import Depth
from rfsearch_example.faces import FAR, FacesInRelief
from rfsearch_example.kernel import Kernel

from rfsearch import testing
from rfsearch.errors import SpaceError
from rfsearch.space import read_space


def by_name(check) -> str:
    return check.__name__


@pytest.mark.parametrize("check", testing.BACKBONE_CHECKS, ids=by_name)
def test_backbone(check):
    check(two_stage)


@pytest.mark.parametrize("form", ["single", "bi"])
@pytest.mark.parametrize("check", testing.STRATEGY_CHECKS, ids=by_name)
def test_strategy(check, form):
    check(Halving, read_space(corners(), None).with_form(form))


@pytest.mark.parametrize("check", testing.TASK_CHECKS, ids=by_name)
def test_task(check):
    check(partial(FocalSegmentation, FocalSegmentation.Keys()), testing.labelled_faces())


@pytest.mark.parametrize("check", testing.FIGURE_CHECKS, ids=by_name)
def test_figure(check):
    check(COST_BY_STATUS)


@pytest.mark.parametrize("metric", ["mae", "rmse"])
@pytest.mark.parametrize("check", testing.TASK_CHECKS, ids=by_name)
def test_task_without_classes(check, metric):
    check(partial(Depth, Depth.Keys(metric=metric)), FacesInRelief(rendered=(6, 5, 2)).make((64, 64)))


@pytest.mark.parametrize("check", testing.TASK_CHECKS, ids=by_name)
def test_task_that_leaves_the_background_out(check):
    check(partial(Depth, Depth.Keys(largest=0.9)), FacesInRelief(rendered=(6, 5, 2)).make((64, 64)))


def test_depths_beyond_the_largest_are_unknown():
    data = FacesInRelief(rendered=(2, 1, 1)).make((64, 64))
    stored = torch.from_numpy(data.splits["train"].targets)
    for largest, background in ((None, True), (FAR, True), (0.9, False)):
        _, known = Depth(Depth.Keys(largest=largest), data).target(stored)
        assert known[stored < 0.9].all()
        assert set(known[stored == FAR].tolist()) == {background}


def test_the_space_tells_the_task_its_keys(tmp_path):
    assert read_space(relief(), None).task.keys == Depth.Keys(metric="mae", largest=FAR)
    text = relief().read_text()
    for wrong, message in (
        ("largest = 0", r"line 6, task\.largest: must be greater than 0\. Got 0"),
        ('metric = "mse"', r"line 6, task\.metric: must be 'mae' or 'rmse'\. Got 'mse'"),
        ("largst = 1.0", r"line 6, task\.largst: no key of the task depth\. Did you mean 'largest'"),
    ):
        (tmp_path / "wrong.toml").write_text(text.replace("largest = 1.0", wrong))
        with pytest.raises(SpaceError, match=message):
            read_space(tmp_path / "wrong.toml", None)


def test_depths_of_faces():
    """The background is far, a face is nearer towards its middle, and every image is another one."""
    split = FacesInRelief(rendered=(4, 1, 1)).make((64, 64)).splits["train"]
    assert split.targets.dtype == np.float32
    assert split.targets.max() == FAR
    assert 0.3 < split.targets.min() < 0.55
    assert len({depth.tobytes() for depth in split.targets}) == 4


@pytest.mark.parametrize("classes", [("dark", "light"), ()], ids=["labels", "depths"])
@pytest.mark.parametrize("check", testing.LAYOUT_CHECKS, ids=by_name)
def test_layout(check, classes, tmp_path):
    draw = np.random.default_rng(0)
    for title, count in (("train", 3), ("val", 2)):
        images = draw.integers(0, 256, (count, 24, 32, 3), np.uint8)
        known = {"labels": images[..., 0] // 128} if classes else {"depths": images[..., 0] / 255}
        np.savez(tmp_path / f"{title}.npz", images=images, **known)
    check(Arrays(classes=classes), tmp_path)


@pytest.mark.parametrize("space", [corners, relief], ids=by_name)
@pytest.mark.parametrize("check", testing.SPACE_CHECKS, ids=by_name)
def test_space(check, space):
    check(space())


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("check", testing.CHOICE_CHECKS, ids=by_name)
def test_choice(check, size):
    check(Kernel(size))


def test_an_even_kernel_is_refused():
    with pytest.raises(SpaceError, match="odd number"):
        Kernel(4)
