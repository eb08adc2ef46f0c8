"""Training functions of a user's own, small enough for tests."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

INPUT = (1, 1, 24, 24)
EPOCHS = 6


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)
    )


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noise, and what a kernel whose taps are 4 px apart makes of it."""
    x = torch.randn(count, *INPUT[1:], generator=torch.Generator().manual_seed(seed))
    kernel = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(5))
    return x, nn.functional.conv2d(x, kernel, padding=4, dilation=4)


def scorer(model: nn.Module, seed: int = 1) -> Callable[[], float]:
    x, y = images(16, seed)

    def score() -> float:
        training = model.training
        model.eval()
        with torch.no_grad():
            result = -nn.functional.mse_loss(model(x), y).item()
        model.train(training)
        return result

    return score


def loader(count: int = 48, **options) -> DataLoader:
    return DataLoader(TensorDataset(*images(count, 0)), 8, shuffle=True, **options)


def train(trial) -> None:
    """A usual loop: AdamW, one cycle, clipping, a score after each epoch."""
    model = trial.prepare(make_model())
    optimizer = torch.optim.AdamW(trial.parameter_groups(model, lr=3e-3, weight_decay=0.01))
    batches, score, test = loader(), scorer(model), scorer(model, 2)
    trial.attach(model, optimizer, look=score)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * len(batches))
    trial.keep(scheduler=scheduler)
    for _ in trial.epochs(EPOCHS):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
        with trial.evaluating():
            trial.report(val=score())
        torch.rand(1)  # what comes behind a report is part of the training too
    with trial.evaluating():
        trial.finish(val=score(), test=test())


def train_without_a_look(trial) -> None:
    model = trial.prepare(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trial.attach(model, optimizer)
    batches = loader(16)
    for _ in trial.epochs(2):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    trial.finish(val=scorer(model)())
