"""One process at a time works in a run directory: a lock that ends with the process that holds it, however it ends.

The lock is the operating system's (`flock`) on a file of the directory, which says who holds it. On NFS it holds
between machines that mount the directory with locks, which is the default.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.files import read_json
from rfsearch.ledger.links import open_itself, refuse_links

LOCK_FILE = ".lock"
# A reader that asks who holds a lock has it for a moment, and a process that was killed ends within one.
_PATIENCE_S = 3.0
_RETRY_S = 0.05


@dataclass(frozen=True)
class Holder:
    """Name the process that works in a run directory.

    Attributes:
        pid: Its number; 0 where that is unknown.
        host: Its machine.
        started: When it took the lock, UTC in ISO format.
    """

    pid: int
    host: str
    started: str

    def __str__(self) -> str:
        """Return the process in words."""
        return f"process {self.pid} on {self.host}, since {self.started}" if self.pid else "another process"

    @property
    def itself(self) -> bool:
        """Whether this is the process that asks."""
        return (self.pid, self.host) == (os.getpid(), socket.gethostname())


@contextmanager
def hold(run_dir: Path) -> Iterator[None]:
    """Keep every other process from working in a run directory.

    Raises:
        RunDirectoryError: Another process works there; the message says which one. Or the directory takes no lock, or
            what is in it leads elsewhere.
    """
    refuse_links(run_dir)
    path = run_dir / LOCK_FILE
    try:
        descriptor = _acquire(path)
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        if _is_named(descriptor, path):  # not where the directory has been deleted, and perhaps made again by another
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def holder(run_dir: Path) -> Holder | None:
    """Return the other process that works in a run directory, or None where there is none."""
    try:
        # A pipe of that name would keep a reader waiting for its writer.
        descriptor = open_itself(run_dir / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        found = _signature(descriptor)
        return None if found.itself else found
    except OSError:  # a file system without locks, where `hold` is refused
        return None
    finally:
        os.close(descriptor)
    return None


def in_use(run_dir: Path, by: Holder) -> RunDirectoryError:
    """Make the error for a run directory in which another process works."""
    return RunDirectoryError(
        f"{run_dir}: in use by {by}. One process at a time works on a run. Wait until it ends, or choose another "
        f"directory. How far it is: rfsearch report {shlex.quote(str(run_dir))}"
    )


def _acquire(path: Path) -> int:
    """Take the lock, waiting for a moment where it is held; returns the descriptor that holds it."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        descriptor = open_itself(path, os.O_RDWR | os.O_CREAT)  # Python closes it in every program that it starts
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(descriptor, path):  # else its last holder deleted it in between
                _sign(descriptor)
                return descriptor
        except BlockingIOError:
            if time.monotonic() > give_up:
                found = _signature(descriptor)
                os.close(descriptor)
                raise in_use(path.parent, found) from None
        except OSError as error:
            os.close(descriptor)
            raise RunDirectoryError(
                f"{path}: this file system takes no lock ({error.strerror}), so a second process could write into the "
                "same run. Choose a directory on another one."
            ) from error
        os.close(descriptor)
        time.sleep(_RETRY_S)


def _is_named(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    """Write down who holds the lock. A full disk does not keep anyone from holding it."""
    body = Holder(os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(body)).encode(), 0)


def _signature(descriptor: int) -> Holder:
    """Return who holds a lock according to its file; a holder that has not signed is nameless."""
    try:
        return Holder(**read_json(os.pread(descriptor, 4096, 0)))
    except (OSError, ValueError, TypeError):
        return Holder(0, "", "")
