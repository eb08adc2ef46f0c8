"""A training that diverged is a failed trial, whenever that happened, and one without labels in a batch has not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfsearch.choices import Dilated
from rfsearch.data import ImageSet
from rfsearch.ledger import Assignment, Cost, Record, incumbent
from rfsearch.space import Space
from rfsearch.training import Order, Training
from rfsearch.training.loop import TrainingLoop
from tests.toys import _Hostile, toy_faces, toy_space

CPU = torch.device("cpu")
DATA = toy_faces()


class _Once(torch.autograd.Function):
    """The identity, whose value is not finite and whose gradient is what it was: weights stay as they were."""

    @staticmethod
    def forward(ctx: object, logits: Tensor, value: float) -> Tensor:
        return torch.full_like(logits, value)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(grad), None


def once(value: float, step: int):
    """A network whose loss is not finite at one step."""

    def make(num_classes: int, in_channels: int = 3) -> nn.Module:
        seen = [0]

        def harm(logits: Tensor) -> Tensor:
            seen[0] += 1
            return _Once.apply(logits, value) if seen[0] == step + 1 else logits

        return _Hostile(num_classes, in_channels, {2: harm})

    return make


nan_at_first = once(float("nan"), 0)
nan_at_third = once(float("nan"), 2)
inf_at_third = once(float("inf"), 2)


def record_of(space: Space, folder, data: ImageSet = DATA, limit: float = 1e18) -> Record:
    task = Assignment("t-0-000", "exhaustive", 0, space.uniform(Dilated(2)).to_json(), 7, limit)
    work = Training(space, data, Order(task, "flop", CPU, folder / "t"))
    while (record := work.advance()).status == "pruned":
        pass
    return record


@pytest.mark.parametrize(("net", "step"), [("nan_at_first", 1), ("nan_at_third", 3), ("inf_at_third", 3)])
def test_a_loss_that_was_not_finite_between_checks_fails_the_trial_and_its_step_is_charged(tmp_path, net, step):
    space = toy_space(tmp_path, rungs=1).with_(backbone=f"{__name__}:{net}")
    record = record_of(space, tmp_path)
    assert record.status == "failed"
    assert f"the loss became nan by step {step}" in record.cause
    assert not record.scored
    assert record.cost.epochs == 4 * 2 / 12  # found at the look behind four steps, all of which are charged
    assert record.cost.flop > 4 * 100e6


def test_a_look_finds_it_too(tmp_path):
    record = record_of(toy_space(tmp_path).with_(backbone=f"{__name__}:nan_at_first"), tmp_path)
    assert (record.status, record.steps, record.rungs) == ("failed", 2, ())


@pytest.mark.parametrize("steps_worth", [1.5, 3.5])
def test_a_rate_that_is_far_too_high_never_gives_an_incumbent(tmp_path, steps_worth):
    """Cut after a step or a few, before any check of the loss."""
    space = toy_space(tmp_path, lr=1e30, rungs=1)
    loop = TrainingLoop(space, DATA, space.uniform(Dilated(2)), 7, CPU)
    end = 33 * loop.evaluation.cost(1).flop
    record = record_of(space, tmp_path, limit=end + steps_worth * loop.train_step(0))
    assert record.status == "failed"
    assert "diverged" in record.cause or "loss became" in record.cause
    assert 0 < record.steps < 5
    assert not record.scored


@pytest.mark.parametrize("val", [float("nan"), float("inf")])
def test_a_record_of_old_whose_score_is_no_number_is_no_incumbent(val):
    record = Record("t", "s", 0, "completed", "{}", 1, 1, Cost(1.0), val=val)
    assert not record.scored
    assert incumbent([record], "maximize") is None


def test_images_without_a_label_train_and_are_scored_like_any(tmp_path):
    """One of two batches has nothing labelled, at the checked step or at another."""
    train = DATA.splits["train"]
    labels = np.array(train.targets)
    labels[:6] = 255
    data = replace(DATA, ignore_index=255, splits={**DATA.splits, "train": replace(train, targets=labels)})
    for weights in ("none", "sqrt"):
        folder = tmp_path / weights
        folder.mkdir()
        space = toy_space(folder, class_weights=weights, steps=12)
        space = space.with_(recipe=space.recipe.model_copy(update={"batch_size": 1}))
        assert record_of(space, folder, data).status == "completed"
