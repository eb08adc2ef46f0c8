"""Charge a model's passes with what passes like them cost, without watching their calls.

Every call that is watched takes a detour of some microseconds, which a pass of hundreds of small calls feels. Once
passes have gone on like those before them for a while, only their outsides are looked at: the shapes that go in, and
in the backward pass the graph of gradients that came out. That graph says what ran, a skipped layer included; where one
comes up that no watched pass had, calls are watched again, for twice as long as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import _get_current_function_mode

from rfsearch.training.tally import Tally, described, remember

WATCHED = 10
"""Backward passes in which nothing must be new before calls are no longer watched."""
CHECKED_AGAIN = 50
"""In every so many backward passes one is watched all the same: what has no gradients is in no graph."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class _Pass:
    kind: Hashable
    flop: float
    watched: bool


class KnownPasses:
    """Follow the passes of one model in a loop.

    Args:
        tally: Counts the loop.
        model: What a pass costs must depend on nothing but what goes in and the path that it takes: no sizes that
            values decide.
    """

    def __init__(self, tally: Tally, model: nn.Module) -> None:
        """Know nothing yet."""
        self.model = model
        self._tally = tally
        self._inside = False
        self._watching = True
        self._backwards = 0
        self._like_before, self._asked = 0, float(WATCHED)
        self._open: list[_Pass] = []
        self._last: dict[Hashable, float] = {}
        self._costs: dict[Hashable, float] = {}
        self._over_backward = 0.0
        tally.after_backward = self._verify

    def call(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a pass, and count it."""
        tally = self._tally
        calls = tally.calls
        if self._inside or calls.off or not torch.is_grad_enabled() or _get_current_function_mode() is not calls:
            return forward(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # to describe tensors is no call to whoever watches those
            kind = self._kind(args, kwargs)
        if kind is None:
            return forward(*args, **kwargs)
        if not self._open:
            self._watching = self._like_before < self._asked or self._backwards % CHECKED_AGAIN == 0
        known = self._last.get(kind, 0.0)
        watched = kind not in self._last or self._watching
        before, self._inside = tally.flop, True
        try:
            if watched:
                output = forward(*args, **kwargs)
            else:
                with calls.unwatched():
                    tally.flop += known
                    output = forward(*args, **kwargs)
        finally:
            self._inside = False
        spent = tally.flop - before
        self._open.append(_Pass(kind, spent, watched))
        if watched:
            remember(self._last, kind, spent)
        return output

    def forget(self) -> None:
        """Forget passes whose gradients no call of `backward` has asked for, behind a step of the optimiser."""
        if self._open:
            self._open, self._like_before = [], 0

    def _kind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
        try:
            return described(args), described(kwargs), self.model.training, *_autocast()
        except TypeError:  # an argument that nothing is known of
            return None

    def _verify(self, graph: Hashable | None, backward: float) -> None:
        """Hold passes against the graph of gradients that they have made."""
        passes, self._open = self._open, []
        self._backwards += 1
        if not passes:
            return
        if graph is None:
            self._like_before, self._asked = 0, math.inf
            return
        path = tuple([one.kind for one in passes]), graph
        forward, known = sum(one.flop for one in passes), self._costs.get(path)
        if all(one.watched for one in passes):
            self._over_backward = forward / backward if backward else 0.0
            if known is None:
                remember(self._costs, path, forward)
                self._like_before = 0
            elif math.isclose(known, forward, rel_tol=_ROUNDING):
                self._like_before += 1
            else:  # the graph does not say what ran
                self._like_before, self._asked = 0, math.inf
            return
        if known is None:
            known = self._over_backward * backward
            self._like_before, self._asked = 0, 2 * self._asked
        self._tally.flop += known - forward


def _autocast() -> list[object]:
    devices = ("cpu", "cuda")
    return [(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in devices]
