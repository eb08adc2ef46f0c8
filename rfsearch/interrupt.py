"""Ctrl-C and requests to end, turned into one exception that no library in between takes for something else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """The user, or the system, wants this process to end."""


class _State:
    deferred = False
    asked = False


def install() -> None:
    """From now on, SIGINT and SIGTERM raise `Interrupted` in the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Within this context a signal raises only where the yielded function is called.

    For code that an exception must not enter at any instruction, such as an engine's own loop.
    """
    _State.deferred, _State.asked = True, False
    try:
        yield _raise_if_asked
    finally:
        _State.deferred = False


def _on_signal(number: int, frame: object) -> None:
    if not _State.deferred:
        raise Interrupted("Interrupted.")
    _State.asked = True


def _raise_if_asked() -> None:
    if _State.asked:
        raise Interrupted
