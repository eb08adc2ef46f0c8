"""Whose code a run directory, or a patch, may make this process run.

A manifest names networks, strategies, layers and tasks, by file or by module, and whoever opens the directory imports
them. A run that was begun here names code of its user's own. Any other directory may have come from anybody: what is
not installed is imported for it only where the user says so. A patch names layers, which may lie beside it: likewise,
but for what the user's program could import by itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from rfsearch import sources
from rfsearch.errors import UntrustedError
from rfsearch.ledger.manifest import MANIFEST_FILE
from rfsearch.sources import list_imported_files, strange_source

_trusted: ContextVar[frozenset[Path]] = ContextVar("trusted", default=frozenset())


def note_own(run_dir: Path) -> None:
    """Remember a run as begun by this user, by its manifest, wherever it is moved to."""
    _note([run_dir / MANIFEST_FILE])


def note_own_patch(patch: Path, layers: Iterable[Path]) -> None:
    """Remember a patch as exported by this user, with the files of its layers, wherever they are moved to."""
    _note(_with_imported(patch, layers))


def require_trusted(specs: Iterable[str], name: str, patch: Path | None, files: Collection[Path]) -> None:
    """Check that layers of a patch may be imported: those of packages, of the user's program and of an export here.

    Args:
        specs: Of the layers, with the files that are meant.
        name: What the patch is called.
        patch: Its file; None where it has none.
        files: Those of its layers that lie beside it.

    Raises:
        UntrustedError: Others are named; the message names their files.
    """
    strange = list(dict.fromkeys(filter(None, map(strange_source, specs))))
    exported_here = patch is not None and bool(files) and _is_noted(_with_imported(patch, files))
    if strange and not exported_here:
        raise UntrustedError(
            f"{name} was not exported here, and names code that is not installed, nor on the path of this program. It "
            f"would run. If you trust whoever made it, say so: trust=True. The code: {', '.join(strange)}."
        )


def _with_imported(patch: Path, layers: Iterable[Path]) -> list[Path]:
    imported = dict.fromkeys(file for layer in layers for file in list_imported_files(layer))
    return [patch, *sorted(imported, key=lambda file: file.name)]


def is_trusted(run_dir: Path) -> bool:
    """Return whether a run was begun by this user, or is trusted."""
    return run_dir.resolve() in _trusted.get() or _is_noted([run_dir / MANIFEST_FILE])


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
    if trust or is_trusted(run_dir):
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


def _note(files: Sequence[Path]) -> None:
    with suppress(OSError, RuntimeError):  # without a home, or one that cannot be written, it is to be said each time
        _notes().mkdir(parents=True, exist_ok=True)
        _note_of(files).touch()


def _is_noted(files: Sequence[Path]) -> bool:
    try:
        return _note_of(files).exists()
    except (OSError, RuntimeError):
        return False


def _note_of(files: Sequence[Path]) -> Path:
    """Return the file that stands for these, by what is in them: the digest of one, or that of several ones'."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    name = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
    return _notes() / name


def _notes() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "rfsearch" / "own-runs"
