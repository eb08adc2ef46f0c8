"""Passes that are charged without being watched are charged what they cost."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn

from rfsearch.own_loop import known_passes
from rfsearch.training.tally import Calls
from tests.own_loop.test_metering import LOOPS, Loop, batch, metered

STEPS = 60


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often calls of each name are watched."""
    counted: Counter[str] = Counter()
    watch = Calls.__torch_function__

    def counting(self, func, types, args=(), kwargs=None):
        counted[func.__name__] += 1
        return watch(self, func, types, args, kwargs)

    monkeypatch.setattr(Calls, "__torch_function__", counting)
    return counted


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes are known after two."""
    monkeypatch.setattr(known_passes, "WATCHED", 2)


class Choosing(nn.Module):
    """Runs its middle layer now and then."""

    def __init__(self, share: float, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 5, padding=2)
        self.share, self.frozen = share, frozen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        runs = bool(torch.rand(()) < self.share)
        if self.frozen:
            with torch.no_grad():
                more = self.middle(x) if runs else torch.zeros_like(x)
            x = x + more
        elif runs:
            x = x + self.middle(x)
        return self.last(x)


def steps(number: int = STEPS, between: Callable[[int, nn.Module], object] = lambda *_: None) -> Loop:
    """A loop of so many steps, with something done before each."""

    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for step in range(number):
            between(step, model)
            optimizer.zero_grad()
            model(batch()).square().mean().backward()
            optimizer.step()

    return loop


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_every_loop_is_counted_as_if_all_were_watched(loop: Loop) -> None:
    assert metered(loop, followed=True) == pytest.approx(metered(loop), rel=1e-12)


def test_passes_are_watched_until_nothing_has_been_new_for_a_while(seen: Counter[str]) -> None:
    whole = metered(steps(), followed=True)
    watched = seen["conv2d"] / 2
    assert known_passes.WATCHED < watched <= known_passes.WATCHED + 1 + STEPS // known_passes.CHECKED_AGAIN + 1
    assert whole == pytest.approx(metered(steps()), rel=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.05], ids=["often", "seldom"])
def test_a_layer_that_is_skipped_at_random_is_counted_when_it_runs(share: float, seen: Counter[str]) -> None:
    loop = steps(300)
    counted = metered(loop, lambda: Choosing(share), followed=True)
    spared = 300 - seen["backward"] + seen["conv2d"] / 3
    seen.clear()
    assert counted == pytest.approx(metered(loop, lambda: Choosing(share)), rel=0.002)
    assert spared < 200


def test_what_no_gradient_passes_through_is_looked_at_again_and_again() -> None:
    """No graph shows it: until a watched pass differs, it is missed."""

    def begin(step: int, model: nn.Module) -> None:
        model.share = float(step >= 100)

    loop, make = steps(300, begin), lambda: Choosing(0.0, frozen=True)
    missed = known_passes.CHECKED_AGAIN / 200
    extra = 200 * 2 * 4 * 16 * 16 * 8 * 8 * 25  # the middle's arithmetic in these steps
    assert metered(loop, make, followed=True) == pytest.approx(metered(loop, make), abs=1.1 * missed * extra)


@pytest.mark.usefixtures("soon")
def test_a_pass_that_no_graph_vouches_for_is_watched() -> None:
    def kept(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for step in range(STEPS):
            model.share = float(step >= STEPS // 2)
            optimizer.zero_grad()
            model(batch()).square().mean().backward(retain_graph=step >= STEPS // 3)
            optimizer.step()

    def scored(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        steps()(model, optimizer)
        model.share = 1.0
        with torch.no_grad():
            model(batch())

    for loop in (kept, scored):
        counts = [metered(loop, lambda: Choosing(0.0), followed=followed) for followed in (True, False)]
        assert counts[0] == pytest.approx(counts[1], rel=1e-12)


@pytest.mark.usefixtures("soon")
def test_layers_that_begin_to_train_in_between_are_counted(seen: Counter[str]) -> None:
    def thaw(step: int, model: nn.Module) -> None:
        model[0].requires_grad_(step >= STEPS // 2)

    assert metered(steps(between=thaw), followed=True) == pytest.approx(metered(steps(between=thaw)), rel=0.005)
    assert seen["conv2d"] < 4 * STEPS


@pytest.mark.usefixtures("soon")
def test_copies_of_the_model_and_passes_without_gradients_are_watched() -> None:
    def copied(step: int, model: nn.Module) -> None:
        copy.deepcopy(model)(batch(1))
        with torch.no_grad():
            model(batch(1 + step % 3))

    assert metered(steps(between=copied), followed=True) == pytest.approx(metered(steps(between=copied)), rel=1e-12)


@pytest.mark.usefixtures("soon")
def test_a_pass_that_fails_is_charged_and_the_next_ones_are_counted() -> None:
    class Fails(nn.Sequential):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            Fails.calls += 1
            if Fails.calls == STEPS // 2:
                raise ValueError("of the user's own")
            return y

    def make() -> nn.Module:
        torch.manual_seed(0)
        Fails.calls = 0
        return Fails(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1))

    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            try:
                model(batch()).square().mean().backward()
            except ValueError:
                continue
            optimizer.step()

    assert metered(loop, make, followed=True) == pytest.approx(metered(loop, make), rel=1e-12)
