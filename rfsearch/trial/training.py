"""One training of one candidate, advanced from look to look, with its cost known at every step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from rfsearch.data import ImageSet, Split
from rfsearch.errors import RunDirectoryError, TrialError
from rfsearch.ledger import Assignment, Cost, Record, Rung
from rfsearch.ledger.files import whole_file
from rfsearch.ledger.record import Status
from rfsearch.ledger.schema import SCHEMA, split_looks
from rfsearch.space import Candidate, Space
from rfsearch.surgery import without_dilations
from rfsearch.trial import checkpoint
from rfsearch.trial.learner import LATENCY_PASSES, Fields, Learner, fields_of
from rfsearch.trial.memory import PeakMemory
from rfsearch.trial.meter import held_bytes

_TRACE_POINTS = 200
_EXAMPLES = 4


def scored_at_the_end(data: ImageSet) -> int:
    """Images that a trained network is shown: validation, test, those that weigh its inference, and the examples."""
    splits = data.splits
    scored = sum(len(splits[name]) for name in ("val", "test") if name in splits)
    return scored + 1 + LATENCY_PASSES + min(_EXAMPLES, len(examples_of(data)))


def examples_of(data: ImageSet) -> Split:
    """The split whose predictions the report shows."""
    return data.splits.get("test", data.splits["val"])


class Training:
    """Trains one assignment. `advance` goes to the next look and returns the record as it stands there.

    A record with status `pruned` is provisional: the training can go on. Any other status is final. What a user's
    model or data raises becomes a record with status `failed`; nothing leaves `advance` but an interrupt, and
    RunDirectoryError where a checkpoint cannot be written: that is not the trial's fault, which can go on later.

    data: all splits. directory: of this trial's checkpoints, beside those of the other trials; a training that was
    interrupted goes on from there. An heir goes on from its parent's last look: its weights, momentum, step and random
    numbers, at dilations and with an order of images of its own, and is charged what it trains itself.
    currency: of the assignment's limit, a field of `Cost`. lost: how often a worker died on the way to the next look;
    what it did is charged as that way costs when it is gone again. lost_s: seconds for which those held their devices.
    step: forecast of its first step, so that the limit holds before any step has been metered.
    """

    def __init__(
        self,
        space: Space,
        data: ImageSet,
        assignment: Assignment,
        currency: str,
        device: torch.device,
        directory: Path,
        lost: int = 0,
        lost_s: float = 0.0,
        step: Cost | None = None,
    ) -> None:
        self._space, self._data, self._assignment = space, data, assignment
        self._currency, self._device, self._directory = currency, device, directory
        self._candidate = Candidate.from_json(assignment.candidate)
        self._carried = self._at_look = self._extra = Cost()
        self._lost, self._lost_s = lost, lost_s
        self._forecast_step = step or Cost()
        self._rungs: list[Rung] = []
        self._trace: list[tuple[int, str, float]] = []
        self._step = self._begun = self._first = 0
        self._rf_init = 0
        self._known_fields: Fields | None = None
        self._learner: Learner | None = None
        self._clock_start: float | None = None
        self._told = ""

    def advance(self) -> Record:
        """Train to the next look, the end, or the limit."""
        self._clock_start = time.perf_counter()
        try:
            return self._advance()
        except RunDirectoryError:
            raise
        except TrialError as error:
            cause = str(error)
        except (torch.OutOfMemoryError, MemoryError) as error:
            cause = f"out of memory: {error}"
        except RuntimeError as error:
            cause = f"out of memory: {error}" if "not enough memory" in str(error) else f"RuntimeError: {error}"
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
        finally:
            self._carried = replace(self._carried, device_s=self._measured.device_s)
            self._clock_start = None
        self._progress_file.unlink(missing_ok=True)
        return replace(self._record("failed"), cause=" ".join(cause.split())[:2000])

    @property
    def _measured(self) -> Cost:
        """What this training did: its steps, whole or begun, its passes, and the time that it held its device for,
        before an interruption too."""
        learner, seconds = self._learner, self._carried.device_s
        if self._clock_start is not None:
            seconds += time.perf_counter() - self._clock_start
        if learner is None:
            return replace(self._carried, device_s=seconds)
        return Cost(self._carried.flop + learner.flop, seconds, learner.epochs(self._begun - self._first))

    def _charged(self, measured: Cost) -> Cost:
        """What is charged once that much is measured. Lost workers did no more than what it took to go their way again
        to the next look, and held their devices until they were missed."""
        if not self._lost:
            return measured + self._extra
        flop, epochs = measured.flop - self._at_look.flop, measured.epochs - self._at_look.epochs
        return measured + self._extra + Cost(self._lost * flop, self._lost_s, self._lost * epochs)

    @property
    def _cost(self) -> Cost:
        return self._charged(self._measured)

    def _advance(self) -> Record:
        if self._learner is None:
            self._begin()
            if self._rungs:  # picked up at a look that may not have been judged yet
                return replace(self._record("pruned"), val=self._rungs[-1].val)
        learner, recipe = self._learner, self._space.recipe
        assert learner is not None
        rung_steps = {learner.prelude + step for step in recipe.rung_steps()}
        some, last = min(recipe.rung_images, len(self._data.splits["val"])), scored_at_the_end(self._data)
        while self._step < learner.steps:
            step = learner.look_cost(self._step) + self._step_cost(learner)
            if self._exceeds(step + learner.score_cost(last)):
                break
            self._begun = self._step + 1
            learner.train_step(self._step)
            self._step += 1
            if self._step % max(1, learner.steps // _TRACE_POINTS) == 0:
                self._trace += [(self._step, site, value) for site, value in learner.learned_values().items()]
            due = self._step in rung_steps and self._step < learner.steps
            if due and not self._exceeds(learner.score_cost(some + last)):
                return self._look(learner)
        return self._finish(learner)

    def _step_cost(self, learner: Learner) -> Cost:
        """What the next step should cost: as forecast, until one has been metered."""
        metered, forecast = learner.step_cost(), self._forecast_step
        return Cost(metered.flop or forecast.flop, metered.device_s or forecast.device_s, metered.epochs)

    def _exceeds(self, more: Cost) -> bool:
        """Whether that much more would overshoot the limit."""
        return bool(getattr(self._charged(self._measured + more), self._currency) > self._assignment.limit)

    def _begin(self) -> None:
        """Build the network and pick up where an interrupted training of this trial, or its parent, had stopped."""
        memory = PeakMemory(self._device)
        torch.manual_seed(self._assignment.train_seed)
        self._learner = Learner(
            self._space, self._data, self._candidate, self._assignment.train_seed, self._device, memory
        )
        self._rf_init = self._fields().rf_px
        state = checkpoint.load(self._progress_file, self._device) if self._progress_file.exists() else None
        if state is None and self._progress_file.exists():
            self._told = "its checkpoint was damaged, so it began again; what it had cost before is not known"
        if state is not None:
            self._learner.load_state(state["learner"], state["step_flop"])
            self._step = self._begun = state["step"]
            self._first = state.get("first", 0)  # progress of an older version is nobody's heir's
            self._carried, self._extra = Cost(**state["cost"]), Cost(**state.get("extra", {}))
            self._at_look = self._measured
            self._rungs = [Rung(**{**rung, "cost": Cost(**rung["cost"])}) for rung in state["rungs"]]
            self._trace = [(step, site, value) for step, site, value in state["trace"]]
            if "schema" not in state:
                self._rungs, self._trace = split_looks(self._candidate, self._rungs, self._trace)
            return
        if self._assignment.heir_of:
            self._take_over(self._learner)
        self._trace += [(self._step, site, value) for site, value in self._learner.learned_values().items()]

    def _take_over(self, learner: Learner) -> None:
        """Go on from where another trial was stopped."""
        parent = self._assignment.heir_of
        file = self._directory.parent / parent / self._progress_file.name
        if not file.exists():
            raise TrialError(
                f"it goes on from {parent}, of which {file} is missing: every worker must see the same run directory."
            )
        state = checkpoint.load(file, self._device)
        if state is None:
            raise TrialError(f"it goes on from {parent}, whose checkpoint is damaged: {file} cannot be read.")
        theirs, network = Candidate.from_json(state["candidate"]), state["learner"]["model"]
        if theirs != self._candidate:
            if self._candidate.learned or theirs.undilated != self._candidate.undilated:
                raise TrialError(
                    f"an heir differs from its parent in dilations that no training moves, and in nothing else. "
                    f"Got {self._candidate}, heir of {theirs}."
                )
            network = without_dilations(network)
        learner.load_state({**state["learner"], "model": network}, state["step_flop"])
        self._step = self._begun = self._first = state["step"]

    def _look(self, learner: Learner) -> Record:
        """Validate on part of the validation split and keep a checkpoint to resume from."""
        some = self._data.splits["val"].some(self._space.recipe.rung_images)
        score, _ = learner.score(some)
        learner.charge_estimates()
        measured = self._measured
        cost = self._charged(measured)
        self._extra, self._at_look, self._lost = _less(cost, measured), measured, 0
        self._rungs.append(Rung(self._step, score.primary, learner.f_values(), cost))
        state = {
            "schema": SCHEMA,
            "learner": learner.state(),
            "step_flop": learner.step_cost().flop,
            "candidate": self._assignment.candidate,
            "first": self._first,
            "step": self._step,
            "cost": asdict(measured),
            "extra": asdict(self._extra),
            "rungs": [asdict(rung) for rung in self._rungs],
            "trace": [list(point) for point in self._trace],
        }
        checkpoint.save(state, self._progress_file)
        return replace(self._record("pruned"), val=score.primary, cost=cost)

    def _finish(self, learner: Learner) -> Record:
        """Score the final weights on the whole validation and test split, weigh inference, and keep the checkpoint."""
        status: Status = "completed" if self._step == learner.steps else "cut"
        splits = self._data.splits
        learner.settle()
        val, _ = learner.score(splits["val"])
        test = learner.score(splits["test"])[0] if "test" in splits else None
        inference = learner.weigh_inference()
        learner.charge_estimates()
        with whole_file(self._directory / "examples.npz") as file:
            learner.pictures(examples_of(self._data).some(_EXAMPLES)).write(file)
        choices = dict(self._candidate)
        found = {path: value for path, value in learner.dilation_values().items() if choices[path].to_find}
        checkpoint.save(
            {"model": learner.model.state_dict(), "candidate": self._candidate.ended(found).to_json()},
            self._directory / "model.pt",
        )
        self._progress_file.unlink(missing_ok=True)
        return replace(
            self._record(status),
            val=val.primary,
            test=test.primary if test else None,
            scores=dict((test or val).all),
            infer_mac=inference.flop / 2,
            infer_peak_bytes=inference.peak_bytes + held_bytes(learner.model),
        )

    def _record(self, status: Status) -> Record:
        learner = self._learner
        fields = self._fields() if learner and status != "failed" else Fields(self._rf_init, {}, "")
        f = _finite(learner.f_values()) if learner else {}
        gamma = _finite(learner.gamma_values()) if learner else {}
        dilation = _finite(learner.dilation_values()) if learner else {}
        return Record(
            trial=self._assignment.trial,
            strategy=self._assignment.strategy,
            seed=self._assignment.seed,
            status=status,
            candidate=self._assignment.candidate,
            rf_px=fields.rf_px,
            rf_init_px=self._rf_init,
            path_rf_px=fields.path_rf_px,
            cost=self._cost,
            outcome=self._candidate.ended(dilation, f, gamma).to_json(),
            f=f,
            gamma=gamma,
            dilation=dilation,
            params=sum(p.numel() for p in learner.model.parameters()) if learner else None,
            train_seed=self._assignment.train_seed,
            steps=self._step,
            rungs=tuple(self._rungs),
            trace=tuple(point for point in self._trace if math.isfinite(point[2])),
            train_peak_bytes=learner.train_peak_bytes if learner else None,
            heir_of=self._assignment.heir_of,
            cause=self._told,
        )

    def _fields(self) -> Fields:
        """The receptive fields as they stand."""
        assert self._learner is not None
        if not self._candidate.learned and self._known_fields is not None:
            return self._known_fields
        self._known_fields = fields_of(
            self._learner.model, self._learner.learnable, self._candidate, self._data.input_shape
        )
        return self._known_fields

    @property
    def _progress_file(self) -> Path:
        return self._directory / "progress.pt"


def _less(whole: Cost, part: Cost) -> Cost:
    return Cost(whole.flop - part.flop, whole.device_s - part.device_s, whole.epochs - part.epochs)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """What of these a ledger can hold: a factor that diverged is no number."""
    return {site: value for site, value in values.items() if math.isfinite(value)}
