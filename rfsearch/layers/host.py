"""Learned scalars as numbers on the host: on a GPU, reading one waits for everything that was started before."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

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


def _waits(values: Tensor) -> bool:
    return values.device.type not in ("cpu", "meta")


def _read(values: Tensor) -> tuple[float, ...]:
    return tuple(values.detach().double().reshape(-1).tolist())
