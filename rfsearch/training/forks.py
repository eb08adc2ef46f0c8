"""Know a process from those that are forked off it, such as those that load its data.

What watches calls of torch is copied with a process. A flag is kept, since asking the system at every call takes longer
than all else that counting a call does.
"""

from __future__ import annotations

import os


class Origin:
    """Be made in one process, and know whether another runs now.

    Example:
        >>> Origin().elsewhere
        False
    """

    _forks = 0

    def __init__(self) -> None:
        """Belong to the process that runs now."""
        self._here = Origin._forks

    @property
    def elsewhere(self) -> bool:
        """Whether this is a process that was forked off since."""
        return self._here != Origin._forks

    @classmethod
    def note_fork(cls) -> None:
        """Belong to another process from now on."""
        Origin._forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Origin.note_fork)
