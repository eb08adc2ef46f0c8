"""Turn Ctrl-C and requests to end into one exception that no library in between mistakes for something else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Report that the user, or the system, wants this process to end.

    Example:
        >>> try:
        ...     search()
        ... except Interrupted:
        ...     print("Resume with: rfsearch resume RUN")
    """


class SearchInterrupted(Interrupted, KeyboardInterrupt):
    """Report it to a script that has called `rfsearch.search`, for which it is a KeyboardInterrupt like any other.

    Within rfsearch it is `Interrupted` alone, since libraries that catch a KeyboardInterrupt would lose what it says.

    Example:
        >>> try:
        ...     rfsearch.search(train, model=make_model, input_shape=(1, 3, 512, 512))
        ... except KeyboardInterrupt as stop:
        ...     print(stop)
    """


class _State:
    deferred = False
    asked = False


def install() -> None:
    """Raise `Interrupted` in the main thread on SIGINT and SIGTERM from now on."""
    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        for number in _SIGNALS:
            signal.signal(number, on_signal)


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Restore the present handlers of SIGINT and SIGTERM at the end of this context, whoever sets others."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # None: it was not set from Python, so Python cannot restore it
                    signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Raise on a signal only where the yielded function is called, within this context.

    For code that an exception must not enter at any instruction, such as an engine's own loop.
    """
    _State.deferred, _State.asked = True, False
    try:
        yield _raise_if_asked
    finally:
        _State.deferred = False


def on_signal(number: int, frame: object) -> None:
    """Raise `Interrupted`, or note the signal while it is deferred."""
    if not _State.deferred:
        raise Interrupted("Interrupted.")
    _State.asked = True


def _raise_if_asked() -> None:
    if _State.asked:
        raise Interrupted
