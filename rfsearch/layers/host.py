"""Learned scalars as numbers on the host: on a GPU, reading one waits for everything that was started before."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from rfsearch.errors import ModelError, SpaceError, TrialError

_READ: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Of each tensor: what it was when it was read, and its values then."""


def on_host(values: Tensor) -> tuple[float, ...]:
    """The values of a small tensor. Where reading waits for the device they are read again only when an operator has
    written the tensor since, so that all layers and whoever counts their cost share one wait a training step."""
    if not _waits(values):
        return _read(values)
    now = (values._version, values.data_ptr(), values.dtype)
    known: tuple[Any, tuple[float, ...]] | None = _READ.get(values)
    if known is None or known[0] != now:
        known = _READ[values] = (now, _read(values))
    return known[1]


def positive(scalar: Tensor | float, name: str, symbol: str, usual: str) -> float:
    """A learned scalar as a number, > 0.

    name, symbol: what it is called, for messages. usual: a sentence about what works. Raises ModelError for a tensor of
    several numbers, TrialError for one that is not finite, for then its training diverged, and SpaceError for one that
    is not greater than 0.
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
