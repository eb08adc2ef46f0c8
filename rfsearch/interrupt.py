"""Ctrl-C and requests to end, turned into one exception that no library in between takes for something else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The user, or the system, wants this process to end."""


class _State:
    deferred = False
    asked = False


def install() -> None:
    """From now on, SIGINT and SIGTERM raise `Interrupted` in the main thread."""
    if threading.current_thread() is threading.main_thread():  # no other one may set them
        for number in _SIGNALS:
            signal.signal(number, _on_signal)


@contextmanager
def kept() -> Iterator[None]:
    """Give SIGINT and SIGTERM back the handlers that they have now at the end of this context, whoever sets others."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # None: one that was not set from Python, which Python cannot set again
                    signal.signal(number, handler)


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
