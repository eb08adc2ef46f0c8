"""Control types in the layers: sums in at least single precision, and autocast kept out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# Elements of a product that BLAS takes at a time: it counts them in 32 bits.
_BLAS = 2**30


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """Sum a * b over all elements, in at least single precision."""
    a, b = (each.to(at_least_single(each)).flatten() for each in (a, b))
    if len(a) <= _BLAS:
        return torch.dot(a, b)
    return torch.stack([torch.dot(*pair) for pair in zip(a.split(_BLAS), b.split(_BLAS), strict=True)]).sum()


def at_least_single(x: Tensor) -> torch.dtype:
    """Return the type of x, or single precision if that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Turn autocast off. A device that only holds shapes has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
