"""The append-only file of everything a run did: its first line names the schema, a torn last line is forgiven.

Four kinds of event follow the header. `start` says which trial was handed out, with everything needed to hand it out
again; `finish` holds its record. A trial that has started and not finished is what `resume` takes up again. `latency`
says how long the networks of some trials take, which is measured when all have finished; `end` says why an arm ended
with budget left. Unknown kinds are passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger.record import Latency, Record

SCHEMA = 1
LEDGER_FILE = "ledger.jsonl"


@dataclass(frozen=True)
class Assignment:
    """One trial as handed out. limit: what it may spend before it is cut, in the budget's currency. heir_of: the trial
    of its arm whose training it goes on with, empty where it begins one."""

    trial: str
    strategy: str
    seed: int
    candidate: str
    train_seed: int
    limit: float
    heir_of: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what an older version does not know, unless it is needed."""
        return {key: value for key, value in self.__dict__.items() if key != "heir_of" or value}


@dataclass
class History:
    """What a ledger tells: trials handed out, in order, and records, in the order they came in.

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
    """Appends events to a run's ledger, each one on disk before the call returns."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LEDGER_FILE
        try:
            if not self.path.exists():
                self._write({"event": "ledger", "schema": SCHEMA})
            else:
                _drop_torn_line(self.path)
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
        self._append({"event": "end", "strategy": strategy, "seed": seed, "why": why})

    def _append(self, event: Mapping[str, Any]) -> None:
        try:
            self._write(event)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: the ledger cannot be written: {error.strerror}. What it holds is safe; "
                f"make room, then resume with: rfsearch resume {self.path.parent}"
            ) from error

    def _write(self, event: Mapping[str, Any]) -> None:
        line = json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            before = file.tell()
            try:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, before)
                raise


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left without its newline, so that the next event starts on a line of its own."""
    body = path.read_bytes()
    if body and not body.endswith(b"\n"):
        os.truncate(path, body.rfind(b"\n") + 1)


def read_history(run_dir: Path) -> History:
    """Everything a run's ledger tells. A torn last line is passed over; any other fault is an error with its line."""
    path = run_dir / LEDGER_FILE
    if not path.exists():
        raise RunDirectoryError(f"{run_dir}: not a run: it has no {LEDGER_FILE}.")
    lines = path.read_bytes().split(b"\n")
    history = History()
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = json.loads(line)
            kind = event.pop("event")
        except (ValueError, KeyError, AttributeError) as error:
            raise RunDirectoryError(f"{path}, line {number}: not a ledger event.") from error
        if kind == "ledger":
            if event["schema"] > SCHEMA:
                raise RunDirectoryError(
                    f"{path}: written by a newer rfsearch (schema {event['schema']}; this one reads up to {SCHEMA})."
                )
        elif kind == "start":
            history.assignments[event["trial"]] = Assignment(**event)
        elif kind == "finish":
            history.records[event["trial"]] = Record.from_json(event)
        elif kind == "latency":
            history.take_latency(event["trials"], Latency.from_json(event))
        elif kind == "end":
            history.ends[event["strategy"], event["seed"]] = event["why"]
    return history
