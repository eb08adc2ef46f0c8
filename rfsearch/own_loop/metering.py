"""Meter what runs in a training loop that is its user's own, without a change of that loop.

Calls of torch are counted in the thread that trains (`rfsearch.training.tally`), from when the training is attached to
its end: forward and backward passes of whatever models, losses, clipping, averaging of weights. What reads data is no
training, and is left out; what an optimiser does in a step is metered once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.data.dataloader import _BaseDataLoaderIter

from rfsearch.own_loop.known_passes import KnownPasses
from rfsearch.training.forks import Origin
from rfsearch.training.meter import Meter
from rfsearch.training.tally import Tally

_ROUNDING = 1e-9


class LoopMeter:
    """Count the FLOP of one training, in the thread that runs it and that ends with it.

    The first step is metered by operator beside it: where more runs than calls from Python say, as in TorchScript,
    operators are metered ever after.

    Attributes:
        steps: Taken by the first optimiser.
        left_out: Its steps that a scaler of gradients left out, since they had overflowed.
    """

    def __init__(self) -> None:
        """Count nothing yet."""
        self._tally = Tally()
        self._works: dict[Hashable, float] = {}
        self._beside: _Beside | None = None
        self._optimising: ExitStack | None = None
        self._pauses = self.steps = self.left_out = 0
        self._first: torch.optim.Optimizer | None = None
        self._passes: KnownPasses | None = None

    @property
    def flop(self) -> float:
        """What has run so far."""
        return max(self._tally.flop, self._beside.flop if self._beside else 0.0)

    def begin(self, optimizers: Sequence[torch.optim.Optimizer], model: nn.Module | None = None) -> None:
        """Count from here on, to the end of this thread.

        Args:
            optimizers: What takes the steps.
            model: A model whose passes `KnownPasses` may follow.
        """
        self._first = optimizers[0]
        if model is not None:
            self._passes = KnownPasses(self._tally, model)
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(self._before_step)
            optimizer.register_step_post_hook(self._after_step)
        self._beside = _Beside(self)
        self._beside.__enter__()  # type: ignore[no-untyped-call]
        self._tally.calls.__enter__()  # type: ignore[no-untyped-call]
        _training.meter = self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what runs inside."""
        self._pauses += 1
        self._tally.calls.off = True
        try:
            yield
        finally:
            self._pauses -= 1
            self._tally.calls.off = self.pausing

    @property
    def pausing(self) -> bool:
        """Whether what runs now is left out."""
        return self._pauses > 0

    @contextmanager
    def as_one(self, describe: Callable[[], Hashable]) -> Iterator[None]:
        """Count what runs inside as one piece of work: metered when it is the first of its kind.

        Its calls are spared the detour that every call takes while calls are watched.

        Args:
            describe: Returns what the cost can depend on.
        """
        if self.pausing:  # it is left out, or part of a larger piece
            yield
            return
        with self.paused(), self._tally.calls.unwatched():
            kind = describe()
            meter = None if kind in self._works else Meter(memory=False)
            try:
                with meter or nullcontext():
                    yield
                if meter is not None:
                    self._works[kind] = meter.flop
            finally:
                flop = self._works[kind] if meter is None else meter.flop
                self._tally.flop += flop
                if self._beside is not None:
                    self._beside.flop += flop

    @contextmanager
    def scaled(self, optimizer: object) -> Iterator[None]:
        """Note whether a scaler of gradients, which runs inside, leaves out an optimiser's step."""
        before = self.steps
        yield
        self.left_out += optimizer is self._first and self.steps == before

    def follows(self, module: object) -> KnownPasses | None:
        """Return what counts the passes of a module, where they are more than the calls that they make."""
        followed = self._passes is not None and self._passes.model is module and self._beside is None
        return self._passes if followed else None

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("closure", args[1] if len(args) > 1 else None) is not None:
            return  # it trains: counted call by call

        def describe() -> Hashable:
            return id(optimizer), tuple([p.grad is None for group in optimizer.param_groups for p in group["params"]])

        self.end_step()
        self._optimising = ExitStack()
        self._optimising.enter_context(self.as_one(describe))

    def end_step(self) -> None:
        """Watch calls again: behind a step of the optimiser, and wherever one must have failed."""
        if self._optimising is not None:
            self._optimising.close()
            self._optimising = None

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.steps += optimizer is self._first
        self.end_step()
        if self._passes is not None:
            self._passes.forget()
        beside = self._beside
        if beside is None or beside is not _get_current_dispatch_mode():
            return
        if beside.flop <= self._tally.flop * (1 + _ROUNDING):
            beside.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._beside = None


class _Beside(Meter):
    """Meter operators, those left out aside."""

    def __init__(self, loop: LoopMeter) -> None:
        super().__init__(memory=False)
        self._loop, self._origin = loop, Origin()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A process that is forked off has a copy of this mode.
        if self._loop.pausing or self._origin.elsewhere:
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


class _Training(threading.local):
    """Hold the meter of the training that runs in a thread."""

    meter: LoopMeter | None = None


_training = _Training()


@contextmanager
def known_calls() -> Iterator[None]:
    """Let whatever is metered meanwhile know calls of torch that make many others.

    What data loaders do in the thread that trains is left out; clipping and clearing gradients is one piece of work.
    Steps that a scaler of gradients leaves out are counted.
    """
    following, clip = _BaseDataLoaderIter.__next__, nn.utils.clip_grad_norm_
    clear, step = torch.optim.Optimizer.zero_grad, torch.amp.GradScaler.step
    run = nn.Module.__call__

    def read(self: Any) -> Any:
        meter = _training.meter
        if meter is None:
            return following(self)
        meter.end_step()
        with meter.paused():
            return following(self)

    @wraps(clip)
    def clip_grad_norm_(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _training.meter
        if meter is None or isinstance(parameters, Tensor):
            return clip(parameters, *args, **kwargs)
        parameters = list(parameters)
        with meter.as_one(lambda: ("clip", *[None if p.grad is None else p.grad.shape for p in parameters])):
            return clip(parameters, *args, **kwargs)

    @wraps(clear)
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _training.meter
        if meter is None:
            return clear(self, *args, **kwargs)
        meter.end_step()
        with meter.as_one(lambda: "clear"):  # no arithmetic
            return clear(self, *args, **kwargs)

    @wraps(step)
    def scaled_step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _training.meter
        if meter is None:
            return step(self, optimizer, *args, **kwargs)
        with meter.scaled(optimizer):
            return step(self, optimizer, *args, **kwargs)

    def run_module(self: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _training.meter
        passes = None if meter is None else meter.follows(self)
        if passes is None:
            return run(self, *args, **kwargs)
        return passes.call(partial(run, self), args, kwargs)

    _install(read, clip_grad_norm_, zero_grad, scaled_step, run_module)
    try:
        yield
    finally:
        _install(following, clip, clear, step, run)


def _install(read: Any, clip: Any, clear: Any, step: Any, run: Any) -> None:
    _BaseDataLoaderIter.__next__ = read  # type: ignore[method-assign]
    nn.utils.clip_grad_norm_ = clip
    torch.optim.Optimizer.zero_grad = clear  # type: ignore[method-assign]
    torch.amp.GradScaler.step = step  # type: ignore[method-assign]
    nn.Module.__call__ = run  # type: ignore[method-assign]
