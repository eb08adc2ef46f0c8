"""What work really costs: floating-point operations and peak memory of whatever runs inside a `Meter`.

Every operator that reaches the device is counted by a formula: matrix products and convolutions by torch's own
(`torch.utils.flop_counter`), all others by those of `operators`. An operator with no formula is an error, not a zero.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rfsearch.errors import ModelError
from rfsearch.training.operators import formula_of


@dataclass(frozen=True)
class Metered:
    """Hold what a meter has counted.

    Attributes:
        flop: FLOP of all operators run.
        peak_bytes: Most memory held at once by tensors made inside, workspaces aside.
    """

    flop: float
    peak_bytes: int


class Meter(TorchDispatchMode):
    """Count what runs inside `with Meter() as meter:`, forward and backward, on any device, `meta` included.

    memory: whether to follow the memory of tensors too, which takes as long again.
    """

    def __init__(self, memory: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0.0
        self._memory = memory
        self._live = 0
        self._peak = 0
        self._known: dict[int, Any] = {}

    @property
    def metered(self) -> Metered:
        """What has been counted so far."""
        return Metered(self.flop, self._peak)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():  # an operator is no call from Python to whoever watches those
            if self._memory:
                self._hold(tree_leaves((args, kwargs)), made_here=False)
            formula = formula_of(func)
            if formula is None:
                return self._in_parts(func, args, kwargs)
            out = func(*args, **kwargs)
            self.flop += formula(args, kwargs, out)
            if self._memory:
                self._hold(tree_leaves(out), made_here=True)
        return out

    def _in_parts(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator as those it is made of, each metered: in inference mode torch does not take it apart."""
        with self:
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        name = func._schema.name.removeprefix("aten::")
        raise ModelError(
            f"operator {name} has no FLOP formula, so a budget cannot be metered. "
            f'Register one: rfsearch.training.register_flop("{name}", lambda args, kwargs, out: FLOP_OF_ONE_CALL).'
        )

    def _hold(self, leaves: Iterable[Any], made_here: bool) -> None:
        """Follow each new storage from its making to its end. What was there before weighs nothing."""
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            size = storage.nbytes() if made_here else 0
            self._live += size
            self._peak = max(self._peak, self._live)
            self._known[key] = weakref.ref(storage, partial(self._release, key, size))

    def _release(self, key: int, size: int, _: object) -> None:
        self._known.pop(key, None)
        self._live -= size


def held_bytes(module: torch.nn.Module, copies: int = 1) -> int:
    """Return the bytes of a module's parameters (`copies` times: with gradients and momentum, 3) and buffers."""
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    buffers = sum(b.numel() * b.element_size() for b in module.buffers())
    return copies * parameters + buffers
