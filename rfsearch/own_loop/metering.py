"""Meter what runs in a training loop that is its user's own, without a change of that loop.

Calls of torch are counted in the thread that trains (`rfsearch.training.tally`), from when the training is attached to
its end: forward and backward passes of whatever models, losses, clipping, averaging of weights. What reads data is no
training, and is left out; what an optimiser does in a step is metered once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.data.dataloader import _BaseDataLoaderIter

from rfsearch.training.meter import Meter
from rfsearch.training.tally import Tally

_ROUNDING = 1e-9


class LoopMeter:
    """Count the FLOP of one training, in the thread that runs it and that ends with it.

    The first step is metered by operator beside it: where more runs than calls from Python say, as in TorchScript,
    operators are metered ever after.
    """

    def __init__(self) -> None:
        """Count nothing yet."""
        self._tally = Tally()
        self._steps: dict[Hashable, float] = {}
        self._beside: _Beside | None = None
        self._optimising: ExitStack | None = None
        self._pauses = 0

    @property
    def flop(self) -> float:
        """What has run so far."""
        return max(self._tally.flop, self._beside.flop if self._beside else 0.0)

    def begin(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Count from here on, to the end of this thread."""
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

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("closure", args[1] if len(args) > 1 else None) is not None:
            return  # it trains: counted call by call
        groups = optimizer.param_groups
        kind = id(optimizer), tuple([p.grad is None for group in groups for p in group["params"]])
        self._optimising = ExitStack()
        meter = None if kind in self._steps else Meter(memory=False)
        self._optimising.callback(self._charge_step, kind, meter)
        self._optimising.enter_context(self.paused())
        if meter is not None:
            self._optimising.enter_context(meter)

    def _charge_step(self, kind: Hashable, meter: Meter | None) -> None:
        flop = self._steps.setdefault(kind, meter.flop if meter else 0.0)
        self._tally.flop += flop
        if self._beside is not None:
            self._beside.flop += flop

    def _after_step(self, *_: Any) -> None:
        if self._optimising is not None:
            self._optimising.close()
            self._optimising = None
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
        self._loop, self._process = loop, os.getpid()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A process that is forked off, as those that load data are, has a copy of this mode.
        if self._loop.pausing or os.getpid() != self._process:
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


class _Training(threading.local):
    """Hold the meter of the training that runs in a thread."""

    meter: LoopMeter | None = None


_training = _Training()


@contextmanager
def loading_apart() -> Iterator[None]:
    """Leave out, of whatever is metered meanwhile, what data loaders do in the thread that trains."""
    following = _BaseDataLoaderIter.__next__

    def read(self: Any) -> Any:
        meter = _training.meter
        if meter is None:
            return following(self)
        with meter.paused():
            return following(self)

    _BaseDataLoaderIter.__next__ = read  # type: ignore[method-assign]
    try:
        yield
    finally:
        _BaseDataLoaderIter.__next__ = following  # type: ignore[method-assign]
