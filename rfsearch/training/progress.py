"""What a training leaves at a look, so that it, or an heir of it, can go on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from rfsearch.choices import Candidate
from rfsearch.errors import TrialError
from rfsearch.ledger import Cost, Rung
from rfsearch.ledger.files import read_json, write_whole
from rfsearch.ledger.schema import SCHEMA, split_looks
from rfsearch.surgery import without_dilations
from rfsearch.training import checkpoint

Point = tuple[int, str, float]
"""Step, path, and the value that is learned there."""


@dataclass(frozen=True)
class Progress:
    """Hold a training as it is at one of its validations.

    Args:
        loop: State of its loop; see `TrainingLoop.state`.
        step_flop: What its next step should cost.
        candidate: JSON of the candidate.
        first: The step that it began with itself, after that of its parent if it is an heir.
        step: Steps taken, its parent's included.
        cost: What it had measured.
        extra: What it was charged beyond that.
        rungs: Its looks so far.
        trace: What it has learned so far.
    """

    loop: Mapping[str, Any]
    step_flop: float
    candidate: str
    first: int
    step: int
    cost: Cost
    extra: Cost
    rungs: Sequence[Rung]
    trace: Sequence[Point]

    def save(self, file: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        state = {
            "schema": SCHEMA,
            "learner": self.loop,
            "step_flop": self.step_flop,
            "candidate": self.candidate,
            "first": self.first,
            "step": self.step,
            "cost": asdict(self.cost),
            "extra": asdict(self.extra),
            "rungs": [asdict(rung) for rung in self.rungs],
            "trace": [list(point) for point in self.trace],
        }
        checkpoint.save(state, file)
        write_whole(_charged_file(file), json.dumps(asdict(self.cost + self.extra)))

    @staticmethod
    def read(file: Path, device: torch.device, candidate: Candidate) -> Progress | None:
        """Read it, also of an earlier version; None where the file is damaged.

        Args:
            file: Where it is.
            device: Where its tensors are to be.
            candidate: Whose progress it is: earlier versions kept dilations as factors of its own ones.
        """
        state = checkpoint.load(file, device)
        if state is None:
            return None
        rungs = [Rung(**{**rung, "cost": Cost(**rung["cost"])}) for rung in state["rungs"]]
        trace = [(step, path, value) for step, path, value in state["trace"]]
        if "schema" not in state:
            rungs, trace = split_looks(candidate, rungs, trace)
        return Progress(
            loop=state["learner"],
            step_flop=state["step_flop"],
            candidate=state.get("candidate", ""),
            first=state.get("first", 0),  # progress of an older version is nobody's heir's
            step=state["step"],
            cost=Cost(**state["cost"]),
            extra=Cost(**state.get("extra", {})),
            rungs=rungs,
            trace=trace,
        )


def charged_at(file: Path) -> Cost | None:
    """Return what a trial had been charged at the look whose progress cannot be read; None where nobody noted it.

    Args:
        file: Its progress.
    """
    try:
        charged = Cost(**read_json(_charged_file(file).read_bytes()))
        return charged if min(astuple(charged)) >= 0.0 else None
    except (OSError, ValueError, TypeError):
        return None


def discard(file: Path) -> None:
    """Remove the progress of a trial that goes on no more.

    Args:
        file: Where it is.
    """
    file.unlink(missing_ok=True)
    _charged_file(file).unlink(missing_ok=True)


def _charged_file(file: Path) -> Path:
    return file.with_name("charged.json")


def read_parent(parent: str, file: Path, device: torch.device, heir: Candidate) -> tuple[Mapping[str, Any], Progress]:
    """Read what an heir goes on from: the state of its loop, at the heir's dilations, and the parent's progress.

    Args:
        parent: Name of the trial.
        file: Its progress.
        device: Where the heir trains.
        heir: The heir's candidate.

    Raises:
        TrialError: The file is missing or damaged, or the heir differs in more than dilations.
    """
    if not file.exists():
        raise TrialError(
            f"it goes on from {parent}, of which {file} is missing: every worker must see the same run directory."
        )
    progress = Progress.read(file, device, heir)
    if progress is None:
        raise TrialError(f"it goes on from {parent}, whose checkpoint is damaged: {file} cannot be read.")
    theirs, network = Candidate.from_json(progress.candidate), progress.loop["model"]
    if theirs != heir:
        if heir.learned or theirs.undilated != heir.undilated:
            raise TrialError(
                f"an heir differs from its parent in dilations that no training moves, and in nothing else. "
                f"Got {heir}, heir of {theirs}."
            )
        network = without_dilations(network)
    return {**progress.loop, "model": network}, progress
