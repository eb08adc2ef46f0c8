"""Checkpoints on disk: written whole or not at all, and read back as whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from rfsearch.errors import TrialError
from rfsearch.ledger.files import whole_file
from rfsearch.tensor_files import foreign_class, read_tensors


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, never a part.

    Raises:
        RunDirectoryError: It cannot be written. What was at `path` before still is.
    """
    write(path, lambda file: torch.save(dict(state), file))


def write(path: Path, writer: Callable[[Any], object]) -> None:
    """Have a file written whole or not at all. writer: writes to the binary file that it is given.

    Raises:
        RunDirectoryError: It cannot be written. A writer in C++ turns an error of the file into one of its own, which
            does not show that the disk is full, so the error is kept aside until it has ended.
    """
    with whole_file(path) as file:
        watched = _Watched(file)
        writer(watched)
        if watched.fault:
            raise watched.fault


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint, or return None for what is none, such as a file that a crash has left empty or cut short.

    Raises:
        TrialError: It holds something else than tensors and plain values.
    """
    try:
        state = read_tensors(path, device)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # what torch raises for a damaged file depends on where the damage is
        if foreign := foreign_class(error):
            raise TrialError(
                f"a checkpoint holds tensors, numbers, text and numpy's values. {path.name} also holds {foreign}, "
                "which is not read back: leave it out of the state dicts of model and optimiser."
            ) from error
        return None
    return state if isinstance(state, dict) else None


class _Watched:
    """Wrap a file: after its first failure, keep that failure and take what comes without writing it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        if self.fault is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.fault = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing: `whole_file` flushes."""
