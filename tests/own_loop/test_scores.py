"""What a loop reports: a number that is none ends its own trial at most, and a score is of the weights at hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import rfsearch
from rfsearch.choices import Dilated
from rfsearch.training.progress import Progress
from tests.own_loop import loops
from tests.own_loop.trials import CPU, completed, finished, plan, training
from tests.small_run import train_in_process

NAN = math.nan
EPOCHS = 3


def train(trial, reported: Callable = lambda epoch: None, final: dict | None = None, before: float | None = None):
    """Report what a function returns for an epoch, and finish with what is given."""
    model = trial.prepare(loops.make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trial.attach(model, optimizer)
    if before is not None:
        trial.report(val=before)
    for epoch in trial.epochs(EPOCHS):
        for x, y in loops.loader(16):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        scores = reported(epoch)
        if scores is not None:
            trial.report(**scores)
    if final is not None:
        trial.finish(**final)


def nan_at_first(epoch: int) -> dict:
    return {"val": float(epoch) if epoch else NAN}


def infinite_at_first(epoch: int) -> dict:
    return {"val": float(epoch) if epoch else -math.inf}


def nan_as_loss(epoch: int) -> dict:
    return {"val": float(epoch), "loss": NAN}


def always(epoch: int) -> dict:
    return {"val": float(epoch)}


def always_nan(epoch: int) -> dict:
    return {"val": NAN}


@pytest.mark.parametrize(
    ("reported", "final", "rungs"),
    [
        (nan_at_first, {"val": 1.0}, [1.0]),
        (infinite_at_first, {"val": 1.0}, [1.0]),
        (nan_as_loss, {"val": 1.0}, [0.0, 1.0]),
        (always, {"val": 1.0, "test": NAN, "iou_bus": NAN, "iou_car": 0.5}, [0.0, 1.0]),
        (nan_at_first, None, [1.0]),
    ],
)
def test_a_number_that_is_none_is_left_out(reported, final, rungs, tmp_path, monkeypatch):
    train_in_process(monkeypatch)
    given = {"model": loops.make_model, "input_shape": loops.INPUT, "sites": "2", "dilations": [1, 2], "budget": "2x"}
    loop = partial(train, reported=reported, final=final)
    result = rfsearch.search(loop, strategies=["exhaustive"], out=tmp_path / "run", **given)
    assert set(result.trials.status) <= {"completed", "cut"}
    record = next(record for record in result.run.records if record.status == "completed")
    assert [rung.val for rung in record.rungs] == rungs
    assert {rung.loss for rung in record.rungs} == {None}
    assert record.val == (final or {"val": 2.0})["val"]
    assert record.test is None
    assert record.scores == ({"iou_car": 0.5} if final and "test" in final else {})


@pytest.mark.parametrize("limit", [1.0, 0.85])
def test_a_training_whose_last_score_is_none_has_diverged(limit, tmp_path):
    found = plan(partial(train, reported=lambda epoch: {"val": 0.5 if epoch == 0 else NAN}))
    whole = finished(training(plan(partial(train, reported=always)), Dilated(2), tmp_path / "whole"))
    record = finished(training(found, Dilated(2), tmp_path / "t", limit=limit * whole.cost.flop))
    assert record.status == "failed"
    assert "the score is nan" in record.cause


def test_what_an_earlier_version_kept_of_such_a_number_is_left_out_as_well(tmp_path):
    found = plan(partial(train, reported=always, final={"val": 1.0}))
    broken = training(found, Dilated(2), tmp_path)
    broken.advance()
    broken.advance()
    broken.close()
    file = next(Path(tmp_path).rglob("progress.pt"))
    left = Progress.read(file, CPU, broken._candidate)
    replace(left, rungs=[replace(left.rungs[0], val=NAN), replace(left.rungs[1], loss=NAN)]).save(file)
    record = completed(training(found, Dilated(2), tmp_path))
    assert [(rung.val, rung.loss) for rung in record.rungs] == [(1.0, None)]


def test_a_score_from_before_the_training_is_of_no_epoch(tmp_path):
    found = plan(partial(train, reported=lambda epoch: {"val": 1.0} if epoch in (0, 2) else None, before=9.0))
    record = completed(training(found, Dilated(2), tmp_path))
    assert [(rung.step, rung.val) for rung in record.rungs] == [(2, 1.0)]
    silent = plan(partial(train, reported=lambda epoch: {"val": 1.0} if epoch == 0 else None, before=9.0))
    record = finished(training(silent, Dilated(2), tmp_path / "silent"))
    assert record.status == "failed"
    assert "ended without a score" in record.cause


class Unsaved(nn.Sequential):
    """A model whose state cannot be had once it was trained."""

    ended = False

    def state_dict(self, *args, **kwargs):
        if self.ended:
            raise ValueError("no state")
        return super().state_dict(*args, **kwargs)


def test_what_the_users_code_raises_at_the_very_end_fails_its_trial(tmp_path):
    def loop(trial) -> None:
        model = trial.prepare(Unsaved(*loops.make_model()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        trial.attach(model, optimizer)
        for _ in trial.epochs(2):
            model(torch.ones(loops.INPUT)).mean().backward()
            optimizer.step()
        trial.finish(val=1.0)
        model.ended = True

    found = plan(loop, model=lambda: Unsaved(*loops.make_model()))
    record = finished(training(found, Dilated(2), tmp_path))
    assert record.status == "failed"
    assert record.cause.startswith("ValueError: no state (test_scores.py, line")
