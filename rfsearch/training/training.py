"""One training of one candidate, advanced from look to look, with its cost known at every step."""

from __future__ import annotations

import math
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from rfsearch.choices import Candidate
from rfsearch.data import ImageSet, Split
from rfsearch.errors import RunDirectoryError, TrialError
from rfsearch.interrupt import Interrupted
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.ledger.files import whole_file
from rfsearch.ledger.record import Status
from rfsearch.space import Space
from rfsearch.space.objectives import LATENCY
from rfsearch.training import checkpoint
from rfsearch.training.charges import Charges
from rfsearch.training.evaluation import weighed_images
from rfsearch.training.latency import charged_passes, latency_ms
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.memory import PeakMemory
from rfsearch.training.meter import held_bytes
from rfsearch.training.network import Fields, fields_of
from rfsearch.training.order import Order
from rfsearch.training.progress import Point, Progress, charged_at, discard, read_parent
from rfsearch.training.random_states import seed_all

_TRACE_POINTS = 200
_EXAMPLES = 4


def scored_at_the_end(data: ImageSet, weighed: int, timing: int) -> int:
    """Return the number of images that a trained network is shown.

    They are those of validation and test, those that weigh its inference or measure its latency, and the examples.

    Args:
        data: All splits.
        weighed: How many weigh its inference, see `weighed_images`.
        timing: How many measure its latency, see `charged_passes`.
    """
    splits = data.splits
    scored = sum(len(splits[name]) for name in ("val", "test") if name in splits)
    return scored + weighed + timing + min(_EXAMPLES, len(examples_of(data)))


def examples_of(data: ImageSet) -> Split:
    """Return the split whose predictions the report shows."""
    return data.splits.get("test", data.splits["val"])


class Training:
    """Train one assignment. `advance` goes to the next look and returns the record as it stands there.

    A record with status `pruned` is provisional: the training can go on. Any other status is final. What a user's
    model or data raises becomes a record with status `failed`; nothing leaves `advance` but an interrupt, and
    RunDirectoryError where a checkpoint cannot be written: that is not the trial's fault, which can go on later.

    Args:
        space: Network, task and recipe.
        data: All splits.
        order: What to train. An heir goes on from its parent's last look: its weights, momentum, step and random
            numbers, at dilations and with an order of images of its own, and is charged what it trains itself.
    """

    def __init__(self, space: Space, data: ImageSet, order: Order) -> None:
        """Build nothing yet: `advance` does."""
        self._space, self._data, self._order = space, data, order
        self._device, self._directory = order.device, order.directory
        self._candidate = Candidate.from_json(order.assignment.candidate)
        self._charges = Charges(order.lost, order.lost_s)
        self._rungs: list[Rung] = []
        self._trace: list[Point] = []
        self._step = 0
        self._rf_init = 0
        self._known_fields: Fields | None = None
        self._loop: TrainingLoop | None = None
        self._said = ""

    def advance(self) -> Record:
        """Train to the next look, the end, or the limit."""
        with self._charges.running():
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
            except (KeyboardInterrupt, Interrupted):
                raise
            except BaseException as error:
                if isinstance(error, SystemExit) and _raised_by_ray(error):
                    raise
                cause = f"{type(error).__name__}: {error}"
        discard(self._progress_file)
        return replace(self._record("failed"), cause=" ".join(cause.split())[:2000])

    def close(self) -> None:
        """Let go of network and optimiser."""
        self._loop = None

    def _advance(self) -> Record:
        if self._loop is None:
            self._begin()
            if self._rungs:  # picked up at a look that may not have been judged yet
                return replace(self._record("pruned"), val=self._rungs[-1].val)
        loop, recipe = self._loop, self._space.recipe
        assert loop is not None
        rung_steps = {loop.prelude + step for step in recipe.rung_steps()}
        some = min(recipe.rung_images, len(self._data.splits["val"]))
        timing = charged_passes(self._space.costs)
        last = scored_at_the_end(self._data, weighed_images(loop.task, self._data), timing)
        while self._step < loop.steps:
            step = loop.look_cost(self._step) + self._step_cost(loop)
            if self._exceeds(step + loop.evaluation.cost(last)):
                break
            self._charges.begun = self._step + 1
            loop.train_step(self._step)
            self._step += 1
            if self._step % max(1, loop.steps // _TRACE_POINTS) == 0:
                self._trace_learned(loop)
            due = self._step in rung_steps and self._step < loop.steps
            if due and not self._exceeds(loop.evaluation.cost(some + last)):
                return self._look(loop)
        return self._finish(loop)

    def _step_cost(self, loop: TrainingLoop) -> Cost:
        """Return what the next step should cost: as forecast, until one has been metered."""
        metered, forecast = loop.step_cost(), self._order.step
        return Cost(metered.flop or forecast.flop, metered.device_s or forecast.device_s, metered.epochs)

    def _exceeds(self, more: Cost) -> bool:
        """Return whether that much more would overshoot the limit."""
        return self._order.exceeded_by(self._charges.total_of(self._charges.measured + more))

    def _begin(self) -> None:
        """Build the network and pick up where an interrupted training of this trial, or its parent, had stopped."""
        memory, seed = PeakMemory(self._device), self._order.assignment.train_seed
        seed_all(seed)
        loop = self._loop = TrainingLoop(self._space, self._data, self._candidate, seed, self._device, memory)
        self._charges.follow(loop)
        self._rf_init = self._fields(loop).rf_px
        if self._progress_file.exists():
            if (left := Progress.read(self._progress_file, self._device, self._candidate)) is not None:
                self._resume(loop, left)
                return
            self._said = self._charges.begin_again(charged_at(self._progress_file))
        if parent := self._order.assignment.heir_of:
            file = self._directory.parent / parent / self._progress_file.name
            state, left = read_parent(parent, file, self._device, self._candidate)
            loop.load_state(state, left.step_flop)
            self._step = self._charges.begun = self._charges.first = left.step
        self._trace_learned(loop)

    def _resume(self, loop: TrainingLoop, left: Progress) -> None:
        loop.load_state(left.loop, left.step_flop)
        self._step = self._charges.begun = left.step
        self._charges.first = left.first
        self._charges.resume(left.cost, left.extra)
        self._rungs, self._trace = list(left.rungs), list(left.trace)

    def _trace_learned(self, loop: TrainingLoop) -> None:
        self._trace += [(self._step, path, value) for path, value in loop.learned_values().items()]

    def _look(self, loop: TrainingLoop) -> Record:
        """Validate on part of the validation split and keep a checkpoint to resume from."""
        loop.check_losses()
        val = self._data.splits["val"]
        some = val.some(self._space.recipe.rung_images)
        try:
            score, _ = loop.score(some)
        except TrialError as error:
            if len(some) == len(val):
                raise
            hint = f"A validation on the way takes {len(some)} of {len(val)} images, as recipe.rung_images says."
            raise TrialError(f"{error} {hint}") from error
        loop.evaluation.charge_estimates()
        measured, extra, cost = self._charges.settle_look()
        self._rungs.append(Rung(self._step, score.primary, loop.f_values(), cost, loop.mean_loss()))
        Progress(
            loop=loop.state(),
            step_flop=loop.step_cost().flop,
            candidate=self._order.assignment.candidate,
            first=self._charges.first,
            step=self._step,
            cost=measured,
            extra=extra,
            rungs=self._rungs,
            trace=self._trace,
        ).save(self._progress_file)
        return replace(self._record("pruned"), val=score.primary, cost=cost)

    def _finish(self, loop: TrainingLoop) -> Record:
        """Score the final weights on the whole validation and test split, weigh inference, and keep the checkpoint."""
        status: Status = "completed" if self._step == loop.steps else "cut"
        splits = self._data.splits
        loop.settle()
        val, _ = loop.score(splits["val"])
        test = loop.score(splits["test"])[0] if "test" in splits else None
        inference = loop.evaluation.weigh(charged_passes(self._space.costs))
        goes_by_it = LATENCY in self._space.costs
        latency = latency_ms(loop.model, self._data.input_shape, self._device) if goes_by_it else None
        loop.evaluation.charge_estimates()
        with whole_file(self._directory / "examples.npz") as file:
            loop.evaluation.pictures(examples_of(self._data).some(_EXAMPLES)).write(file)
        found = {path: loop.dilation_values()[path] for path in loop.learnable.dilations}
        checkpoint.save(
            {"model": loop.model.state_dict(), "candidate": self._candidate.ended(found).to_json()},
            self._directory / "model.pt",
        )
        discard(self._progress_file)
        return replace(
            self._record(status),
            val=val.primary,
            test=test.primary if test else None,
            scores=dict((test or val).all),
            infer_mac=inference.flop / 2,
            infer_latency_ms=latency,
            infer_peak_bytes=inference.peak_bytes + held_bytes(loop.model),
        )

    def _record(self, status: Status) -> Record:
        loop = self._loop
        fields = self._fields(loop) if loop and status != "failed" else Fields(self._rf_init, {}, "")
        return self._order.record(
            status,
            rf_px=fields.rf_px,
            rf_init_px=self._rf_init,
            path_rf_px=fields.path_rf_px,
            cost=self._charges.total,
            outcome=self._candidate.ended(loop.learned_values() if loop else {}).to_json(),
            params=sum(p.numel() for p in loop.model.parameters()) if loop else None,
            steps=self._step,
            rungs=tuple(self._rungs),
            trace=tuple(point for point in self._trace if math.isfinite(point[2])),
            train_peak_bytes=loop.train_peak_bytes if loop else None,
            cause=self._said,
        )

    def _fields(self, loop: TrainingLoop) -> Fields:
        """Return the present receptive fields."""
        if self._candidate.learned or self._known_fields is None:
            self._known_fields = fields_of(loop.model, loop.learnable, self._candidate, self._data.input_shape)
        return self._known_fields

    @property
    def _progress_file(self) -> Path:
        return self._directory / "progress.pt"


def _raised_by_ray(error: SystemExit) -> bool:
    """Return whether a worker is to end, which its handler of signals says by sys.exit, as a network may too."""
    return "ray" in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
