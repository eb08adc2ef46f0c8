"""How processes of this machine end that are not this one's own, which Linux tells from version 6.15 on.

A descriptor of a process (`pidfd_open`) outlives it, and is asked for its exit status by PIDFD_GET_INFO: see
include/uapi/linux/pidfd.h.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from contextlib import suppress

_SIZE = 64  # of struct pidfd_info, version 0: its mask of 64 bits first, the exit status last
_EXIT = 1 << 3  # in the mask: the status is asked for; afterwards: it is there
_GET_INFO = 3 << 30 | _SIZE << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
_PATIENCE_S = 2.0  # a process is noticed to be gone a little before its parent has taken its status


class Ends:
    """Hold descriptors of processes, and say how they ended. Where the system does not tell, nothing is said.

    Example:
        >>> ends = Ends()
        >>> ends.hold("tune-1", 4711)
        >>> ends.release("tune-1")
        'it was ended by SIGKILL'
    """

    def __init__(self) -> None:
        """Hold none."""
        self._descriptors: dict[str, int] = {}

    def hold(self, name: str, pid: int) -> None:
        """Hold a process that runs.

        Args:
            name: What it is asked for by.
            pid: Its number.
        """
        self.release(name, patience_s=0.0)
        with suppress(OSError, AttributeError):  # it is gone, or the system has no such descriptors
            self._descriptors[name] = os.pidfd_open(pid)

    def release(self, name: str, patience_s: float = _PATIENCE_S) -> str:
        """Hold a process no more, and say how it has ended; "" where that is not known or it runs.

        Args:
            name: As it was held by.
            patience_s: How long to wait for its end.
        """
        descriptor = self._descriptors.pop(name, None)
        if descriptor is None:
            return ""
        give_up = time.monotonic() + patience_s
        try:
            while (status := _status(descriptor)) is None and time.monotonic() < give_up:
                time.sleep(0.05)
        except (OSError, ImportError):
            return ""
        finally:
            os.close(descriptor)
        if status is None:
            return ""
        code = os.waitstatus_to_exitcode(status)
        return f"it was ended by {_name(-code)}" if code < 0 else f"it left with exit code {code}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _status(descriptor: int) -> int | None:
    """Return the wait status of a process, or None while it has none.

    Raises:
        OSError: This Linux does not tell.
    """
    import fcntl  # not on every system

    body = bytearray(struct.pack(f"Q{_SIZE - 8}x", _EXIT))
    fcntl.ioctl(descriptor, _GET_INFO, body)
    mask, status = struct.unpack_from("Q", body)[0], struct.unpack_from("i", body, _SIZE - 4)[0]
    return int(status) if mask & _EXIT else None
