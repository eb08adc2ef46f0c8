"""What the layers need of types: sums in single precision at least, and autocast held off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# Elements of a product that BLAS takes at a time: it counts them in 32 bits.
_BLAS = 2**30


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum over all elements of a * b, at least in single precision."""
    a, b = (each.to(wide(each)).flatten() for each in (a, b))
    if len(a) <= _BLAS:
        return torch.dot(a, b)
    return torch.stack([torch.dot(*pair) for pair in zip(a.split(_BLAS), b.split(_BLAS), strict=True)]).sum()


def wide(x: Tensor) -> torch.dtype:
    """The type of x, or single precision where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off; a device that only holds shapes has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
