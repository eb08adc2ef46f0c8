"""What a user's loop runs is counted as it runs: held against a meter of every operator."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from rfsearch.own_loop.metering import LoopMeter, known_calls
from rfsearch.training.meter import Meter

Loop = Callable[[nn.Module, torch.optim.Optimizer], None]
STEPS = 6


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
    )


def batch(size: int = 4, side: int = 16) -> torch.Tensor:
    return torch.rand(size, 3, side, side)


def plain(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(batch()).square().mean().backward()
        optimizer.step()


def mixed_sizes(model, optimizer):
    for step in range(STEPS):
        optimizer.zero_grad()
        model(batch(2 + step % 2, 16 + 4 * (step % 3))).square().mean().backward()
        optimizer.step()


def autocast(model, optimizer):
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch()).float().square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def scaled(model, optimizer):
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = model(batch()).float().square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()


def accumulating(model, optimizer):
    for step in range(2 * STEPS):
        (model(batch()).square().mean() / 2).backward()
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()


def taught(model, optimizer):
    teacher = small().eval()
    for _ in range(STEPS):
        x = batch()
        with torch.no_grad():
            aim = teacher(x)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), aim).backward()
        optimizer.step()


def averaged(model, optimizer):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(batch()).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
    with torch.no_grad():
        average(batch())


def several_passes(model, optimizer):
    for _ in range(STEPS):
        optimizer.zero_grad()
        x = batch()
        (model(x) - model(x.flip(3)).flip(3)).square().mean().backward()
        optimizer.step()


def penalised(model, optimizer):
    for _ in range(STEPS):
        optimizer.zero_grad()
        x = batch().requires_grad_()
        loss = model(x).square().mean()
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        (loss + slope.square().sum()).backward()
        optimizer.step()


def checkpointed(model, optimizer):
    for _ in range(STEPS):
        optimizer.zero_grad()
        y = torch.utils.checkpoint.checkpoint(model, batch().requires_grad_(), use_reentrant=False)
        y.square().mean().backward()
        optimizer.step()


def with_closure(model, optimizer):
    for _ in range(STEPS):

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(batch()).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def skipping(model, optimizer):
    """Half of the steps, drawn at random, skip the first three layers' backward and the last layer."""
    for _ in range(4 * STEPS):
        optimizer.zero_grad()
        x = batch()
        y = model[:3](x) if torch.rand(()) < 0.5 else model(x)
        y.square().mean().backward()
        optimizer.step()


def vectors(model, optimizer):
    for _ in range(STEPS):
        optimizer.zero_grad()
        y = model(batch())
        y.backward(torch.ones_like(y), retain_graph=True)
        optimizer.step()


def failing(model, optimizer):
    """A step of the optimiser fails and is tried again; gradients are cleared to zeros."""
    usual = optimizer.param_groups[0]["betas"]
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        model(batch()).square().mean().backward()
        nn.utils.clip_grad_norm_(model[0].parameters(), 1.0)
        optimizer.param_groups[0]["betas"] = None if step == 2 else usual
        try:
            optimizer.step()
        except TypeError:
            continue


def mapped(model, optimizer):
    """Gradients of each image by itself, of batches whose sizes change."""
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights, x):
        model.eval()
        return torch.func.functional_call(model, weights, (x[None],)).square().mean()

    for step in range(STEPS):
        optimizer.zero_grad()
        torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, batch(2 + step))
        model(batch()).square().mean().backward()
        optimizer.step()


LOOPS = [plain, mixed_sizes, autocast, scaled, accumulating, taught, averaged, several_passes, penalised]
LOOPS += [with_closure, skipping, vectors, failing, mapped]


def metered(loop: Loop, make: Callable[[], nn.Module] = small, followed: bool = False) -> float:
    """Run a loop in a thread, as a trial does; returns what was counted.

    Args:
        loop: The loop.
        make: Makes its model.
        followed: Whether passes of the model are charged unwatched once they are known.
    """
    meter, faults = LoopMeter(), []

    def run() -> None:
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        torch.manual_seed(1)
        try:
            with known_calls():
                meter.begin([optimizer], model if followed else None)
                loop(model, optimizer)
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return meter.flop


def by_operator(loop: Loop, make: Callable[[], nn.Module] = small) -> float:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(1)
    with Meter(memory=False) as meter:
        loop(model, optimizer)
    return meter.flop


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_it_counts_what_every_operator_costs(loop):
    assert metered(loop) == pytest.approx(by_operator(loop), rel=0.01)


def test_what_is_computed_again_is_charged_no_less_than_it_costs():
    """Recomputing stops inside a call, which is charged as if it had gone through."""
    last = 2 * 4 * 16 * 4 * 9 * 16 * 16
    counted, costs = metered(checkpointed), by_operator(checkpointed)
    assert costs <= counted <= 1.01 * (costs + STEPS * last)


def test_a_scripted_model_is_counted_operator_by_operator():
    def scripted() -> nn.Module:
        return torch.jit.script(small())

    def scores(model, optimizer):
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(batch()), torch.zeros(4, 4, 16, 16)).backward()
            optimizer.step()

    assert metered(scores, scripted) == pytest.approx(by_operator(scores, small), rel=0.03)


class Augmented(Dataset):
    """Images that are transformed with torch where they are read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
        kernel = torch.ones(3, 3, 5, 5)
        return nn.functional.conv2d(image[None], kernel, padding=2)[0] / torch.linalg.norm(kernel)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_data_costs_nothing(workers):
    def reading(model, optimizer):
        for x in DataLoader(Augmented(), 4, num_workers=workers):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    apart = [torch.rand(4, 3, 16, 16) for _ in range(2)]

    def given(model, optimizer):
        for x in apart:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    assert metered(reading) == pytest.approx(by_operator(given), rel=0.01)


def test_data_is_read_as_ever_afterwards():
    metered(plain)
    assert torch.utils.data.dataloader._BaseDataLoaderIter.__next__.__name__ == "__next__"


def test_an_unknown_operator_is_an_error_that_says_what_to_do():
    from rfsearch.errors import ModelError

    library = torch.library.Library("rfsearch_test", "DEF")
    library.define("strange(Tensor x) -> Tensor")
    library.impl("strange", lambda x: x + 1, "CompositeExplicitAutograd")

    def loop(model, optimizer):
        torch.ops.rfsearch_test.strange(batch())
        plain(model, optimizer)

    with pytest.raises(ModelError, match="register_flop"):
        metered(loop)
