"""The processes that train one trial together, as each of them sees the others.

The first decides: it alone reads checkpoints, asks whether the training goes on, and is asked for its scores. All have
the same training function, and meet at the end of every epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

from torch import distributed

from rfsearch.errors import TrialError

T = TypeVar("T")

# The first process may stand still between two epochs for as long as others train.
_FOREVER = timedelta(days=365)


class Stopped(BaseException):
    """End a user's training function from inside: its trial is not to go on. Never caught by `except Exception`."""


class Group:
    """Be one process of a trial's. Torch's own process group has been made where there are several.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.

    Example:
        >>> Group().everybody("mine", "the end")
        ['mine']
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Make a channel of its own, so that what is said here does not meet with what a training sends."""
        self.rank, self.size = rank, size
        self._channel: Any = distributed.new_group(backend="gloo", timeout=_FOREVER) if size > 1 else None

    def first_says(self, work: Callable[[], T]) -> T:
        """Return in every process what the work returns that the first one does.

        Raises:
            Stopped: The first one's work has raised something, which is raised there.
        """
        if self.size == 1:
            return work()
        if self.rank:
            said: list[tuple[bool, Any]] = [(False, None)]
            distributed.broadcast_object_list(said, src=0, group=self._channel)
            going, result = said[0]
            if not going:
                raise Stopped
            return cast(T, result)
        try:
            result = work()
        except BaseException:
            distributed.broadcast_object_list([(False, None)], src=0, group=self._channel)
            raise
        distributed.broadcast_object_list([(True, result)], src=0, group=self._channel)
        return result

    def everybody(self, mine: T, moment: str) -> list[T]:
        """Return what every process gives, by rank, once all are here.

        Args:
            mine: What this one gives.
            moment: Where in its training it stands.

        Raises:
            TrialError: Another one stands elsewhere.
        """
        if self.size == 1:
            return [mine]
        given: list[Any] = [None] * self.size
        distributed.all_gather_object(given, (moment, mine), group=self._channel)
        if moments := {at for at, _ in given if at != moment}:
            raise TrialError(
                f"the processes of this trial have parted: one is at {moment}, another at {moments.pop()}. All go "
                "through the same epochs."
            )
        return [one for _, one in given]
