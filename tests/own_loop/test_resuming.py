"""What a loop keeps of its own is as it was where a killed trial goes on: it ends equal to the last digit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from rfsearch.choices import Dilated, Inflated, Moved, Searched
from tests.own_loop import loops
from tests.own_loop.trials import completed, interrupted, kept_score, plan, training


def shuffled_by_sampler(trial, data: TensorDataset):
    generator = torch.Generator().manual_seed(trial.seed)
    trial.keep(shuffle=generator)
    return DataLoader(data, 8, sampler=RandomSampler(data, generator=generator))


def shuffled_by_loader(trial, data: TensorDataset):
    generator = torch.Generator().manual_seed(trial.seed)
    trial.keep(shuffle=generator)
    return DataLoader(data, 8, shuffle=True, generator=generator)


class ByNumpy(torch.utils.data.Sampler):
    def __init__(self, count: int, draws: np.random.RandomState) -> None:
        self._count, self._draws = count, draws

    def __len__(self) -> int:
        return self._count

    def __iter__(self):
        return iter(self._draws.permutation(self._count).tolist())


def shuffled_by_numpy(trial, data: TensorDataset):
    draws = np.random.RandomState(trial.seed)
    trial.keep(shuffle=draws)
    return DataLoader(data, 8, sampler=ByNumpy(len(data), draws))


def drawing(batches_of: Callable):
    """Return a loop whose batches are drawn by a generator of its own."""

    def train(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        trial.attach(model, optimizer)
        batches = batches_of(trial, TensorDataset(*loops.images(32, 0)))
        for _ in trial.epochs(4):
            for x, y in batches:
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
            trial.report(val=loops.scorer(model)())

    return train


@pytest.mark.parametrize("reports", [1, 3])
@pytest.mark.parametrize("choice", [Dilated(4), Moved(2)], ids=str)
@pytest.mark.parametrize("batches_of", [shuffled_by_sampler, shuffled_by_loader, shuffled_by_numpy])
def test_a_shuffle_of_its_own_generator_goes_on_where_it_was(batches_of, choice, reports, tmp_path):
    found = plan(drawing(batches_of))
    unbroken = completed(training(found, choice, tmp_path / "unbroken"))
    resumed = interrupted(found, choice, tmp_path / "broken", reports)
    assert (resumed.val, resumed.outcome) == (unbroken.val, unbroken.outcome)
    assert [rung.val for rung in resumed.rungs] == [rung.val for rung in unbroken.rungs]
    assert len({rung.val for rung in resumed.rungs}) == len(resumed.rungs) == 3


def train_in_half(trial) -> None:
    """Train in half precision with scaled gradients, some of which overflow, and score averaged weights."""
    model = trial.prepare(loops.make_model())
    optimizer = torch.optim.AdamW(trial.parameter_groups(model, lr=3e-3, weight_decay=0.01))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18, growth_interval=2)
    trial.attach(model, optimizer, look=loops.scorer(model))
    trial.keep(averaged=averaged, scaler=scaler)
    for _ in trial.epochs(4):
        for x, y in loops.loader(32):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = nn.functional.mse_loss(model(x).float(), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            averaged.update_parameters(model)
        with trial.evaluating():
            trial.report(val=loops.scorer(averaged)(), scale=scaler.get_scale())
    trial.finish(val=loops.scorer(averaged)(), model=averaged, scale=scaler.get_scale())


@pytest.mark.parametrize("choice", [Dilated(4), Inflated(4, learned=True), Moved(2), Searched(2)], ids=str)
def test_a_scaler_and_averaged_weights_go_on_where_they_were(choice, tmp_path):
    found = plan(train_in_half)
    unbroken = completed(training(found, choice, tmp_path / "unbroken"))
    assert 0 < unbroken.steps < found.space.length.all_steps  # some were left out
    for reports in (1, 3):
        resumed = interrupted(found, choice, tmp_path / str(reports), reports)
        assert (resumed.val, resumed.outcome, resumed.steps) == (unbroken.val, unbroken.outcome, unbroken.steps)
        assert [(rung.step, rung.val) for rung in resumed.rungs] == [(rung.step, rung.val) for rung in unbroken.rungs]
        assert resumed.scores == unbroken.scores
        assert kept_score(found, tmp_path / str(reports)) == pytest.approx(unbroken.val, rel=1e-5)
