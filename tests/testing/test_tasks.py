"""The suite for tasks: what ships passes it, and each kind of broken task fails just the check that is meant."""

import math

import pytest
from torch import nn

from rfsearch import plugins
from rfsearch.data import IGNORE
from rfsearch.outputs import main_output
from rfsearch.tasks.metrics import METRICS
from rfsearch.tasks.segmentation import Scores, Segmentation
from rfsearch.testing import tasks


@pytest.mark.parametrize("check", tasks.TASK_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_every_task_passes(check, metric, name):
    check(plugins.load("tasks", name), metric)


class _Perturbed(Segmentation):
    """The task that ships, to be broken in one place."""


class _NanLoss(_Perturbed):
    def loss(self, logits, labels):
        return super().loss(logits, labels) * math.nan


class _LossADay(_Perturbed):
    def loss(self, logits, labels):
        return 0 * main_output(logits).sum() + 1


class _PicksByValue(_Perturbed):
    def loss(self, logits, labels):
        logits = self._at_label_size(logits, labels).permute(0, 2, 3, 1)
        return nn.functional.cross_entropy(logits[labels != IGNORE], labels[labels != IGNORE])


class _RewardsErrors(_Perturbed):
    def loss(self, logits, labels):
        return -super().loss(logits, labels)


class _TrainsOnIgnored(_Perturbed):
    def loss(self, logits, labels):
        return super().loss(logits, labels.where(labels != IGNORE, 0))


class _Percent(_Perturbed):
    def _summary(self, confusion):
        scores = super()._summary(confusion)
        return Scores(100 * scores.primary, {name: 100 * value for name, value in scores.all.items()})


class _HidesItsPrimary(_Perturbed):
    def _summary(self, confusion):
        return Scores(super()._summary(confusion).primary, {})


class _LowerIsBetter(_Perturbed):
    def _summary(self, confusion):
        scores = super()._summary(confusion)
        return Scores(1 - scores.primary, {name: 1 - value for name, value in scores.all.items()})


class _AveragesOverBatches(_Perturbed):
    def score(self, model, split, batch_size, device):
        whole = super().score(model, split, batch_size, device)
        value = whole.primary * (1 - 1 / (batch_size + 10)) if whole.primary < 1 else 1.0
        return Scores(value, {**whole.all, self.primary: value})


TRAINED, PREFERS, BEST = "task_loss_can_be_trained_with", "task_loss_prefers_the_truth", "task_scores_the_truth_best"
BROKEN_TASKS = [
    (_NanLoss, TRAINED, "a loss is one finite number. Got nan"),
    (_LossADay, TRAINED, "finite gradient in the logits, other than zero. Got 0 at most"),
    (_PicksByValue, "task_loss_can_be_forecast", r"no x\[mask\], no item"),
    (_RewardsErrors, PREFERS, "loss of the truth is less"),
    (_TrainsOnIgnored, PREFERS, "pixels labelled -100 do not enter"),
    (_Percent, BEST, r"scores lie in 0..1. Got {"),
    (_HidesItsPrimary, BEST, "primary score, f_classmean_pooled, is one of all scores"),
    (_LowerIsBetter, BEST, "the truth scores 1. Got"),
    (_AveragesOverBatches, BEST, "does not depend on how it is cut into batches"),
]


@pytest.mark.parametrize(("task", "check", "message"), BROKEN_TASKS, ids=lambda value: str(value)[:60])
def test_a_broken_task_fails(task, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(tasks, check)(task, "helen-f")
