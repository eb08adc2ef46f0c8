"""What a worker that hangs or dies can still say, and what the system says of its end.

A training that hangs may hold the interpreter, and one that crashes has left it; so Python's own fault handler writes
down where it stood, from C, and ends a worker that hangs.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ray.exceptions import ActorUnavailableError, OutOfMemoryError

from rfsearch.errors import LostProcessError
from rfsearch.ledger.links import open_itself
from rfsearch.numbers import duration
from rfsearch.orchestration.memory_kills import killed_since, note_of_kills

LAST_WORDS = "last_words.txt"
# A training that takes that many times as long as was forecast, and this long at least, hangs: a busy machine, a first
# step that compiles or a slow disk cost a few times what was forecast.
_TIMES_FORECAST = 20.0
_LEAST_PATIENCE_S = 600.0

_LEFT = ("node has died", "node is dead", "node was terminated")  # in what Ray says of such a worker
_HANG = re.compile(r"^Timeout", re.MULTILINE)
_CRASH = re.compile(r"^Fatal Python error: (.+)", re.MULTILINE)
_EXIT = re.compile(r"^Exit code (-?\d+)$", re.MULTILINE)
_RAY_SIGNAL = re.compile(r"The process receives a (SIG[A-Z0-9]+)")
_RAY_EXIT = re.compile(r"Worker exits with an exit code (-?\d+)")
_LOST_PROCESS = re.compile(rf"{LostProcessError.__name__}: (.+)")
_FRAME = re.compile(r'File "(.+)", line (\d+) in (.+)')
_PACKAGE = str(Path(__file__).parents[1])
_LIBRARIES = ("site-packages", "dist-packages", sysconfig.get_path("stdlib"), "<frozen")


def patience(forecast_s: float) -> float:
    """Return the seconds after which a training that has reported nothing is taken for one that hangs.

    Args:
        forecast_s: What it should take to its next rung, or to its end.
    """
    return max(_LEAST_PATIENCE_S, _TIMES_FORECAST * forecast_s)


@contextmanager
def watched(folder: Path, patience_s: float) -> Iterator[None]:
    """Write down where a training stands that crashes in this context, or is in it for too long, and end this process.

    Args:
        folder: Of the trial's checkpoints. A folder that cannot be written goes without: the training says so itself.
        patience_s: How long it may take.
    """
    path = folder / LAST_WORDS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8", opener=open_itself)  # noqa: SIM115
    except OSError:
        yield
        return
    with file:
        _write(file, note_of_kills())
        faulthandler.enable(file)
        faulthandler.dump_traceback_later(patience_s, exit=True, file=file)
        try:
            with _exit_noted(file):
                yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.enable(all_threads=False)  # as Ray has it, on standard error
            with suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def _exit_noted(file: TextIO) -> Iterator[None]:
    """Write down where this process stands that leaves by `os._exit` in this context, which runs nothing else of it."""
    leave, process = os._exit, os.getpid()

    def noted(status: int) -> None:
        if os.getpid() == process:  # not a child, whose usual way to end this is
            _write(file, f"Exit code {status}\n")
            faulthandler.dump_traceback(file)
        leave(status)

    os._exit = noted  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave


def cause_of_death(
    error: BaseException | None, folder: Path, patience_s: float, read: Callable[[Path], str], end: str = ""
) -> str:
    """Say why a worker has died, as far as anything is known.

    Args:
        error: What Ray raised for it.
        folder: Of its trial's checkpoints.
        patience_s: How long it was given.
        read: Returns the text of a file of the worker's machine, empty where that cannot be read.
        end: What its machine says of it, see `Ends`.
    """
    words, theirs = read(folder / LAST_WORDS), str(error)
    if _HANG.search(words):
        return f"it hung, and was ended after {duration(patience_s)} without a validation{_place(words)}"
    if crash := _CRASH.search(words):
        return f"it crashed: {crash[1].strip()}{_place(words)}"
    if code := _EXIT.search(words):
        return f"it left by os._exit with code {code[1]}{_place(words)}"
    if lost := _LOST_PROCESS.search(theirs):
        return lost[1]
    if isinstance(error, OutOfMemoryError):
        return "Ray ended it because its machine ran out of memory"
    if left_with_its_machine(error):
        return "its machine left the cluster"
    if signal := _RAY_SIGNAL.search(theirs):
        return f"it was ended by {signal[1]}"
    if code := _RAY_EXIT.search(theirs):
        return f"it left with exit code {code[1]}"
    if killed_since(words, read):
        return "the system ended it because its machine ran out of memory"
    if end:
        return end
    return "it was ended from outside, by a signal or for lack of memory, or left by os._exit"


def address_of(error: BaseException | None) -> str:
    """Return the IP address of the machine on which a worker has died; empty if Ray does not say it.

    Args:
        error: What Ray raised for it.
    """
    found = re.search(r"^\s*ip: (\S+)$", str(error), re.MULTILINE)
    return found[1] if found else ""


def left_with_its_machine(error: BaseException | None) -> bool:
    """Return whether a worker was lost because its machine left the cluster, or cannot be reached.

    Args:
        error: What Ray raised for it.
    """
    return isinstance(error, ActorUnavailableError) or any(words in str(error) for words in _LEFT)


def _write(file: TextIO, text: str) -> None:
    """Write a text past the file's buffer, in which that of a full disk would stay."""
    with suppress(OSError):
        os.write(file.fileno(), text.encode())


def _place(words: str) -> str:
    """Return where a training stood: in its user's own code if that was on the way, else as deep as it was.

    Frames stand innermost first, thread by thread.
    """
    threads = [_FRAME.findall(part) for part in re.split(r"(?m)^(?=Thread |Current thread )", words)]
    threads = [frames for frames in threads if any(file.startswith(_PACKAGE) for file, _, _ in frames)] or threads
    for frames in threads:
        for file, line, function in frames:
            if not file.startswith(_PACKAGE) and not any(part in file for part in _LIBRARIES):
                return f", in {Path(file).name}, line {line}, in {function}"
    return next(
        (f", in {Path(file).name}, line {line}, in {name}" for frames in threads for file, line, name in frames), ""
    )
