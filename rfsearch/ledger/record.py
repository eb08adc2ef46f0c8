"""What one trial was, scored and cost: the only currency between strategy, ledger and report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from rfsearch.choices import Candidate, Choice
from rfsearch.errors import RfsearchError
from rfsearch.ledger.typed_json import checked

Status = Literal["completed", "pruned", "cut", "failed"]

TRIAL_COLUMNS = (
    "trial", "strategy", "seed", "status", "candidate", "outcome", "rf_px", "rf_init_px", "f", "gamma", "dilation",
    "val", "test", "train_flop", "device_s", "epochs", "steps", "infer_mac", "infer_latency_ms", "infer_peak_bytes",
    "params", "train_seed", "heir_of", "cause",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What work has cost, in the three currencies a budget can name.

    flop: floating-point operations (2 x MAC), training, optimiser and evaluation together.
    device_s: seconds a device was held. epochs: passes over the training images.
    """

    flop: float = 0.0
    device_s: float = 0.0
    epochs: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.device_s + other.device_s, self.epochs + other.epochs)


@dataclass(frozen=True)
class Rung:
    """A look at a training in progress: its step, validation score, inflation factors (by path) and cost so far."""

    step: int
    val: float
    f: Mapping[str, float]
    cost: Cost


@dataclass(frozen=True)
class Latency:
    """How long one image takes through a network in evaluation: measured after a run, with nothing else running.

    median_ms, low_ms, high_ms: median, 10th and 90th percentile of several passes; networks whose intervals from low to
    high overlap are ties. where: the device and, for a CPU, its threads. shape: a fingerprint of everything that the
    time depends on; networks of one shape share one measurement.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    where: str
    shape: str


@dataclass(frozen=True)
class Record:
    """One finished trial. `val`, `test` and the infer_* figures are None where the trial never got that far.

    candidate: JSON of the candidate as suggested. outcome: JSON of the candidate that the network ended training with,
    written by who trained; the candidate itself where nothing moved.
    path_rf_px: receptive fields behind the convolutions of parallel paths, by path: `site/1`, `site/2`.
    trace: (step, path, value) points of what was learned, for Wei's Fig. 4. scores: every test score by name.
    train_peak_bytes: measured peak memory of a training step; forecast: what the plan had said, None for an heir.
    infer_latency_ms, infer_latency_spread_ms: the median and the spread of `Latency`. A latency without a spread is of
    an older version, which measured it while other trials trained.
    heir_of: the trial whose training this one went on with; `cost`, `rungs` and `trace` are of its own stretch, `steps`
    of the network.
    """

    trial: str
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
    heir_of: str = ""
    outcome: str = ""

    def __post_init__(self) -> None:
        if not self.outcome:
            object.__setattr__(self, "outcome", self.candidate)

    @property
    def scored(self) -> bool:
        """Whether this trial can be an incumbent: it has a validation score, a number, and a checkpoint behind it."""
        return self.val is not None and math.isfinite(self.val) and self.status in ("completed", "cut")

    def timed(self, latency: Latency | None) -> Record:
        """This record with the latency of its network, where there is one."""
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
    """A candidate, or None where its JSON holds choices that this version does not know."""
    try:
        return Candidate.from_json(candidate)
    except (ValueError, KeyError, TypeError, AttributeError, RfsearchError):
        return None
