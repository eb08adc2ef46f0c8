"""What one trial was, scored and cost: the only currency between strategy, ledger and report."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from rfsearch.choices import Candidate, Choice
from rfsearch.errors import RfsearchError
from rfsearch.ledger.typed_json import checked

Status = Literal["completed", "pruned", "cut", "failed"]

TRIAL_COLUMNS = (
    "trial", "strategy", "seed", "status", "candidate", "outcome", "rf_px", "rf_init_px", "f", "gamma", "dilation",
    "val", "test", "train_flop", "device_s", "epochs", "steps", "infer_mac", "infer_latency_ms", "infer_peak_bytes",
    "params", "train_seed", "heir_of", "cause",
)  # fmt: skip

_FOLDER_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,200}")


def check_trial_name(name: str) -> str:
    """Return the name of a trial, which its folder of checkpoints is called by.

    Raises:
        ValueError: It is no name of a folder, such as a path that leads to another one.
    """
    if _FOLDER_NAME.fullmatch(name) is None:
        raise ValueError("a trial's checkpoints are in a folder of its name, which holds no slash and is not '..'")
    return name


TrialName = Annotated[str, AfterValidator(check_trial_name)]
ParentName = Annotated[str, AfterValidator(lambda name: name and check_trial_name(name))]
"""The name of a trial that another one goes on from; empty where there is none."""


@dataclass(frozen=True)
class Cost:
    """Hold what work has cost, in the three currencies that a budget can name.

    Attributes:
        flop: Floating-point operations (2 x MAC), training, optimiser and evaluation together.
        device_s: Seconds that a device was held.
        epochs: Passes over the training images.
    """

    flop: float = 0.0
    device_s: float = 0.0
    epochs: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.device_s + other.device_s, self.epochs + other.epochs)


@dataclass(frozen=True)
class Rung:
    """Hold one validation of a training in progress.

    Attributes:
        step: Training step.
        val: Validation score.
        f: Inflation factors, by path.
        cost: Cost so far.
        loss: Mean training loss of the steps since the validation before; None where that is not known.
    """

    step: int
    val: float
    f: Mapping[str, float]
    cost: Cost
    loss: float | None = None


@dataclass(frozen=True)
class Latency:
    """Hold how long one image takes through a network in evaluation, measured with nothing else running.

    Networks whose intervals from low to high overlap are ties.

    Attributes:
        median_ms: Median of several passes, ms.
        low_ms: Their 10th percentile, ms.
        high_ms: Their 90th percentile, ms.
        where: The device and, for a CPU, its threads.
        shape: Fingerprint of everything that the time depends on; networks of one shape share one measurement.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    where: str
    shape: str


@dataclass(frozen=True)
class Record:
    """Hold what one finished trial was, scored and cost.

    Attributes:
        trial: Its name.
        strategy: Label of its arm's strategy.
        seed: Seed of its arm.
        status: How it ended.
        candidate: JSON of the candidate as suggested.
        rf_px: Receptive field that the network ended with, px.
        rf_init_px: Receptive field that it began with, px.
        cost: What it cost.
        path_rf_px: Receptive fields behind the convolutions of parallel paths, by path: `site/1`, `site/2`.
        val: Validation score. This, `test` and the infer_* figures are None if the trial never got that far.
        test: Test score.
        infer_mac: MACs of one image in evaluation.
        infer_latency_ms: Median of `Latency`.
        infer_latency_spread_ms: Spread of `Latency`. A latency without one was measured while other trials trained:
            by an older version, or at the end of a trial of a search that goes by it.
        infer_peak_bytes: Peak memory of one image in evaluation.
        params: Number of the network's parameters.
        cause: Why it failed, or why its cost is incomplete; else empty.
        train_seed: Seed of its training.
        steps: Steps that the network has trained.
        rungs: Its validations on the way.
        trace: (step, path, value) points of what was learned, for Wei's Fig. 4.
        scores: Every test score, by name.
        train_peak_bytes: Measured peak memory of a training step.
        forecast: What the plan expected it to cost, None for an heir.
        forecast_peak_bytes: Peak memory that the plan expected.
        heir_of: Trial whose training this one continued; `cost`, `rungs` and `trace` are of its own stretch.
        outcome: JSON of the candidate that the network ended training with, written by who trained; the candidate
            itself if nothing moved.
    """

    trial: TrialName
    strategy: str
    seed: int
    status: Status
    candidate: str
    rf_px: int
    rf_init_px: int
    cost: Cost
    path_rf_px: Mapping[str, int] = field(default_factory=dict)
    val: float | None = None
    test: float | None = None
    infer_mac: float | None = None
    infer_latency_ms: float | None = None
    infer_latency_spread_ms: tuple[float, float] | None = None
    infer_peak_bytes: int | None = None
    params: int | None = None
    cause: str = ""
    train_seed: int = 0
    steps: int = 0
    rungs: tuple[Rung, ...] = ()
    trace: tuple[tuple[int, str, float], ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    train_peak_bytes: int | None = None
    forecast: Cost | None = None
    forecast_peak_bytes: int | None = None
    heir_of: ParentName = ""
    outcome: str = ""

    def __post_init__(self) -> None:
        if not self.outcome:
            object.__setattr__(self, "outcome", self.candidate)

    @property
    def scored(self) -> bool:
        """Whether this trial can be an incumbent: it has a validation score, a number, and a checkpoint behind it."""
        return self.val is not None and math.isfinite(self.val) and self.status in ("completed", "cut")

    def timed(self, latency: Latency | None) -> Record:
        """Return this record with the latency of its network, if there is one."""
        if latency is None:
            return self
        spread = latency.low_ms, latency.high_ms
        return replace(self, infer_latency_ms=latency.median_ms, infer_latency_spread_ms=spread)

    @cached_property
    def ended(self) -> Candidate | None:
        """The outcome, or None where it holds choices that this version does not know."""
        return parsed(self.outcome)

    @cached_property
    def f(self) -> Mapping[str, float]:
        """The inflation factor that each inflated path ended with, by path: `site`, or `site/1` of parallel ones."""
        return self._numbers("f", 1.0)

    @cached_property
    def gamma(self) -> Mapping[str, float]:
        """The sample stride that each LS-DFN block ended with, px, by path."""
        return self._numbers("gamma", 1.0)

    @cached_property
    def found(self) -> Mapping[str, Choice]:
        """What each path has become whose number training moved, by path; without those that gave no number."""
        ended = {name: path.choice for name, path in self.ended or () if not path.choice.moves}
        started = [name for name, path in parsed(self.candidate) or () if path.choice.moves]
        return {name: ended[name] for name in started if name in ended}

    def _numbers(self, name: str, neutral: float) -> Mapping[str, float]:
        """Return a number of each path that began with one, as it ended, without those that diverged.

        Args:
            name: Of the number; see `Choice.numbers`.
            neutral: What it is where the outcome does without one.
        """
        started, ended = parsed(self.candidate), dict(self.ended or ())
        return {
            path: ended[path].choice.numbers.get(name, neutral)
            for path, start in started or ()
            if name in start.choice.numbers and path in ended and ended[path].choice.moves != name
        }

    def row(self, plain: bool = False) -> dict[str, Any]:
        """Return one line of trials.csv, by column name.

        Args:
            plain: Whether `f`, `gamma` and `dilation` are plain numbers, those of the only path; else they are
                `site=value` or `site/1=value;site/2=value`. They are what training ended with: taps behind an
                inflation are dilation / f px apart.
        """
        numbers = {name: path.choice.numbers for name, path in self.ended or ()}
        dilations = {name: found["dilation"] for name, found in numbers.items() if "dilation" in found}
        flat = {
            "train_flop": self.cost.flop,
            "device_s": self.cost.device_s,
            "epochs": self.cost.epochs,
            "f": _cell(self.f, plain),
            "gamma": _cell(self.gamma, plain),
            "dilation": _cell(dilations, plain),
        }
        return {column: flat[column] if column in flat else getattr(self, column) for column in TRIAL_COLUMNS}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Record:
        """Read a record back; fields of a later schema that this one does not know are left aside."""
        return checked(Record, body, "record")


def _cell(values: Mapping[str, float], plain: bool) -> str | float | None:
    """Return what a column of trials.csv says of the values of one record's paths."""
    if plain:
        return next((float(f"{value:.6g}") for value in values.values()), None)
    return ";".join(f"{path}={value:.6g}" for path, value in values.items())


def parsed(candidate: str) -> Candidate | None:
    """Return a candidate, or None if its JSON holds choices that this version does not know."""
    try:
        return Candidate.from_json(candidate)
    except (ValueError, KeyError, TypeError, AttributeError, RfsearchError):
        return None
