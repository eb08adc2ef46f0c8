"""A run directory: what was asked for (manifest) and what happened (ledger)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rfsearch.direction import Direction
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.journal import LEDGER_FILE, read_history
from rfsearch.ledger.links import CONFIRMATION
from rfsearch.ledger.lock import LOCK_FILE, Holder, holder, in_use
from rfsearch.ledger.manifest import MANIFEST_FILE, Manifest, read_manifest
from rfsearch.ledger.record import Latency, Record
from rfsearch.ledger.typed_json import known
from rfsearch.numbers import byte_size
from rfsearch.storage import MARK, name_of, storage_of

SCRATCH = "ray"  # a folder of Ray Tune's: left behind by a process that was killed, it holds nothing of the run
_NEEDED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Run:
    """Hold a run as read back from its directory.

    Attributes:
        directory: The directory.
        manifest: What was asked for, and what it means.
        records: In the order they came in, with the latencies of their networks.
        unfinished: Number of trials that were handed out and have not come back.
        latencies: How and where latencies were measured, by trial.
        ends: Why an arm ended with budget left, by its strategy and seed.
        running: The process that works on it, None where there is none.
        confirmations: Trainings of its best outcomes that belong to no arm.
    """

    directory: Path
    manifest: Manifest
    records: tuple[Record, ...]
    unfinished: int
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    ends: Mapping[tuple[str, int], str] = field(default_factory=dict)
    running: Holder | None = None
    confirmations: tuple[Record, ...] = ()

    @property
    def direction(self) -> Direction:
        """Whether a higher or a lower score is the better one; a higher one where the run does not say."""
        return known(self.manifest.space.direction, "maximize")


def create(run_dir: Path) -> None:
    """Make an empty run directory.

    Raises:
        RunDirectoryError: It holds something, cannot be written, or is on a full disk.
    """
    if by := holder(run_dir):
        raise in_use(run_dir, by)
    if (run_dir / LEDGER_FILE).exists() or (run_dir / MANIFEST_FILE).exists():
        raise RunDirectoryError(
            f"{name_of(run_dir)}: already holds a run. Resume it with: rfsearch resume {name_of(run_dir)}, or choose "
            "another --out."
        )
    if run_dir.exists() and (not run_dir.is_dir() or {path.name for path in run_dir.iterdir()} - {LOCK_FILE, MARK}):
        raise RunDirectoryError(f"{run_dir}: not an empty folder. Choose another --out.")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".probe"
        probe.write_bytes(b"rfsearch")
        probe.unlink()
        if storage := storage_of(run_dir):
            storage.check_writable()
        free = shutil.disk_usage(run_dir).free
    except OSError as error:
        raise RunDirectoryError(f"{run_dir}: cannot be written: {error.strerror}. Choose another --out.") from error
    if free < _NEEDED_BYTES:
        raise RunDirectoryError(
            f"{run_dir}: {byte_size(free)} free; a run needs at least {byte_size(_NEEDED_BYTES)}. "
            "Make room or choose another --out."
        )


def make_unused(wanted: Path) -> Path:
    """Make a directory that no other process has, with a number behind its name where that name is taken.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    number, path = 1, wanted
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
                path = wanted.with_name(f"{wanted.name}-{number}")
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be written: {error.strerror}. Choose another --out.") from error


def read_run(run_dir: Path) -> Run:
    """Read everything that a report needs, from the directory alone.

    Raises:
        RunDirectoryError: It holds no run, or a damaged one.
    """
    manifest = read_manifest(run_dir)
    history = read_history(run_dir)
    records = tuple(record.timed(history.latencies.get(name)) for name, record in history.records.items())
    again = run_dir / CONFIRMATION
    confirmed = tuple(read_history(again).records.values()) if (again / LEDGER_FILE).exists() else ()
    unfinished, running = len(history.unfinished), holder(run_dir)
    return Run(run_dir, manifest, records, unfinished, history.latencies, history.ends, running, confirmed)
