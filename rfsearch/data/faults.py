"""What is wrong with a data set, said in one message: files that are faulty, and folders that are missing."""

from __future__ import annotations

import difflib
from pathlib import Path

from rfsearch.errors import DataError, nearest

_FAULTS_SHOWN = 5
_SIBLINGS_SHOWN = 12


class Faults:
    """Collect what is wrong with a data set, so that one message says it all.

    Example:
        >>> faults = Faults("data/street")
        >>> faults.add("train/images/7.jpg: no label train/labels/7.png")
        >>> faults.check()
        Traceback (most recent call last):
        rfsearch.errors.DataError: data/street: 1 fault: train/images/7.jpg: no label train/labels/7.png
    """

    def __init__(self, where: str | Path) -> None:
        self._where = where
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, fault: str) -> None:
        """Note a fault: the file, and what is wrong with it."""
        self._found.append(fault)

    def check(self) -> None:
        """Raise one DataError that names the first few faults and counts the rest."""
        if not self._found:
            return
        total, shown = len(self._found), self._found[:_FAULTS_SHOWN]
        if total == 1:
            raise DataError(f"{self._where}: 1 fault: {shown[0]}")
        lines = "".join(f"\n  {fault}" for fault in shown)
        more = f"\n  ... and {total - len(shown)} more" if total > len(shown) else ""
        raise DataError(f"{self._where}: {total} faults:{lines}{more}")


def require_folder(path: Path) -> Path:
    """Return the path of a folder.

    Raises:
        DataError: It is no folder, or is missing; then the message names the nearest folder beside it.
    """
    if path.is_dir():
        return path
    if path.exists():
        raise DataError(f"{path}: a folder is needed, this is a file.")
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir() if entry.is_dir())
    if len(siblings) > _SIBLINGS_SHOWN:
        siblings = difflib.get_close_matches(missing.name, siblings, n=_SIBLINGS_SHOWN, cutoff=0.4)
    inside = "the present folder" if missing.parent == Path() else missing.parent
    where = f"{path}: no such folder; {missing.name!r} is not in {inside}."
    raise DataError(where + nearest(missing.name, siblings))
