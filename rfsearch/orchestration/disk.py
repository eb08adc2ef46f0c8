"""Recognise a full disk, and say how a run goes on."""

from __future__ import annotations

from pathlib import Path

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.files import whole_file
from rfsearch.ledger.journal import resume_command

_PROBE_BYTES = 2**20  # where that much cannot be written, the disk is full


def with_way_on(what: str, run_dir: Path) -> str:
    """Add to a message about what stopped a run what to do about it."""
    how = resume_command(run_dir)
    return f"{what} The run has stopped; nothing in its ledger is lost. Make room, then continue with: {how}"


def full_disk_error(run_dir: Path, ray_folder: Path | None = None) -> RunDirectoryError | None:
    """Return the error of a folder that has no room left; None where all have.

    Args:
        run_dir: The run's directory.
        ray_folder: Ray's own on this machine. A worker dies of it when it is full.
    """
    for folder in filter(None, (run_dir, ray_folder)):
        probe = folder / ".probe"
        try:
            with whole_file(probe) as file:
                file.write(bytes(_PROBE_BYTES))
            probe.unlink()
        except RunDirectoryError as error:
            whose = "" if folder == run_dir else "Ray's folder: "
            return RunDirectoryError(with_way_on(f"{whose}{error}", run_dir))
    return None
