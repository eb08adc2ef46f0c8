"""How many steps a training has, whoever leaves some of them out."""

from functools import partial

import pytest
import torch
from torch import nn

from rfsearch.choices import Dilated, Moved
from rfsearch.errors import RequestError
from tests.own_loop import loops
from tests.own_loop.trials import completed, finished, plan, training

EPOCHS, STEPS = 3, 4


def scaled(trial, overflows: int) -> None:
    """Train with scaled gradients, of which the first overflow."""
    model = trial.prepare(loops.make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trial.attach(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=10_000)
    trial.keep(scaler=scaler)
    tried = 0
    for _ in trial.epochs(EPOCHS):
        for x, y in loops.loader(8 * STEPS):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            scaler.scale(loss * float("inf") if tried < overflows else loss).backward()
            scaler.step(optimizer)
            scaler.update()
            tried += 1
    trial.finish(val=loops.scorer(model)())


@pytest.mark.parametrize("overflows", [0, 1, STEPS])
def test_steps_that_a_scaler_leaves_out_are_steps_of_the_training(overflows):
    length = plan(partial(scaled, overflows=overflows)).space.length
    assert (length.steps, length.all_steps) == (STEPS, EPOCHS * STEPS)


@pytest.mark.parametrize("choice", [Dilated(2), Moved(2)], ids=str)
def test_a_training_whose_first_epoch_overflows_goes_on(choice, tmp_path):
    record = completed(training(plan(partial(scaled, overflows=STEPS)), choice, tmp_path))
    assert record.steps == (EPOCHS - 1) * STEPS


def rebuilding(trial, at: int) -> None:
    """Make the optimiser anew in some epoch."""
    model = trial.prepare(loops.make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    trial.attach(model, optimizer)
    for epoch in trial.epochs(EPOCHS):
        if epoch == at:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        for x, y in loops.loader(8 * STEPS):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    trial.finish(val=loops.scorer(model)())


def test_an_optimiser_that_is_made_anew_is_one_message(tmp_path):
    message = "the SGD that moves the model was not attached. Make every optimiser once, before trial.epochs"
    with pytest.raises(RequestError, match=message):
        plan(partial(rebuilding, at=0))
    record = finished(training(plan(partial(rebuilding, at=1)), Dilated(2), tmp_path))
    assert record.status == "failed"
    assert message in record.cause
    assert record.steps < 2 * STEPS  # at once, and not at the end of that epoch
