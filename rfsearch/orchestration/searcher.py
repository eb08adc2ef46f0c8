"""Let Ray Tune hand out the trials of a contest, report their rungs, and stop what the contest stops."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util import get_node_ip_address

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Assignment, Cost, Record
from rfsearch.numbers import duration
from rfsearch.orchestration.disk import full_disk_error, with_way_on
from rfsearch.orchestration.exit_status import Ends
from rfsearch.orchestration.nodes import unseen_error
from rfsearch.orchestration.ray_insides import (
    error_of,
    forget_ended,
    keep_idle_workers,
    process_of,
    session_folder,
)
from rfsearch.orchestration.remote_files import read_at
from rfsearch.orchestration.trainable import BLIND, CHECKPOINTS, FAULT, FIRST_STEP, LOSSES, PATIENCE, Losses
from rfsearch.orchestration.watchdog import address_of, cause_of_death, left_with_its_machine, patience
from rfsearch.planning.contest import Contest

# A trial whose workers die that often fails. Those whose machine has left, or that died before they began with it, are
# not its fault; but one that takes its machines with it must end some time too.
_MOST_DEATHS, _MOST_LOSSES = 2, 6


@dataclass
class _Attempt:
    """Know what has become of a trial so far.

    Attributes:
        assignment: It.
        last: Its record at the last rung.
        lost: What has been lost since that.
        since: When its worker began with it, or reported its last rung; None while none has it.
        farthest: The most rungs that it has reached.
        deaths: How often its worker has died, since then, of something that may be its own doing.
        losses: How often in all since then.
        cause: Of the last death.
    """

    assignment: Assignment
    last: Record | None = None
    lost: Losses = field(default_factory=Losses)
    since: float | None = None
    farthest: int = 0
    deaths: int = 0
    losses: int = 0
    cause: str = "it is not known why"

    def miss(self) -> None:
        """Count what a worker that has died had done since the last rung."""
        self.losses += 1
        if self.since is not None:
            self.lost = Losses(self.lost.tries + 1, self.lost.seconds + time.monotonic() - self.since)
        self.since = None


def _rungs(record: Record) -> list[tuple[int, Cost]]:
    return [(rung.step, rung.cost) for rung in record.rungs]


class ContestSearcher(Searcher):
    """Hand out what the contest hands out, and hand back what becomes of it.

    A trial whose worker dies is handed out again, as another trial of Tune, which goes on from its last rung.

    Args:
        contest: The contest.
        room: Returns how many trials may run at the same time.
        watch: Called with each record.
        run_dir: The run's directory.
        currency: Of the limits of trials, a field of `Cost`.
        timeout_s: How long a trial may go without a validation. None: a multiple of its forecast.

    Attributes:
        ends: Of the workers' processes.
        fault: What our own code raised, which ends the run, or None.

    Example:
        >>> searcher = ContestSearcher(contest, lambda: 2, watch=print, run_dir=run_dir, currency="flop")
        >>> searcher.suggest("tune-1")
    """

    def __init__(
        self,
        contest: Contest,
        room: Callable[[], int],
        watch: Callable[[Record], None],
        run_dir: Path,
        currency: str,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._contest, self.room, self._watch, self._run_dir = contest, room, watch, run_dir
        self._currency, self._timeout_s = currency, timeout_s
        self._running: dict[str, _Attempt] = {}
        self._again: list[_Attempt] = []
        self._silent: dict[str, float] = {}
        self.ends = Ends()
        self.fault: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration, None if there is none for now, or Tune's sign that all is done."""
        # Tune asks ahead; a candidate chosen before a running trial has reported would not know its score.
        if len(self._running) >= self.room():
            return None
        try:
            if self.fault or self._contest.done:
                return Searcher.FINISHED
            attempt = self._again.pop(0) if self._again else self._next()
            first_step = self._contest.first_step(attempt.assignment) if attempt else Cost()
        except Exception as error:
            self.fault = error
            return Searcher.FINISHED
        if attempt is None:
            return Searcher.FINISHED if self._contest.done else None
        self._running[trial_id] = attempt
        return {
            **attempt.assignment.to_json(),
            FIRST_STEP: asdict(first_step),
            PATIENCE: self._patience(attempt.assignment),
            LOSSES: asdict(attempt.lost),
        }

    def _next(self) -> _Attempt | None:
        assignment = self._contest.next()
        return _Attempt(assignment) if assignment else None

    def judge(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Decide whether a trial goes on after this rung."""
        if self.fault:
            return False  # once the run is resumed, it goes on from its checkpoint of this rung
        record, attempt = Record.from_json(json.loads(result["record"])), self._running[trial_id]
        # Else one that is reported again. With a damaged checkpoint, the trial has begun again, at other costs.
        if attempt.last is None or _rungs(record) != _rungs(attempt.last):
            attempt.last, attempt.lost = record, Losses()
        if len(record.rungs) > attempt.farthest:  # else one that begins again and again would never fail
            attempt.farthest, attempt.deaths, attempt.losses = len(record.rungs), 0, 0
        self.began(trial_id)
        self._watch(record)
        try:
            return self._contest.keep(record)
        except Exception as error:
            self.fault = error
            return False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand in the record of a trial that ended, or let one whose worker has died be tried again."""
        attempt = self._running.pop(trial_id, None)
        self.ends.release(trial_id, patience_s=0.0)
        if attempt is None:
            return
        record = Record.from_json(json.loads(result["record"])) if result and "record" in result and not error else None
        if record is None and self.fault is None:
            self.fault = self._fault_of(result or {})
        if record is None and self.fault is None:
            self.fault = full_disk_error(self._run_dir, session_folder())
        if self.fault and (record is None or record.status == "pruned"):
            return  # after a fault of our own, resume continues what has not ended by itself
        if record is None:
            attempt.miss()
            if attempt.deaths < _MOST_DEATHS and attempt.losses < _MOST_LOSSES:
                self._again.append(attempt)
                return
            record = self._failed(attempt)
        elif record.status == "pruned":  # at a rung reported again: what was lost after it is not lost twice
            flop, epochs = (attempt.lost.tries * part for part in self._stretch(attempt.assignment))
            record = replace(record, cost=record.cost + Cost(flop, 0.0, epochs))
        try:
            self._watch(self._contest.finish(record))
        except Exception as fault:
            self.fault = self.fault or fault

    def _fault_of(self, result: dict[str, Any]) -> RunDirectoryError | None:
        """Return the error of a trial that reported no record but what keeps its machine from training."""
        if BLIND in result:
            return unseen_error(result[BLIND], self._run_dir)
        return RunDirectoryError(with_way_on(result[FAULT], self._run_dir)) if FAULT in result else None

    def _failed(self, attempt: _Attempt) -> Record:
        """Return the record of a trial whose worker died on every try.

        It is charged what it had cost at its last rung, at most one stretch to the next rung for each try since, and
        the time that passed until it was missed; no more than its limit.
        """
        assignment = attempt.assignment
        last = attempt.last or Record(
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
        cause = f"its worker process died, and died again when retried: {attempt.cause}"
        flop, epochs = (attempt.lost.tries * part for part in self._stretch(assignment))
        cost = last.cost + Cost(flop, attempt.lost.seconds, epochs)
        capped = {self._currency: min(getattr(cost, self._currency), max(assignment.limit, 0.0))}
        return replace(last, status="failed", cause=cause, val=None, cost=replace(cost, **capped))

    def _patience(self, assignment: Assignment) -> float:
        return self._timeout_s or patience(self._contest.stretch(assignment).device_s)

    def note_death(self, trial_id: str, error: BaseException | None) -> None:
        """Note why the worker of a trial has died.

        Args:
            trial_id: Tune's name of the trial.
            error: What Ray raised.
        """
        if (attempt := self._running.get(trial_id)) is None:
            return
        if (waited := self._silent.pop(trial_id, None)) is not None:
            after = f"ended after {duration(waited)} without a validation"
            attempt.cause = f"it was stopped, or stuck in a call of the system, and was {after}"
        else:
            read = partial(read_at, "" if left_with_its_machine(error) else address_of(error))
            folder = self._run_dir.resolve() / CHECKPOINTS / attempt.assignment.trial
            end = self.ends.release(trial_id)
            attempt.cause = cause_of_death(error, folder, self._patience(attempt.assignment), read, end)
        attempt.deaths += attempt.since is not None and not left_with_its_machine(error)

    def note_silence(self, trial_id: str, waited_s: float) -> None:
        """Note that a trial's worker is ended because nothing came of it, not even its own end.

        Args:
            trial_id: Tune's name of the trial.
            waited_s: How long it was waited for.
        """
        self._silent[trial_id] = waited_s

    def _stretch(self, assignment: Assignment) -> tuple[float, float]:
        """Return FLOP and epochs of a trial between two rungs, or from the last one to its end, at most."""
        stretch = self._contest.stretch(assignment)
        return stretch.flop, stretch.epochs

    def began(self, trial_id: str) -> None:
        """Note that a worker begins with a trial, or goes on with it."""
        if attempt := self._running.get(trial_id):
            attempt.since = time.monotonic()

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Accept whatever Tune sets: the contest decides."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: resuming replays the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing. See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Pulse(tune.Callback):
    """Call a function in every round of Tune's loop.

    Args:
        check: The function.

    Example:
        >>> tune.RunConfig(callbacks=[Pulse(check)])
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Call the function."""
        self._check()


class Starts(tune.Callback):
    """Tell the searcher when workers begin.

    Args:
        searcher: The searcher.

    Example:
        >>> tune.RunConfig(callbacks=[Starts(searcher)])
    """

    def __init__(self, searcher: ContestSearcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a worker begins with a trial, and which process it is, where it is one of this machine."""
        self._searcher.began(trial.trial_id)
        where = process_of(trial)
        if where is not None and where[0] == get_node_ip_address():
            self._searcher.ends.hold(trial.trial_id, where[1])


class RungScheduler(FIFOScheduler):
    """Stop a training when the contest says so.

    Args:
        searcher: Asks the contest.

    Example:
        >>> tune.TuneConfig(search_alg=searcher, scheduler=RungScheduler(searcher))
    """

    def __init__(self, searcher: ContestSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher, self._kept = searcher, 0

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Keep workers for what comes after this trial, and nothing of the trials before it."""
        super().on_trial_add(tune_controller, trial)
        more = self._searcher.room() - self._kept
        if more > 0 and keep_idle_workers(tune_controller, trial.placement_group_factory, more):
            self._kept += more
        forget_ended(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether a trial continues or stops after its rung."""
        go_on = self._searcher.judge(trial.trial_id, result)
        return TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note why a trial's worker has died, before it is tried again or fails."""
        self._searcher.note_death(trial.trial_id, error_of(trial))

    def __getstate__(self) -> dict[str, Any]:
        return {}
