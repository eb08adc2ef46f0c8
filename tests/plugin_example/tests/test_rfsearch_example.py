"""The plugin keeps to what rfsearch expects of one: rfsearch's own checks, run on it."""

import pytest

pytest.importorskip("rfsearch_example", reason="the plugin is installed by tests/test_plugin_example.py alone")

from rfsearch_example import FocalSegmentation, Halving, corners, two_stage

from rfsearch import testing
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
    check(FocalSegmentation, "mean-iou")


@pytest.mark.parametrize("check", testing.SPACE_CHECKS, ids=by_name)
def test_space(check):
    check(corners())
