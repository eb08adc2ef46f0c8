"""Ask the observers of a run, and go on without one that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from rfsearch import plugins
from rfsearch.errors import RequestError, RfsearchError
from rfsearch.ledger.record import Record
from rfsearch.observers.base import Observer, Watched

STUDY = "optuna-study"
"""The observer of every run."""
_CALLBACK = "ray.tune.callback"  # Ray itself is slow to import


class Observers:
    """Ask several observers; none of them can end a run, or keep the others from being asked.

    Args:
        names: Entry points or SPECs.
        watched: The run.
        warn: Called with a sentence about an observer that is asked no more.
    """

    def __init__(self, names: Sequence[str], watched: Watched, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._asked: dict[str, Observer] = {}
        for name in names:
            with self._guarded(name):
                self._asked[name] = cast("type[Observer]", _kind(name))(watched)

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are still asked."""
        return tuple(self._asked)

    def take(self, record: Record, running: bool) -> None:
        """Tell all of a record.

        Args:
            record: The record.
            running: Whether its trial goes on.
        """
        self._each(lambda observer: observer.rung(record) if running else observer.finished(record))

    def end(self, page: Path) -> None:
        """Tell all of the page."""
        self._each(lambda observer: observer.ended(page))

    def close(self) -> None:
        """Let all go."""
        self._each(lambda observer: observer.close())
        self._asked.clear()

    def _each(self, tell: Callable[[Observer], None]) -> None:
        for name, observer in list(self._asked.items()):
            with self._guarded(name):
                tell(observer)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            self._asked.pop(name, None)
            said = str(error) if isinstance(error, RfsearchError) else plugins.describe_error(error)
            self._warn(f"observer {name} is switched off, the run goes on without it: {said}")


def check_tracks(tracks: Sequence[str]) -> None:
    """Check that there is an observer, or a callback of Ray Tune's, behind every name, and that its packages are there.

    Raises:
        RequestError: There is none, or it does not load.
    """
    for name in tracks:
        _kind(name)


def callbacks_of(tracks: Sequence[str]) -> dict[str, Any]:
    """Make those of the trackers that are callbacks of Ray Tune's.

    Raises:
        RequestError: One cannot be made.
    """
    found: dict[str, Any] = {}
    for name in filter(_is_callback, tracks):
        try:
            found[name] = _kind(name)()
        except (Exception, SystemExit) as error:
            raise RequestError(f"callback {name} is made without arguments: {plugins.describe_error(error)}") from error
    return found


def _is_callback(name: str) -> bool:
    return name != STUDY and not issubclass(_kind(name), Observer)


@contextmanager
def observing(
    tracks: Sequence[str],
    watched: Watched,
    warn: Callable[[str], None],
    write: Callable[[Path], Path],
) -> Iterator[Observers]:
    """Follow a run while this context lasts; its trackers get the page at the end, however that comes.

    Args:
        tracks: Names of the trackers that were asked for.
        watched: The run.
        warn: Called with a sentence about an observer that is asked no more.
        write: Writes the page of a run's directory.
    """
    observers = Observers((STUDY, *(name for name in tracks if not _is_callback(name))), watched, warn)
    try:
        yield observers
    finally:
        if set(observers.names) - {STUDY}:
            observers.end(write(watched.directory))
        observers.close()


def _kind(name: str) -> type[Any]:
    kind = plugins.named(name, "observer") if ":" in name else plugins.load("observers", name)
    if isinstance(kind, type) and (issubclass(kind, Observer) or _CALLBACK in [one.__module__ for one in kind.__mro__]):
        return kind
    raise RequestError(
        f"observer {name}: a subclass of rfsearch.observers.Observer, or of ray.tune.Callback. Got {kind!r}."
    )
