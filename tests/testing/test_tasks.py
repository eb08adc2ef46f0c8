"""The suite for tasks: what ships passes it, and each kind of broken task fails just the check that is meant."""

import math
from dataclasses import replace
from functools import partial

import pytest
from torch import nn

from rfsearch.outputs import main_output
from rfsearch.tasks.base import Scores
from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.metrics import METRICS
from rfsearch.tasks.segmentation import Segmentation
from rfsearch.testing import tasks


@pytest.mark.parametrize("check", tasks.TASK_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("class_weights", ["none", "sqrt"])
@pytest.mark.parametrize("metric", METRICS)
def test_segmentation_passes(check, metric, class_weights):
    keys = Segmentation.Keys(metric=metric, class_weights=class_weights)
    check(partial(Segmentation, keys), tasks.labelled_faces())


class _Perturbed(Segmentation):
    """The task that ships, to be broken in one place."""


class _NanLoss(_Perturbed):
    def loss(self, output, target):
        return super().loss(output, target) * math.nan


class _LossADay(_Perturbed):
    def loss(self, output, target):
        return 0 * main_output(output).sum() + 1


class _PicksByValue(_Perturbed):
    def loss(self, output, target):
        logits = self._at_label_size(output, target.shape).permute(0, 2, 3, 1)
        return nn.functional.cross_entropy(logits[target != IGNORE], target[target != IGNORE])


class _RewardsErrors(_Perturbed):
    def loss(self, output, target):
        return -super().loss(output, target)


class _ClimbsItsGradient(_Perturbed):
    """As by a sign lost in a backward pass of its own."""

    def loss(self, output, target):
        loss = super().loss(output, target)
        return 2 * loss.detach() - loss


class _TrainsOnIgnored(_Perturbed):
    def loss(self, output, target):
        return super().loss(output, target.where(target != IGNORE, 0))


class _NanWithoutLabels(_Perturbed):
    def loss(self, output, target):
        return nn.functional.cross_entropy(self._at_label_size(output, target.shape), target)


class _ForecastsOtherTargets(_Perturbed):
    def empty_target(self, batch, device):
        return super().empty_target(batch, device).float()


class _NeverMoves(_Perturbed):
    def moved(self, target, motion):
        return target


class _ExchangesNoPairs(_Perturbed):
    """Mirrors the classes of eyes and brows in one direction only."""

    def moved(self, target, motion):
        ids = super().moved(target, motion)
        return ids.where((ids != 4) | ~motion.mirrored[:, None, None], 5)


class _ShiftsByAPixel(_Perturbed):
    def moved(self, target, motion):
        return super().moved(target, motion).roll(1, dims=-1)


class _TakesAnyOutput(_Perturbed):
    def check_output(self, output, batch, network):
        pass


class _RefusesWithAnAssertion(_Perturbed):
    def check_output(self, output, batch, network):
        if main_output(output) is None or main_output(output).shape[:2] != (batch, self.out_channels):
            raise ValueError("no")


class _Backwards(_Perturbed):
    def __init__(self, keys, data):
        super().__init__(keys, data)
        self.direction = "minimize"


class _HasNoDirection(_Perturbed):
    def __init__(self, keys, data):
        super().__init__(keys, data)
        self.direction = "up"


class _ShowsOneImage(_Perturbed):
    def pictures(self, model, split, device):
        return super().pictures(model, split.some(1), device)


class _NoLegend(_Perturbed):
    def pictures(self, model, split, device):
        return replace(super().pictures(model, split, device), legend={})


class _Percent(_Perturbed):
    def evaluate(self, model, split, batch_size, device):
        scores = super().evaluate(model, split, batch_size, device)
        return Scores(100 * scores.primary, {name: 100 * value for name, value in scores.all.items()})


class _HidesItsPrimary(_Perturbed):
    def evaluate(self, model, split, batch_size, device):
        return Scores(super().evaluate(model, split, batch_size, device).primary, {})


class _LowerIsBetter(_Perturbed):
    def evaluate(self, model, split, batch_size, device):
        scores = super().evaluate(model, split, batch_size, device)
        return Scores(1 - scores.primary, {name: 1 - value for name, value in scores.all.items()})


class _AveragesOverBatches(_Perturbed):
    def evaluate(self, model, split, batch_size, device):
        whole = super().evaluate(model, split, batch_size, device)
        value = whole.primary * (1 - 1 / (batch_size + 10)) if whole.primary < 1 else 1.0
        return Scores(value, {**whole.all, self.primary: value})


TRAINED, PREFERS, BEST = "task_loss_can_be_trained_with", "task_loss_prefers_the_truth", "task_scores_the_truth_best"
MOVES, REFUSES, SHOWS = "task_moves_its_targets", "task_refuses_other_outputs", "task_shows_its_predictions"
BROKEN_TASKS = [
    (_NanLoss, TRAINED, "a loss is one finite number. Got nan"),
    (_LossADay, TRAINED, "finite gradient in the output, other than zero. Got 0 at most"),
    (_PicksByValue, "task_loss_can_be_forecast", r"no x\[mask\], no item"),
    (_ForecastsOtherTargets, "task_loss_can_be_forecast", "shapes and dtypes of a real one. Got .*torch.float32"),
    (_NanWithoutLabels, "task_loss_is_zero_where_nothing_is_labelled", "labelled pixel is 0. Got nan"),
    (_ClimbsItsGradient, PREFERS, "falls along its gradient"),
    (_RewardsErrors, PREFERS, "loss of the truth is less"),
    (_TrainsOnIgnored, PREFERS, "pixels that say nothing do not enter"),
    (_NeverMoves, MOVES, "a mirrored target is mirrored"),
    (_ExchangesNoPairs, MOVES, "mirrored twice is as before"),
    (_ShiftsByAPixel, MOVES, "not moved stays as it is"),
    (_TakesAnyOutput, REFUSES, "It took NoneType"),
    (_RefusesWithAnAssertion, REFUSES, "refuses with a ModelError. Got ValueError"),
    (_Percent, BEST, r"scores lie in 0..1. Got {"),
    (_HidesItsPrimary, BEST, "primary score, f_classmean_pooled, is one of all scores"),
    (_LowerIsBetter, BEST, "what fits the loss scores better than noise: f_classmean_pooled is to maximize"),
    (_Backwards, BEST, "what fits the loss scores better than noise: f_classmean_pooled is to minimize"),
    (_HasNoDirection, BEST, r"a direction is one of \('maximize', 'minimize'\). Got 'up'"),
    (_ShowsOneImage, SHOWS, "every image, its truth and its prediction are shown"),
    (_NoLegend, SHOWS, "says what the colours mean"),
    (_AveragesOverBatches, BEST, "does not depend on how it is cut into batches"),
]


@pytest.mark.parametrize(("task", "check", "message"), BROKEN_TASKS, ids=lambda value: str(value)[:60])
def test_a_broken_task_fails(task, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(tasks, check)(partial(task, task.Keys(metric="helen-f")), tasks.labelled_faces())
