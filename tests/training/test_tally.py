"""Every step and every pass is charged what it did, whatever decides what that is."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from rfsearch.backbones.small import wei_small
from rfsearch.choices import Dilated
from rfsearch.data.batches import normalised_images
from rfsearch.layers import LSDFN, FractionalConv2d, Inflation
from rfsearch.layers.inflation import InflationFactor
from rfsearch.layers.one_call import one_call
from rfsearch.ledger import Assignment
from rfsearch.space import Space
from rfsearch.training import Meter, Order, Training
from rfsearch.training.latency import LATENCY_PASSES
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.tally import Tally
from tests.toys import toy_faces, toy_space

CPU = torch.device("cpu")
DATA = toy_faces()
STEPS = 10


class Whim(nn.Module):
    """The small network with work behind it that is done or not: `work(net, logits, step)` gives the logits."""

    def __init__(self, num_classes: int, in_channels: int, work: Callable[..., Tensor]) -> None:
        super().__init__()
        for name, child in wei_small(num_classes, in_channels).named_children():
            self.add_module(name, child)
        self.extra = nn.Conv2d(num_classes, num_classes, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(num_classes, num_classes, 3, 3) / 30)
        self.step, self._work = -1, work

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.conv6(self.inflation(self.bn(self.features(image)))))
        logits = self.interpolation(self.output(torch.relu(self.conv7(x))), image.shape[-2:])
        if image.is_meta:
            return logits
        self.step += self.training
        return self._work(self, logits, image)


def _when(chosen: Callable[[Whim, Tensor], bool], functional: bool = False) -> Callable[..., Tensor]:
    def work(net: Whim, logits: Tensor, image: Tensor) -> Tensor:
        if not chosen(net, image):
            return logits
        return logits + (F.conv2d(logits, net.kernel, padding=1) if functional else net.extra(logits))

    return work


def _checkpointed(reentrant: bool) -> Callable[..., Tensor]:
    def work(net: Whim, logits: Tensor, image: Tensor) -> Tensor:
        block = lambda x: x + net.extra(torch.relu(x))  # noqa: E731
        return checkpoint(block, logits, use_reentrant=reentrant) if random.random() < 0.5 else block(logits)

    return work


def _one_of_two(net: Whim, logits: Tensor, image: Tensor) -> Tensor:
    """Make the same calls every time, with another graph behind the one that counts."""
    dear, cheap = net.extra(net.extra(logits)), logits * 2
    return dear if random.random() < 0.5 else cheap


def _without_gradient(net: Whim, logits: Tensor, image: Tensor) -> Tensor:
    if random.random() < 0.5:
        return logits
    with torch.no_grad():
        constant = F.conv2d(logits, net.kernel, padding=1)
    return logits + constant


def _of_another_size(net: Whim, logits: Tensor, image: Tensor) -> Tensor:
    smaller = F.interpolate(logits, scale_factor=random.choice([0.5, 0.75]), mode="bilinear")
    return logits + F.interpolate(net.extra(smaller), logits.shape[-2:], mode="bilinear")


WORKS = {
    "python's random": _when(lambda net, image: random.random() < 0.5),
    "numpy's random": _when(lambda net, image: np.random.rand() < 0.5),  # noqa: NPY002 (what a network would do)
    "torch's random": _when(lambda net, image: bool(torch.rand(()) < 0.5)),
    "no module": _when(lambda net, image: random.random() < 0.5, functional=True),
    "no gradient": _without_gradient,
    "late branch": _when(lambda net, image: net.step >= 7),
    "every third step": _when(lambda net, image: net.step % 3 == 2),
    "batch": _when(lambda net, image: bool(image[0, 0, 0, 0] > image[1, 0, 0, 0]) if len(image) > 1 else False),
    "checkpointing": _checkpointed(reentrant=False),
    "reentrant checkpointing": _checkpointed(reentrant=True),
    "one of two": _one_of_two,
    "size": _of_another_size,
}
_NAMES = list(WORKS)


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """`whim_<n>` builds a network with the n-th work."""
    if not name.startswith("whim_"):
        raise AttributeError(name)
    work = WORKS[_NAMES[int(name.removeprefix("whim_"))]]
    return lambda num_classes, in_channels=3: Whim(num_classes, in_channels, work)


def whim_space(folder: Path, name: str, **recipe: object) -> Space:
    return toy_space(folder, **{"steps": 12, **recipe}).with_(backbone=f"{__name__}:whim_{_NAMES.index(name)}")


def seeded(number: int) -> None:
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)


def a_loop(space: Space) -> TrainingLoop:
    seeded(0)
    return TrainingLoop(space, DATA, space.uniform(Dilated(1)), 0, CPU)


@pytest.mark.parametrize("name", WORKS)
def test_every_step_is_charged_what_it_did(tmp_path, name):
    space = whim_space(tmp_path, name)
    loop, twin = a_loop(space), a_loop(space)
    charged, metered = [], []
    for step in range(STEPS):
        seeded(step)
        charged.append(loop.train_step(step))
        twin._set_rates(step)
        batch = twin._batches.at(step)
        seeded(step)
        # As training did until now, with every operator metered.
        with Meter() as meter:
            twin.optimisation.optimizer.zero_grad(set_to_none=True)
            twin.task.loss(twin.model(batch[0]), batch[1]).backward()
            twin.optimisation.move()
        metered.append(meter.flop)
    if name == "checkpointing":  # it stops recomputing within a call, which is charged as a whole
        assert all(real <= cost <= 1.1 * real for cost, real in zip(charged, metered, strict=True))
    else:
        assert charged == metered
    assert len(set(charged)) > 1


def test_a_step_whose_kind_is_known_is_not_metered_again(tmp_path, monkeypatch):
    loop = a_loop(whim_space(tmp_path, "late branch"))
    costs = [loop.train_step(step) for step in range(3)]
    entered: list[Meter] = []
    monkeypatch.setattr(Meter, "__enter__", lambda meter: entered.append(meter) or meter)
    assert loop.train_step(3) == costs[-1]
    assert not entered


KERNELS = {
    "inflation": (
        Inflation(InflationFactor(1.0, learned=True)),
        lambda layer, value: layer.factor.f.fill_(value),
        [1.0, 1.3, 1.31, 0.8, 1.3, 2.0, 1.0],
    ),
    "fractional": (
        FractionalConv2d(nn.Conv2d(4, 4, 3, padding=2, dilation=2), 2.0),
        lambda layer, value: layer.dilation.fill_(value),
        [2.0, 2.4, 2.5, 3.0, 2.4, 1.0, 2.0],
    ),
    "LS-DFN": (
        LSDFN(4, 4, features=4, s=3, k=3),
        lambda layer, value: layer.stride.gamma.fill_(value),
        [1.0, 1.5, 1.6, 2.0, 1.5, 3.0, 1.0],
    ),
}


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_of_many_calls_costs_what_its_operators_do_at_every_value_it_moves_to(name, learned):
    layer, move, values = KERNELS[name]
    tally, x = Tally(), torch.randn(2, 4, 9, 11)
    for parameter in layer.parameters():
        parameter.requires_grad_(learned)
    for value in [*values, *values]:
        with torch.no_grad():
            move(layer, value)
        before = tally.flop
        with tally.counting("step"):
            tally.backward(layer(x.clone().requires_grad_()).square().sum())
        layer.zero_grad(set_to_none=True)
        with Meter() as meter:
            layer(x.clone().requires_grad_()).square().sum().backward()
        layer.zero_grad(set_to_none=True)
        assert tally.flop - before == pytest.approx(meter.flop, rel=1e-12)


def test_a_kernel_of_many_calls_is_seen_as_one():
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    @one_call
    def kernel(x: Tensor, times: int) -> Tensor:
        for _ in range(times):
            x = x + 1
        return x

    with Watch():
        assert torch.equal(kernel(torch.zeros(2), times=5), torch.full((2,), 5.0))
    assert [func for func in seen if func not in (torch.zeros, torch.full, torch.equal)] == [kernel]


def test_work_that_no_call_shows_is_metered_for_ever():
    """TorchScript runs its operators without a call from Python."""
    scripted = torch.jit.script(_scripted)
    tally, x = Tally(), torch.randn(4, 8)
    for _ in range(3):
        before = tally.flop
        with tally.counting("work"):
            scripted(x)
        with Meter() as meter:
            scripted(x)
        assert tally.flop - before == meter.flop > 0


def _scripted(x: Tensor) -> Tensor:
    return torch.relu(x) @ x.t()


def assignment(space: Space, limit: float = 1e18) -> Assignment:
    return Assignment("t-0-000", "exhaustive", 0, space.uniform(Dilated(1)).to_json(), 7, limit)


def finished(space: Space, folder: Path, limit: float = 1e18, looks: int = 99) -> object:
    work = Training(space, DATA, Order(assignment(space, limit), "flop", CPU, folder / "t"))
    while (record := work.advance()).status == "pruned" and looks > 1:
        looks -= 1
    return record


def test_scoring_is_charged_by_what_every_image_costs(tmp_path):
    """A network that works harder at some images: one metered image does not stand for all."""
    loop = a_loop(whim_space(tmp_path, "batch"))
    split = DATA.splits["val"]
    _, flop = loop.score(split)
    real = 0.0
    loop.model.eval()
    for start in range(0, len(split), 4):
        images = normalised_images(_part(split, start, 4))
        with torch.no_grad(), Meter() as meter:
            loop.model(images)
        real += meter.flop
    assert flop == real != loop.evaluation.cost(len(split)).flop


def _part(split, start, count):
    stop = start + count
    return replace(
        split, images=split.images[start:stop], targets=split.targets[start:stop], names=split.names[start:stop]
    )


def test_all_passes_of_a_trial_are_charged(tmp_path, monkeypatch):
    """Training, scoring, latency, examples and whatever else: no operator of the network runs for nothing."""
    space = toy_space(tmp_path)
    real: list[float] = []
    forward = nn.Module.__call__

    def counted(module: nn.Module, *args: object, **kwargs: object) -> object:
        if type(module).__name__ != "ParsingPath" or torch.is_grad_enabled() or args[0].is_meta:
            return forward(module, *args, **kwargs)
        with Meter(memory=False) as meter:
            out = forward(module, *args, **kwargs)
        real.append(meter.flop)
        return out

    steps: list[float] = []
    train_step = TrainingLoop.train_step
    monkeypatch.setattr(
        TrainingLoop, "train_step", lambda self, step: steps.append(train_step(self, step)) or steps[-1]
    )
    monkeypatch.setattr(nn.Module, "__call__", counted)
    record = finished(space, tmp_path)
    image = min(real)
    real += [image] * LATENCY_PASSES  # latency is measured after the run
    assert record.cost.flop >= sum(steps) + sum(real)
    assert record.cost.flop <= (sum(steps) + sum(real)) * 1.05


def test_resumed_it_has_cost_the_same_where_steps_differ(tmp_path):
    space = whim_space(tmp_path, "batch")
    whole = finished(space, tmp_path / "whole")
    finished(space, tmp_path / "half", looks=1)
    again = finished(space, tmp_path / "half")
    assert again.cost.flop == whole.cost.flop


class _Raising(Whim):
    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, self._fail)

    @staticmethod
    def _fail(net: Whim, logits: Tensor, image: Tensor) -> Tensor:
        if net.training and net.step == 2:
            raise ValueError("a shape is off")
        return logits


def test_a_step_that_raised_is_charged_what_had_run(tmp_path):
    space = toy_space(tmp_path).with_(backbone=f"{__name__}:_Raising")
    step = a_loop(space).train_step(0)
    probe = a_loop(space).evaluation.cost(1).flop
    record = finished(space, tmp_path)
    assert record.status == "failed"
    forward = 2 * probe  # of a batch of two, all that had run
    look = 4 * probe
    assert record.cost.flop == pytest.approx(2 * step + forward + look + probe, rel=1e-6)  # statistics of batches
    assert record.cost.epochs == 3 * 2 / 12
