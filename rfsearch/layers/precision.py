"""What the layers need of types: sums in single precision at least, and autocast held off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum over all elements of a * b, at least in single precision."""
    return torch.sum(a.to(wide(a)) * b.to(wide(b)))


def wide(x: Tensor) -> torch.dtype:
    """The type of x, or single precision where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off; a device that only holds shapes has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
