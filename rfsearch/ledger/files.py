"""Files that a reader finds whole, and JSON that holds what it is meant to hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.links import open_itself

_LARGEST_WHOLE = 2**63  # beyond it a whole number fits into no column, and may not fit into a float


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that a reader finds the old one or the new one, never a part, also after a power cut.

    Yields:
        A file to write to. It takes the place of `path` when the block ends without an exception.

    Raises:
        RunDirectoryError: It cannot be written; nothing of it is left, and what was there before still is.
    """
    # Two processes may write the same file: a report of a run in progress beside the run itself.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb", opener=open_itself) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text so that a reader finds the old one or the new one, never a part.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files behind them, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(text: str | bytes, finite: bool = True) -> Any:
    """Parse JSON that this package has written, or that claims so.

    Args:
        text: The JSON.
        finite: Whether NaN and infinity are faults.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or holds a number that is not allowed or does not fit 64 bits.
    """
    strict: dict[str, Any] = {"parse_constant": _no_number, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, parse_int=_whole, **strict)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not -float("inf") < value < float("inf"):
        raise ValueError(f"{text} is too large a number")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        raise ValueError(f"{text[:40]} is too large a number")
    return value
