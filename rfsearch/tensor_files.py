"""Read what torch.save has written: tensors, plain values and numpy's, and nothing that would run code."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

# Schedules that compute with numpy leave its scalars in an optimiser's state. Arrays of objects hold anything.
_REBUILDERS = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
_KINDS = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDGSUmM"}
_NUMPY: list[Any] = [*_REBUILDERS, np.ndarray, np.dtype, *_KINDS]
_REFUSED = re.compile(r"Unsupported global: GLOBAL (\S+)|but got <class '([^']+)'>")


def read_tensors(path: Path, device: torch.device) -> Any:
    """Return what a file holds, its tensors on a device. A damaged file raises what torch raises for it."""
    with torch.serialization.safe_globals(_NUMPY):
        return torch.load(path, map_location=device, weights_only=True)


def foreign_class(error: Exception) -> str | None:
    """Return the class for which `read_tensors` refused a file that may be sound; None where the file is damaged."""
    refused = _REFUSED.search(str(error)) if isinstance(error, UnpicklingError) else None
    return None if refused is None else refused[1] or refused[2]
