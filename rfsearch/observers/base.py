"""What follows the records of a run: the contract of an observer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rfsearch.direction import Direction
from rfsearch.ledger.record import Record, Rung, parsed

Value = float | int | str


@dataclass(frozen=True)
class Watched:
    """Describe the run that is observed.

    Attributes:
        directory: Its directory.
        title: What it is about.
        metric: Name of the score.
        direction: Whether a higher or a lower score is the better one.
        arms: Strategy and seed of every arm.
        ranges: The least and the most that the space allows of a number of a choice, such as `dilation`, by its name.
        finished: Trials that had come back before this process began.
        settings: What was asked for, by name.
    """

    directory: Path
    title: str
    metric: str
    direction: Direction
    arms: Sequence[tuple[str, int]]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    finished: Sequence[Record] = ()
    settings: Mapping[str, Value] = field(default_factory=dict)


class Observer(ABC):
    """Follow the records of one run. It is made as `Kind(watched)`, once for every process that works on the run.

    All methods are called in the process and thread that hands out trials, which wait meanwhile.

    Example:
        >>> class Printing(Observer):
        ...     def __init__(self, watched: Watched) -> None: ...
        ...     def finished(self, record: Record) -> None:
        ...         print(record.trial, record.val)
    """

    @abstractmethod
    def __init__(self, watched: Watched) -> None:
        """Begin to follow a run, or go on with it where a process before has stopped."""

    def rung(self, record: Record) -> None:  # noqa: B027
        """Take in a validation of a trial in training: the last of `record.rungs`."""

    @abstractmethod
    def finished(self, record: Record) -> None:
        """Take in a trial that has come back, however it ended."""

    def ended(self, page: Path) -> None:  # noqa: B027
        """Take in the run's page, as this process leaves the run: finished or interrupted."""

    def close(self) -> None:  # noqa: B027
        """Let go of whatever is held; called last, also after a fault of the run."""


def parameters(candidate: str) -> dict[str, Value]:
    """Return what a candidate gives every path, by path and name: numbers and words, without flags.

    Args:
        candidate: Its JSON.
    """
    found: dict[str, Value] = {}
    for name, path in parsed(candidate) or ():
        body = path.choice.to_json()
        for key, value in body.items():
            if isinstance(value, int | float | str) and not isinstance(value, bool) and key != "kind":
                found[f"{name}.{key}"] = value
        found.setdefault(f"{name}.kind", path.choice.kind)
    return found


def curve(rung: Rung) -> dict[str, float]:
    """Return the values of one validation: score, cost and what is learned."""
    learned = {f"f/{path}": f for path, f in rung.f.items()}
    return {"val": rung.val, "train_flop": rung.cost.flop, "device_s": rung.cost.device_s, **learned}


def outcome(record: Record) -> dict[str, float]:
    """Return the numbers that a trial ended with, those that it has."""
    numbers = {
        "val": record.val,
        "test": record.test,
        "rf_px": record.rf_px,
        "train_flop": record.cost.flop,
        "device_s": record.cost.device_s,
        "epochs": record.cost.epochs,
        "infer_mac": record.infer_mac,
        "params": record.params,
        **{f"f/{path}": value for path, value in record.f.items()},
        **{f"gamma/{path}": value for path, value in record.gamma.items()},
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}


def about(record: Record) -> dict[str, str]:
    """Return what is said of a trial in words."""
    said = {
        "trial": record.trial,
        "strategy": record.strategy,
        "seed": str(record.seed),
        "status": record.status,
        "outcome": record.outcome,
        "heir_of": record.heir_of,
        "cause": record.cause,
    }
    return {name: words for name, words in said.items() if words}
