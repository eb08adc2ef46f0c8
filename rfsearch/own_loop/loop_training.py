"""A trial that its user's own function trains, advanced from report to report like a built-in training.

The function pushes and a training is pulled: the function runs in a thread of its own, which stands still between two
epochs while whoever runs the trial decides whether it goes on.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import torch
from torch import nn

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.errors import RfsearchError, RunDirectoryError, TrialError
from rfsearch.ledger import Cost, Record, Rung
from rfsearch.ledger.record import Status
from rfsearch.own_loop.group import Group, Stopped
from rfsearch.own_loop.metering import known_calls
from rfsearch.own_loop.scored import Scored
from rfsearch.own_loop.trial import Trial
from rfsearch.own_loop.weighing import weigh
from rfsearch.space import OwnSpace
from rfsearch.space.objectives import LATENCY
from rfsearch.training import checkpoint
from rfsearch.training.charges import Charges
from rfsearch.training.dilation_search import looked_at
from rfsearch.training.evaluation import check_weights
from rfsearch.training.latency import charged_passes, latency_ms
from rfsearch.training.memory import PeakMemory
from rfsearch.training.meter import held_bytes
from rfsearch.training.network import Fields, fields_of, settings_of
from rfsearch.training.order import Order
from rfsearch.training.progress import Point, Progress, charged_at, discard, read_parent

Train = Callable[[Trial], None]

PROGRESS = "progress.pt"


class LoopTraining:
    """Train one assignment by its user's function; see `rfsearch.training.RunningTraining`.

    Args:
        space: What is searched, with the length of a full training.
        train: The user's function, or its SPEC.
        order: What to train; its first step is an epoch with its evaluations.
        group: The processes that train it together. None: this one alone.
    """

    def __init__(self, space: OwnSpace, train: Train | str, order: Order, group: Group | None = None) -> None:
        """Call nothing yet: `advance` does."""
        self._space, self._train, self._order = space, train, order
        self._device, self._directory = order.device, order.directory
        self._candidate = Candidate.from_json(order.assignment.candidate)
        self._charges = Charges(order.lost, order.lost_s)
        self._forecast = order.step
        seed = order.assignment.train_seed
        self._trial = Trial(self._candidate, space, settings_of(space), seed, order.device, self, group)
        self._thread: LoopThread | None = None
        self._rungs: list[Rung] = []
        self._trace: list[Point] = []
        self._fields: Fields | None = None
        self._rf_init = self._done = 0
        self._unjudged = self._cut = False
        self._weighing_flop = self._pass_flop = 0.0
        self._peak: int | None = None
        self._said = ""

    @property
    def flop(self) -> float:
        """What everything that the function ran has cost since it was called."""
        return self._trial.flop + self._weighing_flop

    def epochs(self, steps: int) -> float:
        """Return how many passes over the training images so many epochs are."""
        return float(steps)

    def advance(self) -> Record:
        """Train to the next report, the end, or the limit."""
        with self._charges.running():
            try:
                return self._advance()
            except RunDirectoryError:
                raise
            except (torch.OutOfMemoryError, MemoryError) as error:
                cause = f"out of memory: {error}"
            except Exception as error:  # also of the user's code that runs at the end, such as a state dict
                cause = cause_of(error)
            except BaseException as error:
                if self._thread is None or error is not self._thread.raised:
                    raise
                cause = cause_of(error)
        discard(self._directory / PROGRESS)
        return replace(self._record("failed"), cause=" ".join(cause.split())[:2000])

    def follow(self) -> None:
        """Call the function in another process than the first of its group, which decides.

        Raises:
            BaseException: What the function raised.
        """
        LoopThread(self._call).go_on()

    def abandon(self, cause: str) -> None:
        """Let the training fail for a reason that its own thread cannot know; called from another one."""
        if self._thread is not None:
            self._thread.abandon(TrialError(cause))

    def close(self) -> None:
        """End the function, if it has not ended by itself."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    def _advance(self) -> Record:
        if self._thread is None:
            self._thread = LoopThread(self._call)
            self._charges.follow(self)
        record = self._thread.go_on()
        return self._finish() if record is None else record

    def _call(self) -> None:
        """Call the user's function, in its thread."""
        memory = PeakMemory(self._device)
        self._trial.run(function_of(self._train))
        self._peak = memory.bytes()

    def before_installing(self, model: nn.Module) -> None:
        """Accept it: the pilot has looked."""

    def take_up(self, trial: Trial) -> int:
        """Load what an earlier start of this trial, or its parent, has left."""
        self._fields = self._known_fields()
        self._rf_init = self._fields.rf_px
        assert trial.model is not None
        self._pass_flop = weigh(trial.model, self._space.input_shape).flop
        self._weighing_flop += self._pass_flop
        file = self._directory / PROGRESS
        if file.exists():
            if (left := Progress.read(file, self._device, self._candidate)) is not None:
                trial.load_state(left.loop)
                self._done = self._charges.begun = left.step
                self._charges.first = left.first
                self._charges.resume(left.cost, left.extra)
                self._rungs = [rung for rung in map(_finite, left.rungs) if rung]
                self._trace, self._unjudged = list(left.trace), bool(self._rungs)
                return self._done
            self._said = self._charges.begin_again(charged_at(file))
        if parent := self._order.assignment.heir_of:
            state, left = read_parent(parent, self._directory.parent / parent / PROGRESS, self._device, self._candidate)
            trial.load_state(state)
            self._done = self._charges.begun = self._charges.first = left.step
        self._note_learned()
        return self._done

    def goes_on(self, trial: Trial, epoch: int) -> bool:
        """Hand over what was reported, and say whether another epoch fits."""
        settled, scored = None, trial.scored
        if epoch > self._done:
            self._done = epoch
            self._note_learned()
            # A score of 0 / 0 is common after the first epoch. What has diverged fails at its end.
            if scored is not None and math.isfinite(scored.val):
                settled = self._charges.settle_look()  # lost workers went no further than this
        fits = not self._exceeds(self._epoch_cost() + self._end_cost())
        if settled and scored:
            self._rung(scored, *settled, keep=fits)
        if not fits and epoch == 0:
            raise TrialError("its first epoch would cost more than what was left of the arm's budget.")
        if self._unjudged and fits:
            self._unjudged = False
            assert self._thread is not None
            self._thread.hand_over(replace(self._record("pruned"), val=self._rungs[-1].val, cost=self._rungs[-1].cost))
        self._cut = not fits
        if fits:
            self._charges.begun = epoch + 1
        return fits

    def _rung(self, scored: Scored, measured: Cost, extra: Cost, cost: Cost, keep: bool) -> None:
        """Note a validation, and keep a checkpoint to resume from, where the training goes on."""
        trial = self._trial
        factors = {path: value for path, value in trial.learned_values().items() if path in trial.learnable.factors}
        self._rungs.append(Rung(trial.step, scored.val, factors, cost, scored.all.get("loss")))
        self._unjudged = True
        if not keep:
            return
        Progress(
            loop=trial.state(),
            step_flop=trial.spent.epoch_flop,
            candidate=self._order.assignment.candidate,
            first=self._charges.first,
            step=self._done,
            cost=measured,
            extra=extra,
            rungs=self._rungs,
            trace=self._trace,
        ).save(self._directory / PROGRESS)

    def _epoch_cost(self) -> Cost:
        """Return what the next epoch should cost, looks included."""
        spent, length = self._trial.spent, self._space.length
        flop = spent.next_epoch_flop or self._forecast.flop
        if length and self._candidate.searched and self._trial.searching:
            flop += length.look_flop * looked_at(len(self._space.dilations), len(self._candidate.searched))
        return Cost(flop, spent.epoch_s or self._forecast.device_s, 1.0)

    def _end_cost(self) -> Cost:
        """Return what comes behind the last epoch: the user's final scores, and weighing."""
        length = self._space.length
        if length is None:
            return Cost()
        spent = self._trial.spent
        forecast = self._forecast.flop / (length.train_flop + length.score_flop)
        dearer = max(1.0, forecast, spent.growth * spent.epoch_train_flop / length.train_flop)
        return Cost(dearer * (length.end_flop + self._passes_at_the_end * self._pass_flop), length.end_s)

    @property
    def _passes_at_the_end(self) -> int:
        """Return how many passes of one image weigh the network and measure its latency."""
        return 1 + charged_passes(self._space.costs)

    def _exceeds(self, more: Cost) -> bool:
        return self._order.exceeded_by(self._charges.total_of(self._charges.measured + more))

    def _finish(self) -> Record:
        """Weigh the trained network, and keep it."""
        trial = self._trial
        scored = trial.finished or trial.scored
        if trial.model is None or not trial.epochs_asked:
            raise TrialError(
                "the training function ended without a training: it calls trial.prepare, attach, epochs and finish."
            )
        if scored is None and self._rungs and self._rungs[-1].step == trial.step:  # resumed where no epoch fits
            scored = Scored(self._rungs[-1].val)
        if scored is None:
            raise TrialError("the training function ended without a score: call trial.finish(val=SCORE) at its end.")
        if not math.isfinite(scored.val):
            raise TrialError(f"the score is {scored.val}: training diverged, or nothing could be scored.")
        check_weights(trial.model)
        values = trial.learned_values()  # before plain convolutions are put in
        outcome = self._candidate.ended(values).to_json()
        found = {path: values[path] for path in trial.learnable.dilations}
        model = trial.settle()
        inference, held = weigh(model, self._space.input_shape), held_bytes(model)
        self._weighing_flop += self._passes_at_the_end * inference.flop
        goes_by_it, device = LATENCY in self._space.costs, next(model.parameters()).device
        latency = latency_ms(model, self._space.input_shape, device) if goes_by_it else None
        checkpoint.save(
            {"model": model.state_dict(), "candidate": self._candidate.ended(found).to_json()},
            self._directory / "model.pt",
        )
        discard(self._directory / PROGRESS)
        self._fields = self._known_fields()
        return replace(
            self._record("cut" if self._cut else "completed"),  # a loop may also end early by a rule of its own
            outcome=outcome,
            val=scored.val,
            test=scored.test,
            scores=scored.all,
            infer_mac=inference.flop / 2,
            infer_latency_ms=latency,
            infer_peak_bytes=inference.peak_bytes + held,
        )

    def _record(self, status: Status) -> Record:
        trial, fields = self._trial, self._fields
        if fields is None or status == "failed":
            fields = Fields(self._rf_init, {}, "")
        return self._order.record(
            status,
            rf_px=fields.rf_px,
            rf_init_px=self._rf_init,
            path_rf_px=fields.path_rf_px,
            cost=self._charges.total,
            outcome=self._candidate.ended(trial.learned_values()).to_json(),
            params=sum(p.numel() for p in trial.model.parameters()) if trial.model else None,
            steps=trial.step,
            rungs=tuple(self._rungs),
            trace=tuple(point for point in self._trace if math.isfinite(point[2])),
            train_peak_bytes=self._peak,
            cause=self._said,
        )

    def _known_fields(self) -> Fields:
        """Return the present receptive fields."""
        trial = self._trial
        assert trial.model is not None
        if self._candidate.learned or self._fields is None:
            return fields_of(trial.model, trial.learnable, self._candidate, self._space.input_shape)
        return self._fields

    def _note_learned(self) -> None:
        self._trace += [(self._trial.step, path, value) for path, value in self._trial.learned_values().items()]
        if self._candidate.learned:
            self._fields = self._known_fields()


class LoopThread:
    """Run a function in a thread that stands still whenever it has handed something over."""

    def __init__(self, function: Callable[[], None]) -> None:
        """Start nothing yet."""
        self._function = function
        self._came: SimpleQueue[Record | None] = SimpleQueue()
        self._go = threading.Semaphore(0)
        self._closing = self._abandoned = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="training")
        self.raised: BaseException | None = None

    def go_on(self) -> Record | None:
        """Let the function run to where it hands over a record, and return that; None where it has ended.

        Raises:
            BaseException: What the function raised.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        record = self._came.get()
        if record is None:
            if not self._abandoned:
                self._thread.join()
            if self.raised is not None:
                raise self.raised
        return record

    def hand_over(self, record: Record) -> None:
        """Stand still with a record, in the function's thread.

        Raises:
            Stopped: The training does not go on.
        """
        self._came.put(record)
        self._go.acquire()
        if self._closing:
            raise Stopped

    def abandon(self, error: BaseException) -> None:
        """Leave the function wherever it waits for something that will not come, as if it had raised an error."""
        self.raised, self._abandoned = error, True
        self._came.put(None)

    def close(self) -> None:
        """End the function where it stands still."""
        self._closing = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            with known_calls():
                self._function()
        except Stopped:
            pass
        except BaseException as error:
            self.raised = self.raised or error
        finally:
            self._came.put(None)


def _finite(rung: Rung) -> Rung | None:
    """Return a rung of a progress file as a ledger takes it: earlier versions kept scores that are not numbers."""
    if not math.isfinite(rung.val):
        return None
    return replace(rung, loss=None) if rung.loss is not None and not math.isfinite(rung.loss) else rung


def function_of(train: Train | str) -> Train:
    """Return a training function, found by its SPEC where that is what is given."""
    return plugins.named(train, "training function") if isinstance(train, str) else train


def cause_of(error: BaseException) -> str:
    """Return in a sentence what a training function has raised."""
    if isinstance(error, RfsearchError):
        return str(error)
    return f"{type(error).__name__}: {error}{place_of_error(error)}"


def place_of_error(error: BaseException) -> str:
    """Return the place in the user's code that an exception comes from, as the end of a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/rfsearch/" not in frame.filename]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})" if own else ""
