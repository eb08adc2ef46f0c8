"""Links in a run directory: what is written and deleted in it must not lead to files of somebody else's.

The directory itself may be reached through a link, as where runs lie on a larger disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rfsearch.errors import RunDirectoryError

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
CONFIRMATION = "confirmation"  # folder of the trainings that confirm outcomes, with a ledger of their own


def open_itself(path: str | Path, flags: int) -> int:
    """Open a file, and never what a link of its name leads to. It is an opener for `open`.

    Returns:
        A descriptor.

    Raises:
        OSError: The name is that of a link, or the file cannot be opened.
    """
    return os.open(path, flags | _NO_FOLLOW, 0o666)


def refuse_links(run_dir: Path, folder: str = "") -> None:
    """Check that what is written and deleted in a run directory lies in it.

    A link directly in the directory, or in a folder that is a run of its own, is refused wherever it leads. Deeper
    down, as in the folder of a tracker or of a trial, only one that leads out of the directory is. Weights & Biases
    puts links to its own logs, which lie in its cache, into the folders named `logs` of its runs: these pass.

    Args:
        run_dir: The directory. There may be none yet.
        folder: The folder of it that is looked at, with all that is in it; all of it where this is empty.

    Raises:
        RunDirectoryError: There is such a link, or a folder that cannot be listed; the message names it.
    """
    home = run_dir.resolve()
    start = home / folder
    for path in [start] if folder and start.is_symlink() else _links_in(start):
        if _is_log_of_wandb(path, home):
            continue
        leads_to = _end_of(path)
        if path.parent in (home, home / CONFIRMATION) or not leads_to.is_relative_to(home):
            raise RunDirectoryError(
                f"{run_dir / path.relative_to(home)}: a link to {leads_to}. What is in a run directory is written and "
                "deleted, so it may not lead elsewhere. Put what it leads to in its place, or remove the link. The "
                "directory itself may be reached through one."
            )


def _is_log_of_wandb(link: Path, home: Path) -> bool:
    """Return whether a link is one to a log, in a folder of links that nothing of ours writes to."""
    top = link.relative_to(home).parts[0]
    return top == "wandb" and link.parent.name == "logs" and link.parents[1] != home and not link.is_dir()


def _end_of(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError):  # it leads round in a circle
        return link.readlink()


def _links_in(folder: Path) -> Iterator[Path]:
    """Yield the links in a folder and in those below it, none of which is followed.

    Raises:
        RunDirectoryError: A folder cannot be listed, so that a link in it would be passed over.
    """
    left = [folder]  # not by recursion: a directory of somebody else's may be nested deeper than Python goes
    while left:
        here = left.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield Path(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise RunDirectoryError(
                f"{here}: cannot be listed: {error.strerror or error}. What is in a run directory is written and "
                "deleted, so it is looked through for links first. Make it readable, or remove it."
            ) from error
