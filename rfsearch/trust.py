"""Whose code a run directory may make this process run.

A manifest names networks, strategies, layers and tasks, by file or by module, and whoever opens the directory imports
them. A run that was begun here names code of its user's own. Any other directory may have come from anybody: what is
not installed is imported for it only where the user says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from rfsearch import sources
from rfsearch.errors import UntrustedError
from rfsearch.ledger.manifest import MANIFEST_FILE

_trusted: ContextVar[frozenset[Path]] = ContextVar("trusted", default=frozenset())


def note_own(run_dir: Path) -> None:
    """Remember a run as begun by this user, by its manifest, wherever it is moved to."""
    with suppress(OSError, RuntimeError):  # without a home, or one that cannot be written, runs are resumed by --trust
        _notes().mkdir(parents=True, exist_ok=True)
        _note_of(run_dir).touch()


@contextmanager
def opened(run_dir: Path, trust: bool = False, objects: bool = False) -> Iterator[None]:
    """Refuse within this context to import what is not installed, unless the run is the user's own, or trusted.

    Args:
        run_dir: Directory of the run.
        trust: Whether the user trusts it. It is remembered as if the run had been begun here.
        objects: Whether its checkpoints hold objects of its maker's, which run code as they are read.

    Raises:
        UntrustedError: It names code that is not installed, or holds such objects.
    """
    if trust:
        note_own(run_dir)
    place = run_dir.resolve()
    if trust or place in _trusted.get() or _is_own(run_dir):
        token = _trusted.set(_trusted.get() | {place})
        try:
            yield
        finally:
            _trusted.reset(token)
        return
    trusting = "If you trust whoever made it, say so: --trust, or trust=True in Python."
    if objects:
        raise UntrustedError(
            f"{run_dir} was not begun here, and its checkpoints hold objects that run code as they are read. {trusting}"
        )
    why = f"{run_dir} was not begun here, and names code that is not installed, which would run. {trusting} The code: "
    with sources.refusing(why):
        yield


def _is_own(run_dir: Path) -> bool:
    try:
        return _note_of(run_dir).exists()
    except (OSError, RuntimeError):
        return False


def _note_of(run_dir: Path) -> Path:
    return _notes() / hashlib.sha256((run_dir / MANIFEST_FILE).read_bytes()).hexdigest()


def _notes() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "rfsearch" / "own-runs"
