"""The one adapter between a contest and Ray Tune.

A trial's training is a Tune trainable, advanced from look to look; a searcher hands out what the contest hands out; a
scheduler asks the contest whether to go on. Tune decides nothing and remembers nothing that matters: the ledger does.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rfsearch import account

# Read by Ray when it is imported: no second progress display, no loggers, no statistics sent, no signal handling.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    RAY_USAGE_STATS_ENABLED="0",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)
# Workers inherit it: threads that spin while they wait take the cores from everyone else on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.update(account.stand_ins())

import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from rfsearch import interrupt
from rfsearch.data import ImageSet
from rfsearch.errors import RequestError, RunDirectoryError
from rfsearch.ledger import Assignment, Cost, Record
from rfsearch.ledger.files import whole_file
from rfsearch.ledger.run_directory import SCRATCH
from rfsearch.orchestration import session
from rfsearch.planning.contest import Contest
from rfsearch.space import Space
from rfsearch.trial import Training

CHECKPOINTS = "checkpoints"
# Whatever a training raises is caught in the worker and comes back as a record; Tune only ever retries lost workers.
_RETRIES_OF_LOST_WORKERS = 1
_LOST = "lost"  # beside the fields of an assignment, in what a worker that tries again is told
_FIRST_STEP = "first_step"  # likewise: what its first step is forecast to cost
_PROBE_BYTES = 2**20  # where that much cannot be written, the disk is full


@dataclass(frozen=True)
class Resources:
    """What one trial gets. gpus may be a fraction: trials then share a GPU. None: one where there are any."""

    cpus: float = 1
    gpus: float | None = None


class Engine:
    """A Ray session: started here, or joined at an address. Use as a context, which handles SIGINT and SIGTERM."""

    def __init__(self, address: str | None, resources: Resources) -> None:
        self._address, self._asked = address, resources
        self._context = ExitStack()

    def __enter__(self) -> Engine:
        logging.getLogger("ray").setLevel(logging.ERROR)
        # What Tune reports there with a traceback ends in a trial's cause or in an exception of ours.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        with ExitStack() as stack:
            stack.enter_context(interrupt.kept())
            stack.callback(ray.shutdown)
            session.join(self._address) if self._address else session.start()
            interrupt.install()  # Ray has put a handler of its own for SIGTERM in its place
            self._context = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    @property
    def resources(self) -> tuple[float, float]:
        """CPUs and GPUs of one trial, checked against what there is."""
        have, cpus = ray.cluster_resources(), self._asked.cpus
        gpus = self._asked.gpus if self._asked.gpus is not None else float(have.get("GPU", 0) > 0)
        for kind, want in (("CPU", cpus), ("GPU", gpus)):
            if want > have.get(kind, 0):
                raise RequestError(
                    f"a trial asks for {want:g} {kind}s, there are {have.get(kind, 0):g}. "
                    f"Ask for at most that with --{kind.lower()}s-per-trial."
                )
        return cpus, gpus

    @property
    def workers(self) -> int:
        """How many trials run at the same time."""
        have, (cpus, gpus) = ray.cluster_resources(), self.resources
        slots = [int(have["CPU"] / cpus)] + ([int(have["GPU"] / gpus + 1e-9)] if gpus else [])
        return max(1, min(slots))

    def run(
        self,
        contest: Contest,
        space: Space,
        data: ImageSet,
        run_dir: Path,
        currency: str,
        watch: Callable[[Record], None],
        check: Callable[[], None],
    ) -> None:
        """Train until the contest is done. watch: called with each record, provisional ones (`pruned`) included.

        check: called many times a second; what it raises ends the run.
        """
        cpus, gpus = self.resources
        trainable = tune.with_parameters(
            _Trial, space=space, data=data, run_dir=str(run_dir.resolve()), currency=currency, resources=(cpus, gpus)
        )
        searcher = _Searcher(contest, self.workers, watch, run_dir)
        # Tune starts workers one after the other unless it may have as many trials that wait for one.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.workers)
        with _notes_of_tune(run_dir.resolve(), shared=self._address is not None) as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=_Judge(searcher),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: str(trial.config.get("trial", trial.trial_id)),
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[_Pulse(check), _Losses(searcher)],
                    failure_config=tune.FailureConfig(max_failures=_RETRIES_OF_LOST_WORKERS),
                ),
            )
            try:
                tuner.fit()
            except Exception as error:
                # What our own code raised inside Tune's loop is the real cause; Tune wraps it.
                if searcher.fault is None and isinstance(error, OSError):
                    what = f"{error.filename or scratch}: cannot be written: {error.strerror or error}."
                    raise RunDirectoryError(_with_way_on(what, run_dir)) from error
                raise searcher.fault or error from error
        if searcher.fault:
            raise searcher.fault


@contextmanager
def _notes_of_tune(run_dir: Path, shared: bool) -> Iterator[str]:
    """A folder for what Tune writes down for itself, which nobody reads: gone afterwards, and away from the run, whose
    disk may be full, unless other machines must see it too."""
    if not shared:
        with tempfile.TemporaryDirectory(prefix="rfsearch-", ignore_cleanup_errors=True) as folder:
            yield folder
        return
    own = run_dir / SCRATCH
    shutil.rmtree(own, ignore_errors=True)
    try:
        yield str(own)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _with_way_on(what: str, run_dir: Path) -> str:
    """A message about what stopped a run, with what to do about it."""
    how = f"rfsearch resume {shlex.quote(str(run_dir))}"
    return f"{what} The run has stopped; nothing that is in its ledger is lost. Make room, then go on with: {how}"


def _full_disk(run_dir: Path) -> RunDirectoryError | None:
    """The error of a run directory that has no room left, or None where it has."""
    probe = run_dir / ".probe"
    try:
        with whole_file(probe) as file:
            file.write(bytes(_PROBE_BYTES))
        probe.unlink()
    except RunDirectoryError as error:
        return RunDirectoryError(_with_way_on(str(error), run_dir))
    return None


@dataclass(frozen=True)
class _Lost:
    """How often a trial's worker has died since its last look, and for how long those had held their devices."""

    tries: int = 0
    seconds: float = 0.0


class _Trial(tune.Trainable):
    """A training on a worker. The worker is kept for the next trial, with its imports and its data."""

    def setup(
        self,
        config: dict[str, Any],
        space: Space | None = None,
        data: ImageSet | None = None,
        run_dir: str = "",
        currency: str = "",
        resources: tuple[float, float] = (1, 0),
    ) -> None:
        assert space is not None
        assert data is not None
        cpus, gpus = resources
        torch.set_num_threads(max(1, int(cpus)))
        self._given = (space, data, currency)
        self._device = torch.device("cuda" if gpus else "cpu")
        self._run_dir = Path(run_dir)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        told = dict(new_config)
        lost, step = _Lost(**told.pop(_LOST, {})), Cost(**told.pop(_FIRST_STEP, {}))
        assignment = Assignment(**told)
        space, data, currency = self._given
        directory = self._run_dir / CHECKPOINTS / assignment.trial
        self._training = Training(
            space, data, assignment, currency, self._device, directory, lost.tries, lost.seconds, step
        )
        return True

    def step(self) -> dict[str, Any]:
        try:
            record = self._training.advance()
        except RunDirectoryError as error:
            return {"fault": _with_way_on(str(error), self._run_dir), "done": True}
        return {"record": json.dumps(record.to_json()), "done": record.status != "pruned"}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a training keeps its own checkpoints in the run directory."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see `save_checkpoint`."""


class _Searcher(Searcher):
    """Hands out what the contest hands out, and hands back what comes of it."""

    def __init__(self, contest: Contest, workers: int, watch: Callable[[Record], None], run_dir: Path) -> None:
        super().__init__(metric=None, mode=None)
        self._contest, self._workers, self._watch, self._run_dir = contest, workers, watch, run_dir
        self._running: dict[str, Assignment] = {}
        self._last: dict[str, Record] = {}
        self._since: dict[str, float] = {}
        self._lost_since_look: dict[str, _Lost] = {}
        self.fault: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        # Tune asks ahead; a candidate chosen before a running trial has reported would not know its score.
        if len(self._running) >= self._workers:
            return None
        try:
            if self.fault or self._contest.done:
                return Searcher.FINISHED
            assignment = self._contest.next()
            first_step = self._contest.first_step(assignment) if assignment else Cost()
        except Exception as error:
            self.fault = error
            return Searcher.FINISHED
        if assignment is None:
            return Searcher.FINISHED if self._contest.done else None
        self._running[trial_id] = assignment
        return {**assignment.to_json(), _FIRST_STEP: asdict(first_step)}

    def judge(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial goes on after this look."""
        if self.fault:
            return False  # its checkpoint of this look is what it goes on from once the run is resumed
        record = Record.from_json(json.loads(result["record"]))
        known = self._last.get(trial_id)
        if known is None or len(record.rungs) > len(known.rungs):  # else a look that was lost sight of, shown again
            self._last[trial_id] = record
            self._lost_since_look.pop(trial_id, None)
        self.began(trial_id)
        self._watch(record)
        try:
            return self._contest.keep(record)
        except Exception as error:
            self.fault = error
            return False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        assignment = self._running.pop(trial_id, None)
        if assignment is None:
            return
        record = Record.from_json(json.loads(result["record"])) if result and "record" in result and not error else None
        if record is None and self.fault is None:
            self.fault = RunDirectoryError(result["fault"]) if result and "fault" in result else None
        if record is None and self.fault is None:
            self.fault = _full_disk(self._run_dir)  # on one a worker dies too, of what Ray writes itself
        if self.fault and (record is None or record.status == "pruned"):
            return  # after a fault of our own resume takes up again what has not ended by itself
        if record is None:
            record = self._lost(trial_id, assignment)
        elif record.status == "pruned":  # at a look shown again: what was lost behind it is not gone again
            tries = self._lost_since_look.get(trial_id, _Lost()).tries
            flop, epochs = (tries * part for part in self._stretch(assignment))
            record = replace(record, cost=record.cost + Cost(flop, 0.0, epochs))
        try:
            self._watch(self._contest.finish(record))
        except Exception as fault:
            self.fault = self.fault or fault

    def _lost(self, trial_id: str, assignment: Assignment) -> Record:
        """The record of a trial whose worker died on every try.

        It is charged what it had cost at its last look, and for each try since one stretch to the next look at most,
        and the time that passed until it was missed.
        """
        last = self._last.get(trial_id) or Record(
            trial=assignment.trial,
            strategy=assignment.strategy,
            seed=assignment.seed,
            status="failed",
            candidate=assignment.candidate,
            rf_px=0,
            rf_init_px=0,
            cost=Cost(),
            train_seed=assignment.train_seed,
            heir_of=assignment.heir_of,
        )
        cause = "its worker process died, and died again when retried: most likely out of memory"
        lost = self.miss(trial_id)
        flop, epochs = (lost.tries * part for part in self._stretch(assignment))
        cost = last.cost + Cost(flop, lost.seconds, epochs)
        return replace(last, status="failed", cause=cause, val=None, cost=cost)

    def _stretch(self, assignment: Assignment) -> tuple[float, float]:
        """FLOP and epochs of a trial on the way from one look to the next, or to its end, at most."""
        stretch = self._contest.stretch(assignment)
        return stretch.flop, stretch.epochs

    def began(self, trial_id: str) -> None:
        """Note that a worker begins with a trial, or goes on with it."""
        self._since[trial_id] = time.monotonic()

    def miss(self, trial_id: str) -> _Lost:
        """Note that the worker of a trial has died; what has been lost since its last look."""
        lost = self._lost_since_look.get(trial_id, _Lost())
        now = time.monotonic()
        held = now - self._since.get(trial_id, now)
        self._lost_since_look[trial_id] = _Lost(lost.tries + 1, lost.seconds + held)
        return self._lost_since_look[trial_id]

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: resuming replays the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Pulse(tune.Callback):
    """Calls a function in every round of Tune's loop."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._check()


class _Losses(tune.Callback):
    """Tells a worker that tries again how often it was tried before: all that is charged."""

    def __init__(self, searcher: _Searcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.began(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.set_config({**trial.config, _LOST: asdict(self._searcher.miss(trial.trial_id))})


class _Judge(FIFOScheduler):
    """Stops a training when the contest says so."""

    def __init__(self, searcher: _Searcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        go_on = self._searcher.judge(trial.trial_id, result)
        return TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP

    def __getstate__(self) -> dict[str, Any]:
        return {}
