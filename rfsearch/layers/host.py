"""Read learned scalars as numbers on the host. On a GPU, reading one waits for everything that was started before."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from rfsearch.errors import ModelError, SpaceError, TrialError

_READ: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""What each tensor was when it was read, and its values then."""


def on_host(values: Tensor) -> tuple[float, ...]:
    """Return the values of a small tensor.

    Where reading waits for the device, they are read again only if an operator has written the tensor since. All
    layers, and whoever counts their cost, therefore share one wait per training step.
    """
    if not _waits(values):
        return _read(values)
    now = (values._version, values.data_ptr(), values.dtype)
    known: tuple[Any, tuple[float, ...]] | None = _READ.get(values)
    if known is None or known[0] != now:
        known = _READ[values] = (now, _read(values))
    return known[1]


def check_positive(scalar: Tensor | float, name: str, symbol: str, usual: str) -> float:
    """Return a learned scalar as a number, which is finite and above 0.

    Args:
        scalar: The scalar.
        name: What it is called, for messages.
        symbol: Its symbol, for messages.
        usual: A sentence about what works.

    Raises:
        ModelError: It is a tensor of several numbers.
        TrialError: It is not finite: its training diverged.
        SpaceError: It is not above 0.
    """
    if isinstance(scalar, Tensor) and scalar.numel() != 1:
        raise ModelError(f"{name} is one number. Got a tensor of shape {tuple(scalar.shape)}.")
    value = on_host(scalar)[0] if isinstance(scalar, Tensor) else float(scalar)
    if not math.isfinite(value):
        raise TrialError(f"{name} is finite. Got {symbol}={value}: its training diverged; lower its rate.")
    if value <= 0:
        raise SpaceError(f"{name} is greater than 0. Got {symbol}={value}. {usual}")
    return value


def _waits(values: Tensor) -> bool:
    return values.device.type not in ("cpu", "meta")


def _read(values: Tensor) -> tuple[float, ...]:
    return tuple(values.detach().double().reshape(-1).tolist())
