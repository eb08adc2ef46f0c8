"""Runs and data on object storage: a local copy to work on, whose files are put there as they are written.

Object storage cannot append to a file, lock it or keep a database. So a run whose directory is a URI (`s3://`, `gs://`,
`hdfs://`, whatever pyarrow opens) is worked on in a folder of this machine, which notes the URI; workers put their
checkpoints on the storage themselves, wherever they run, and take up there what an earlier one has left.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rfsearch.errors import DataError, RunDirectoryError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

T = TypeVar("T")
MARK = ".storage"
"""In the local copy of a run: its URI."""

_URI = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)")  # a Path has made one slash of two
_LEDGER, _PROBE = "ledger.jsonl", ".probe"
_LOCAL = {".lock", _PROBE, MARK, "cache", "ray"}  # what is of this machine alone
_PATIENCE_S = 180.0
_EVERY_S, _LATER_S = 5.0, 25.0


def uri_of(text: str | Path) -> str | None:
    """Return what names a place on object storage, in full; None for a path."""
    match = _URI.fullmatch(str(text))
    return f"{match[1]}://{match[2].rstrip('/')}" if match else None


def run_directory(text: str | Path) -> Path:
    """Return the directory of a run, which may be on object storage: then that of its local copy, brought up to date.

    Raises:
        RunDirectoryError: The storage cannot be reached.
    """
    uri = uri_of(text)
    if uri is None:
        return Path(text)
    local = _cache("runs", uri)
    local.mkdir(parents=True, exist_ok=True)
    (local / MARK).write_text(uri, encoding="utf-8")
    Storage(uri, local).bring_up_to_date()
    return local


def data_directory(text: str) -> str:
    """Return a folder of data, which may be on object storage: then that of a local copy.

    Raises:
        DataError: The storage cannot be reached, or nothing is there.
    """
    uri = uri_of(text)
    if uri is None:
        return text
    local = _cache("data", uri)
    try:
        found = Storage(uri, local).pull("", same_size=True, patience_s=0)
    except RunDirectoryError as error:
        raise DataError(str(error)) from error
    if not found:
        raise DataError(f"{uri}: nothing is there.")
    return str(local)


def storage_of(run_dir: Path) -> Storage | None:
    """Return the storage of which a directory is the local copy; None where it is a directory like others.

    A directory that lies elsewhere than such copies do may have come from anybody: what it notes does not count.
    """
    try:
        uri = (run_dir / MARK).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Storage(uri, run_dir) if run_dir.resolve().is_relative_to(_copies("runs").resolve()) else None


def name_of(run_dir: Path) -> str:
    """Return what a run is called by: its URI, or its path."""
    storage = storage_of(run_dir)
    return storage.uri if storage else str(run_dir)


@dataclass
class Storage:
    """Hold a folder on object storage, and its local copy.

    Names are those of files and folders within it, "" for all of it.

    Attributes:
        uri: Of the folder.
        local: The copy.

    Example:
        >>> storage = storage_of(run_dir)
        >>> storage.push("checkpoints/random-0-003")
    """

    uri: str
    local: Path
    _opened: tuple[FileSystem, str] | None = None
    _ledger_bytes: int | None = None
    _pushed_at: float = field(default_factory=time.monotonic)

    def within(self, name: str) -> Storage:
        """Return the storage of a folder of it, which is noted in that folder."""
        place, mark, query = self.uri.partition("?")
        inner = Storage(f"{place}/{name}{mark}{query}", self.local / name)
        (inner.local / MARK).write_text(inner.uri, encoding="utf-8")
        return inner

    def pull(self, name: str, same_size: bool = False, patience_s: float | None = None) -> int:
        """Copy a folder from the storage; what is here and not there stays.

        Args:
            name: Of the folder.
            same_size: Leave files that have the same size here.
            patience_s: For how long the storage is looked for. None: for some minutes.

        Returns:
            How many files are there.

        Raises:
            RunDirectoryError: The storage cannot be reached.
        """
        files = self._files(name, patience_s)
        for path, info in files.items():
            here = self.local / path
            if not (same_size and here.is_file() and here.stat().st_size == info.size):
                self._fetch(path)
        return len(files)

    def push(self, *names: str) -> None:
        """Copy files and folders to the storage; what is missing here is passed over.

        Raises:
            RunDirectoryError: It cannot be written for minutes. All is in the local copy.
        """
        for name in names:
            here = self.local / name
            files = [path for path in here.rglob("*") if path.is_file()] if here.is_dir() else [here]
            for file in files:
                if file.is_file() and not file.name.endswith(".part"):
                    self._store(file.relative_to(self.local).as_posix())

    def push_all(self) -> None:
        """Copy all to the storage but checkpoints, which whoever trains has put there, and what is of this machine.

        Raises:
            RunDirectoryError: It cannot be written for minutes, or another process has gone on with the run.
        """
        self._check_alone()
        self.push(*(path.name for path in sorted(self.local.iterdir()) if path.name not in _LOCAL | {"checkpoints"}))
        self._note_ledger()

    def check_writable(self) -> None:
        """Check that files can be put there.

        Raises:
            RunDirectoryError: They cannot.
        """
        probe = self.local / _PROBE
        probe.write_bytes(b"rfsearch")
        try:
            self._store(_PROBE, patience_s=0)
        finally:
            probe.unlink()
        system, root = self._system()
        system.delete_file(f"{root}/{_PROBE}")

    def push_ledger(self) -> None:
        """Copy the ledger to the storage, unless that was done a moment ago, or cannot be done now: later is as well.

        Raises:
            RunDirectoryError: Another process has gone on with the run.
        """
        if time.monotonic() - self._pushed_at < _EVERY_S:
            return
        self._pushed_at = time.monotonic()
        try:
            self._check_alone(patience_s=0)
            self._store(_LEDGER, patience_s=0)
        except _Unreachable:
            self._pushed_at += _LATER_S
            return
        self._note_ledger()

    def keep_checkpoints(self, trials: set[str]) -> None:
        """Delete the checkpoints of all other trials; what cannot be deleted now is left for the next time."""
        from pyarrow.fs import FileSelector

        try:
            system, root = self._system()
            found = system.get_file_info(FileSelector(f"{root}/checkpoints", allow_not_found=True))
            for info in found:
                if info.base_name not in trials:
                    system.delete_dir(info.path)
        except OSError:
            return

    def bring_up_to_date(self) -> None:
        """Copy what the local copy is without, or what is newer there. Of two ledgers the longer one is the newer.

        Raises:
            RunDirectoryError: The storage cannot be reached.
        """
        files = self._files("", patience_s=0)  # a first look: an address may be wrong
        for path, info in files.items():
            here = self.local / path
            # What is noted here decides which storage is written to, so no storage may say it.
            if path.partition("/")[0] in _LOCAL or here.name == MARK:
                continue
            size = here.stat().st_size if here.is_file() else -1
            if here.name == _LEDGER:
                stale = info.size > size
            else:
                stale = not path.startswith("checkpoints/") or info.size != size
            if stale:
                self._fetch(path)
        self._ledger_bytes = files[_LEDGER].size if _LEDGER in files else None

    def _check_alone(self, patience_s: float | None = None) -> None:
        """Check that the ledger on the storage is the one that was last put there, or read from there."""
        info = self._files(_LEDGER, patience_s).get(_LEDGER)
        there = info.size if info else None
        if self._ledger_bytes is None:
            self._ledger_bytes = there  # a process that has put nothing there yet
        local = self.local / _LEDGER
        if there is not None and (there != self._ledger_bytes or (local.is_file() and local.stat().st_size < there)):
            raise RunDirectoryError(
                f"{self.uri}: another process has gone on with this run. What this one has done is in {self.local}."
            )

    def _note_ledger(self) -> None:
        """Note that the ledger on the storage is now the local one."""
        file = self.local / _LEDGER
        self._ledger_bytes = file.stat().st_size if file.is_file() else None

    def _files(self, name: str, patience_s: float | None = None) -> dict[str, FileInfo]:
        """Return the files below a name on the storage, by their names."""
        from pyarrow.fs import FileSelector, FileType

        def look() -> dict[str, FileInfo]:
            system, root = self._system()
            where = f"{root}/{name}" if name else root
            one = system.get_file_info(where)
            if one.type == FileType.File:
                return {name: one}
            found = system.get_file_info(FileSelector(where, recursive=True, allow_not_found=True))
            return {info.path[len(root) + 1 :]: info for info in found if info.type == FileType.File}

        return self._patiently(look, patience_s)

    def _fetch(self, path: str) -> None:
        def copy() -> None:
            system, root = self._system()
            here = self.local / path
            if self.local.resolve() not in here.resolve().parents:
                raise RunDirectoryError(f"{self.uri}: holds a file whose name leads out of it: {path!r}.")
            here.parent.mkdir(parents=True, exist_ok=True)
            # Two workers of a machine may fetch the same file at the same time: a parent of two heirs.
            part = here.with_name(f"{here.name}.{uuid.uuid4().hex[:12]}.part")
            try:
                with system.open_input_stream(f"{root}/{path}", compression=None) as there, part.open("wb") as file:
                    shutil.copyfileobj(there, file)
                part.replace(here)
            finally:
                part.unlink(missing_ok=True)

        self._patiently(copy)

    def _store(self, path: str, patience_s: float | None = None) -> None:
        def copy() -> None:
            system, root = self._system()
            there = f"{root}/{path}"
            system.create_dir(there.rpartition("/")[0], recursive=True)
            with (self.local / path).open("rb") as file, system.open_output_stream(there, compression=None) as out:
                shutil.copyfileobj(file, out)

        self._patiently(copy, patience_s)

    def _system(self) -> tuple[FileSystem, str]:
        import pyarrow as pa
        from pyarrow.fs import FileSystem

        if self._opened is not None:
            return self._opened
        try:
            self._opened = FileSystem.from_uri(self.uri)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            why = " ".join(str(error).split()).rstrip(".")
            raise RunDirectoryError(f"{self.uri}: no storage that can be opened: {why}.") from error
        return self._opened

    def _patiently(self, action: Callable[[], T], patience_s: float | None = None) -> T:
        """Do something with the storage, again and again where it is out of reach for a moment.

        Args:
            action: What is done.
            patience_s: For how long it is tried again. None: for some minutes.
        """
        began, wait, longest = time.monotonic(), 1.0, _PATIENCE_S if patience_s is None else patience_s
        while True:
            try:
                with _reporting(self.uri):
                    return action()
            except _Unreachable:
                if time.monotonic() - began + wait > longest:
                    raise
                time.sleep(wait)
                wait = min(2 * wait, 30.0)


class _Unreachable(RunDirectoryError):
    """Report that storage is out of reach, maybe for a moment only."""


@contextmanager
def _reporting(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = " ".join(str(error).split())[:400].rstrip(".")
        raise _Unreachable(
            f"{uri}: cannot be reached: {why}. Nothing is lost that is on this machine; go on once it can be reached."
        ) from error


def _cache(kind: str, uri: str) -> Path:
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", uri.partition("?")[0].rpartition("/")[2])
    return _copies(kind) / f"{name}-{digest}"


def _copies(kind: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rfsearch" / kind
