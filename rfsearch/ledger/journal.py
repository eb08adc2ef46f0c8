"""The append-only file of everything a run did: its first line names the schema, a torn last line is forgiven.

Four kinds of event follow the header. `start` says which trial was handed out, with everything needed to hand it out
again; `finish` holds its record. A trial that has started and not finished is what `resume` takes up again. `latency`
says how long the networks of some trials take, which is measured when all have finished; `end` says why an arm ended
with budget left. An unknown kind is of a newer version, and an error.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.files import read_json, sync_folder
from rfsearch.ledger.links import CONFIRMATION, open_itself
from rfsearch.ledger.manifest import MANIFEST_FILE
from rfsearch.ledger.record import Latency, ParentName, Record, TrialName
from rfsearch.ledger.schema import SCHEMA, Ends, upgraded
from rfsearch.ledger.typed_json import checked
from rfsearch.storage import name_of

LEDGER_FILE = "ledger.jsonl"
_HEADER = json.dumps({"event": "ledger", "schema": SCHEMA}, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Assignment:
    """Hold one trial as it was handed out.

    Attributes:
        trial: Its name.
        strategy: The strategy that suggested it.
        seed: The arm's seed.
        candidate: The candidate, as JSON.
        train_seed: Seed of its training.
        limit: What it may spend before it is cut, in the budget's currency.
        heir_of: The trial of its arm whose training it continues; empty where it begins one.
    """

    trial: TrialName
    strategy: str
    seed: int
    candidate: str
    train_seed: int
    limit: float
    heir_of: ParentName = ""

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON, without what an older version does not know unless it is needed."""
        return {key: value for key, value in self.__dict__.items() if key != "heir_of" or value}


@dataclass(frozen=True)
class End:
    """Say why an arm, a strategy with a seed, ended with budget left."""

    strategy: str
    seed: int
    why: str


@dataclass
class History:
    """Hold what a ledger says: trials handed out, in order, and records, in the order in which they came in.

    latencies: of trials' networks, by trial, all measured in one place: what was measured elsewhere before is left out.
    """

    assignments: dict[str, Assignment] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    ends: dict[tuple[str, int], str] = field(default_factory=dict)
    """Why an arm ended with budget left, by its strategy and seed."""

    @property
    def unfinished(self) -> list[Assignment]:
        return [a for name, a in self.assignments.items() if name not in self.records]

    def take_latency(self, trials: Sequence[str], latency: Latency) -> None:
        """Enter what was measured of some trials' networks."""
        if next(iter(self.latencies.values()), latency).where != latency.where:
            self.latencies.clear()
        self.latencies.update(dict.fromkeys(trials, latency))


class Journal:
    """Append events to a run's ledger, each one on disk before the call returns."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LEDGER_FILE
        self._torn = False
        try:
            fresh = not os.path.lexists(self.path) or not _drop_torn_line(self.path)
            # An older version must not read what is added to a ledger that it began.
            if fresh or _HEADER not in self.path.read_bytes():
                self._write({"event": "ledger", "schema": SCHEMA})
            if fresh:
                sync_folder(run_dir)
        except OSError as error:
            raise RunDirectoryError(f"{self.path}: the ledger cannot be written: {error.strerror}.") from error

    def start(self, assignment: Assignment) -> None:
        self._append({"event": "start", **assignment.to_json()})

    def finish(self, record: Record) -> None:
        self._append({"event": "finish", **record.to_json()})

    def latency(self, trials: Sequence[str], latency: Latency) -> None:
        """Enter how long the networks of these trials take, all of one shape."""
        self._append({"event": "latency", "trials": list(trials), **asdict(latency)})

    def end(self, strategy: str, seed: int, why: str) -> None:
        self._append({"event": "end", **asdict(End(strategy, seed, why))})

    def _append(self, event: Mapping[str, Any]) -> None:
        try:
            self._write(event)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: the ledger cannot be written: {error.strerror}. What it holds is safe; "
                f"make room, then resume with: {resume_command(self.path.parent)}"
            ) from error

    def _write(self, event: Mapping[str, Any]) -> None:
        line = (json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n").encode()
        if self._torn:
            _drop_torn_line(self.path)
            self._torn = False
        # No buffer: what a full disk has refused must not be written later, into room that has become free.
        with open(self.path, "ab", buffering=0, opener=open_itself) as file:
            before = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                self._torn = True  # readers pass over a torn last line
                with suppress(OSError):
                    file.truncate(before)
                    self._torn = False
                raise


def _drop_torn_line(path: Path) -> int:
    """Cut off a last line that a crash left without its newline, so that the next event starts on a line of its own.

    Returns:
        The length that is left, in bytes.
    """
    with open(path, "rb+", opener=open_itself) as file:
        body = file.read()
        whole = body.rfind(b"\n") + 1
        if whole < len(body):
            file.truncate(whole)
    return whole


def resume_command(folder: Path) -> str:
    """Return the command that goes on with a run.

    Args:
        folder: Its directory, or the folder of its confirmation.
    """
    confirms = folder.name == CONFIRMATION and not (folder / MANIFEST_FILE).exists()
    return f"rfsearch resume {shlex.quote(name_of(folder.parent if confirms else folder))}"


def read_history(run_dir: Path) -> History:
    """Read all that a run's ledger says. A torn last line is passed over; any other fault is an error with its line.

    Keys that a later version may have added are passed over too. An event that this one does not know is an error: what
    it says would be lost.
    """
    path = run_dir / LEDGER_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        raise RunDirectoryError(f"{run_dir}: not a run: it has no {LEDGER_FILE}.") from None
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be read: {error.strerror}.") from error
    history = History()
    for number, line in enumerate(lines[:-1], start=1):
        _enter(history, line, f"{path}, line {number}")
    return history


def _enter(history: History, line: bytes, where: str) -> None:
    """Add what one line of a ledger tells."""
    try:
        event = read_json(line, finite=False)  # a report shows what else such a record says
    except ValueError as error:
        raise RunDirectoryError(f"{where}: not a ledger event: {error}.") from error
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise RunDirectoryError(f"{where}: not a ledger event: no JSON object with the key 'event'.")
    if event["event"] == "ledger":
        schema = checked(int, event.get("schema"), f"{where}: schema")
        if schema > SCHEMA:
            raise RunDirectoryError(
                f"{where}: written by a newer rfsearch (schema {schema}; this one reads up to {SCHEMA})."
            )
    elif event["event"] == "start":
        assignment = checked(Assignment, event, where)
        history.assignments[assignment.trial] = assignment
    elif event["event"] == "finish":
        record = checked(Record, event, where)
        schema = 1 if "outcome" not in event else 2 if "dilation" in event else SCHEMA
        if schema < SCHEMA:
            record = upgraded(record, schema, checked(Ends, event, where))
        history.records[record.trial] = record
    elif event["event"] == "latency":
        trials = checked(list[str], event.get("trials"), f"{where}: trials")
        history.take_latency(trials, checked(Latency, event, where))
    elif event["event"] == "end":
        end = checked(End, event, where)
        history.ends[end.strategy, end.seed] = end.why
    else:
        kind = event["event"][:40]
        raise RunDirectoryError(
            f"{where}: an event {kind!r}, which this rfsearch does not know: damaged, or written by a newer one."
        )


def require_replayable(history: History, arms: Collection[tuple[str, int]], path: Path) -> None:
    """Check that a run can go on from a ledger.

    Args:
        history: What the ledger holds.
        arms: The run's arms, by strategy and seed.
        path: The ledger's file.

    Raises:
        RunDirectoryError: A trial that none of the arms can have handed out, or one without an amount as its cost.
    """
    known = ", ".join(sorted(f"{strategy}/{seed}" for strategy, seed in arms))
    trials: list[Assignment | Record] = [*history.assignments.values(), *history.records.values()]
    for trial in trials:
        if (trial.strategy, trial.seed) not in arms:
            raise RunDirectoryError(
                f"{path}: trial {trial.trial!r} is of arm {trial.strategy}/{trial.seed}, which this run does not have. "
                f"Its arms: {known}."
            )
    for record in history.records.values():
        if not all(0 <= amount < math.inf for amount in vars(record.cost).values()):
            raise RunDirectoryError(f"{path}: trial {record.trial!r} has a cost that is no amount: {record.cost}.")
