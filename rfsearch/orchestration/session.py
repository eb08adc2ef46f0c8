"""Start a Ray session on this machine, or join a cluster; whatever prevents it gives one message within seconds."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import ray

from rfsearch.errors import RequestError
from rfsearch.orchestration.ray_insides import on_loopback

_CONNECT_S = 4.0
# An address at which something else answers keeps Ray waiting for minutes. Joining takes 3 s, more on a busy machine.
# With looking whether something listens there, and hearing it, it stays below half a minute.
_JOIN_S = 21.0
# What an HTTP/2 client, and so Ray's, sends first, with its settings; the server's first frame holds settings too.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS_FRAME = 4
# Longest path of a socket, bytes; and what Ray adds to its folder: session, time, process and the longest name.
_SOCKET_MOST = 107 if sys.platform != "darwin" else 103
_SOCKET_ADDED = len("/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_SHORT = "/tmp"

_PROCESSES, _WATCH_S, _GRACE_S = ("raylet", "gcs_server"), 1.0, 20.0
_INTERRUPTED = 130
_TOO_SLOW = "timed out"  # in what Ray raises when a process of its own is not up in time
# What Ray says where its version or Python's is another one in the cluster; see its _private.utils.check_version_info.
_MISMATCH = re.compile(
    r"The cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)\s+"
    r"This process on .* was started with:\s+Ray: (\S+)\s+Python: (\S+)"
)
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


@contextmanager
def folder() -> Iterator[str]:
    """Provide a folder for Ray's session, which this user alone can look into. It is removed at the end.

    Ray's logs tell of commands and environments, and Ray lets everybody read the folder that it is given.

    Raises:
        RequestError: The folder for temporary files has too long a path for Ray's sockets.
    """
    with tempfile.TemporaryDirectory(prefix="rf-", dir=_base(), ignore_cleanup_errors=True) as own:
        yield str(Path(own) / "r")


def start(temporary: str) -> None:
    """Start Ray on this machine, a second time where it took too long the first time.

    It listens to this machine alone.

    Args:
        temporary: Its folder; see `folder`.

    Raises:
        RequestError: It cannot start.
    """
    options = {"address": "local", "include_dashboard": False, "_temp_dir": temporary}
    try:
        with on_loopback():
            _init_in_time(**options)
    except OSError as error:
        raise RequestError(f"Ray cannot start on this machine: {_brief(error)}.") from error
    except Exception as error:
        hint = ""
        if _TOO_SLOW in str(error):
            hint = " The machine is busy, or short of memory or of space for temporary files. Free some, and try again."
        raise RequestError(f"Ray cannot start on this machine: {_brief(error)}.{hint}") from error


class Guard:
    """Watch the processes of a session that was started here, and end a run when one of them ends.

    Ray itself would wait for up to a minute, and then end this process without a word of what to do. This process gets
    a SIGTERM, and if it still waits for Ray after a while, it is ended.

    Attributes:
        say: Is told what has ended, while a run goes on; None while none does, and processes may end.

    Example:
        >>> guard = Guard()
        >>> guard.begin()
        >>> guard.say = print
    """

    def __init__(self) -> None:
        """Watch nothing yet."""
        self.say: Callable[[str], None] | None = None
        self._over = threading.Event()

    def begin(self) -> None:
        """Watch those that this process has started."""
        mine = [(one, one.name()) for one in psutil.Process().children() if one.name() in _PROCESSES]
        Thread(target=self._watch, args=(mine,), daemon=True).start()

    def end(self) -> None:
        """Watch no more, once the session has ended."""
        self._over.set()

    def _watch(self, processes: Sequence[tuple[psutil.Process, str]]) -> None:
        while not self._over.wait(_WATCH_S):
            ended = next((name for one, name in processes if not _runs(one)), None)
            if ended is not None and self.say is not None:
                self.say(ended)
                os.kill(os.getpid(), signal.SIGTERM)
                if not self._over.wait(_GRACE_S):
                    os._exit(_INTERRUPTED)
                return


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def join(address: str) -> None:
    """Join the cluster at HOST:PORT, or, with `auto`, the one on this machine.

    Raises:
        RequestError: It cannot be joined.
    """
    _check_listening(address)
    _try_to_join(address)
    try:
        _init(address=address)
    except Exception as error:
        raise RequestError(f"{_unreachable(address)}: {_brief(error)}.") from error


def _init_in_time(**options: Any) -> None:
    """Start Ray, and once more if it was too slow: Ray waits for 30 s, which a busy machine may exceed."""
    try:
        _init(**options)
    except Exception as error:
        if _TOO_SLOW not in str(error):
            raise
        ray.shutdown()
        _init(**options)


def _init(**options: Any) -> None:
    ray.init(log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True, **options)


def _base() -> str:
    """Return the folder in which that of Ray's session is made.

    Ray keeps sockets there, whose paths may not be long.
    """
    own = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or _SHORT
    most = _SOCKET_MOST - _SOCKET_ADDED - len("/rf-12345678/r")
    if len(os.fsencode(own)) <= most:
        return own
    if "RAY_TMPDIR" not in os.environ and os.access(_SHORT, os.W_OK):
        return _SHORT
    raise RequestError(
        f"Ray's sockets need a folder for temporary files whose path has at most {most} bytes. Got {own}. "
        "Set RAY_TMPDIR to a shorter one, such as RAY_TMPDIR=/tmp."
    )


def _check_listening(address: str) -> None:
    """Check that an address has a form that can be joined, and that something listens there.

    Raises:
        RequestError: It has not, or nothing does.
    """
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise RequestError(
            f"--address {address}: Ray Client cannot run a search, because its ledger is here. Start rfsearch on a "
            "machine of the cluster with --address auto, or with HOST:PORT of its head, whose port is 6379 by default."
        )
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", address)
    if match is None or not 0 < int(match[3]) < 65536:
        raise RequestError(f"--address is HOST:PORT of a Ray cluster's head, or auto. Got {address!r}.")
    try:
        with socket.create_connection((match[1] or match[2], int(match[3])), timeout=_CONNECT_S) as server:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("0", "false", ""):
                _check_speech(server)
    except (OSError, UnicodeError) as error:
        raise RequestError(f"{_unreachable(address)}: {_brief(error)}. {_WHAT_TO_DO}") from error


def _check_speech(server: socket.socket) -> None:
    """Check that a server answers as one of HTTP/2 does.

    Raises:
        OSError: It does not.
    """
    server.sendall(_PREFACE)
    try:
        answer = server.recv(9)
    except TimeoutError:
        raise TimeoutError("something listens there but does not answer") from None
    if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
        raise ConnectionError("what listens there is not a Ray cluster")


_WHAT_TO_DO = "Is the address that of the head, and does `ray status --address` answer there?"


def _try_to_join(address: str) -> None:
    """Let another process join first, which can be ended: Ray waits for minutes in calls that nothing interrupts."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-c", _JOIN, address], stdout=said, stderr=said)
        try:
            code: int | None = process.wait(_JOIN_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
            process.wait()
        if code == 0:
            return
        said.seek(0)
        text = said.read()
    if "AuthToken" in text or "Unauthenticated" in text or "AuthenticationError" in text:
        raise RequestError(
            f"{_unreachable(address)}: it requires a token, and this one is missing or wrong. Set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN to the cluster's, or RAY_AUTH_TOKEN_PATH to a file that holds it."
        )
    if versions := _MISMATCH.search(text):
        theirs, their_python, ours, our_python = versions.groups()
        raise RequestError(
            f"{_unreachable(address)}: it runs Ray {theirs} on Python {their_python}, and this is Ray {ours} on Python "
            f"{our_python}. All machines need the same two versions: start rfsearch in an environment like the "
            "cluster's, or the cluster in one like this."
        )
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    why = f"no Ray cluster answered within {_JOIN_S:g} s" if code is None else " ".join(last.split())[:300]
    raise RequestError(f"{_unreachable(address)}: {why.rstrip('.')}. {_WHAT_TO_DO}")


def _unreachable(address: str) -> str:
    return f"the Ray cluster at {address} cannot be joined"


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
