"""How many processes Linux has ended for lack of memory, in a worker's own control group or else on its machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_MACHINE = Path("/proc/vmstat")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_NOTE = re.compile(r"^Killed for memory: (\d+) of (.+)$", re.MULTILINE)


def note_of_kills() -> str:
    """Return a line that says how many were ended so far where this process runs; empty where nobody counts.

    The narrowest count is taken: that of a control group does not count what else runs on the machine.
    """
    for file in (*_files_of_group(_read(Path("/proc/self/cgroup"))), _MACHINE):
        if (count := _COUNT.search(_read(file))) is not None:
            return f"Killed for memory: {count[1]} of {file}\n"
    return ""


def killed_since(note: str, read: Callable[[Path], str]) -> bool:
    """Return whether a process has been ended for lack of memory since a note was written.

    Args:
        note: A text that holds it.
        read: Returns the text of a file of the machine where it was written, empty where that cannot be read.
    """
    noted = _NOTE.search(note)
    if noted is None:
        return False
    count = _COUNT.search(read(Path(noted[2])))
    return count is not None and int(count[1]) > int(noted[1])


def _files_of_group(groups: str) -> list[Path]:
    """Return where the kills of a process's control group may be counted, by versions 2 and 1 of control groups.

    Within a container, a group's path may be that of the host, and the group itself where all groups begin.

    Args:
        groups: Text of /proc/PID/cgroup.
    """
    found = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [_GROUPS / path.strip("/") / "memory.events", _GROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            own = _GROUPS / "memory"
            found += [own / path.strip("/") / "memory.oom_control", own / "memory.oom_control"]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
