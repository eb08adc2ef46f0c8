"""Measured peak memory: what the allocator of a GPU, or the resident set of a CPU process, really reached."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measure by how many bytes memory grew at most since this object was made, or None if that cannot be measured.

    On a CPU this is the resident set, so it holds what the framework keeps beside the tensors; it needs Linux.
    """

    def __init__(self, device: torch.device) -> None:
        """Give freed memory back, and measure from here."""
        self._device = device
        self._base: int | None = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._base = torch.cuda.memory_allocated(device)
        else:
            self._base = _restart_high_water()

    def bytes(self) -> int | None:
        """Return the growth so far, bytes."""
        if self._base is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._base
        peak = _status_bytes("VmHWM")
        return None if peak is None else max(0, peak - self._base)


def _restart_high_water() -> int | None:
    """Give freed memory back to the system, set the high-water mark to the present, and return that."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
    except (OSError, AttributeError):
        return None
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
