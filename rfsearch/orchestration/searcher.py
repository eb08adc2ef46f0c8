"""Let Ray Tune hand out the trials of a contest, report their rungs, and stop what the contest stops."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import Assignment, Cost, Record
from rfsearch.orchestration.disk import full_disk_error
from rfsearch.orchestration.trainable import CHECKPOINTS, FIRST_STEP, LOSSES, PATIENCE, Losses
from rfsearch.orchestration.tune_insides import forget_ended, keep_idle_workers
from rfsearch.orchestration.watchdog import cause_of_death, memory_kills, patience
from rfsearch.planning.contest import Contest


class ContestSearcher(Searcher):
    """Hand out what the contest hands out, and hand back what becomes of it.

    Args:
        contest: The contest.
        workers: How many trials run at the same time.
        watch: Called with each record.
        run_dir: The run's directory.
        currency: Of the limits of trials, a field of `Cost`.
        timeout_s: How long a trial may go without a validation. None: a multiple of its forecast.

    Attributes:
        fault: What our own code raised, which ends the run, or None.

    Example:
        >>> searcher = ContestSearcher(contest, workers=2, watch=print, run_dir=run_dir, currency="flop")
        >>> searcher.suggest("tune-1")
    """

    def __init__(
        self,
        contest: Contest,
        workers: int,
        watch: Callable[[Record], None],
        run_dir: Path,
        currency: str,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._contest, self._workers, self._watch, self._run_dir = contest, workers, watch, run_dir
        self._currency, self._timeout_s = currency, timeout_s
        self._running: dict[str, Assignment] = {}
        self._last: dict[str, Record] = {}
        self._since: dict[str, float] = {}
        self._lost_since_rung: dict[str, Losses] = {}
        self._deaths: dict[str, str] = {}
        self._memory_kills = memory_kills()
        self.fault: Exception | None = None

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration, None if there is none for now, or Tune's sign that all is done."""
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
        return {**assignment.to_json(), FIRST_STEP: asdict(first_step), PATIENCE: self._patience(assignment)}

    def judge(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Decide whether a trial goes on after this rung."""
        if self.fault:
            return False  # once the run is resumed, it goes on from its checkpoint of this rung
        record = Record.from_json(json.loads(result["record"]))
        known = self._last.get(trial_id)
        if known is None or len(record.rungs) > len(known.rungs):  # else a rung that was lost and is reported again
            self._last[trial_id] = record
            self._lost_since_rung.pop(trial_id, None)
        self.began(trial_id)
        self._watch(record)
        try:
            return self._contest.keep(record)
        except Exception as error:
            self.fault = error
            return False

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand in the record of a trial that ended, or of one whose worker died on every try."""
        assignment = self._running.pop(trial_id, None)
        if assignment is None:
            return
        record = Record.from_json(json.loads(result["record"])) if result and "record" in result and not error else None
        if record is None and self.fault is None:
            self.fault = RunDirectoryError(result["fault"]) if result and "fault" in result else None
        if record is None and self.fault is None:
            self.fault = full_disk_error(self._run_dir)  # a worker dies of it too, of what Ray itself writes
        if self.fault and (record is None or record.status == "pruned"):
            return  # after a fault of our own, resume continues what has not ended by itself
        if record is None:
            record = self._lost(trial_id, assignment)
        elif record.status == "pruned":  # at a rung reported again: what was lost after it is not lost twice
            tries = self._lost_since_rung.get(trial_id, Losses()).tries
            flop, epochs = (tries * part for part in self._stretch(assignment))
            record = replace(record, cost=record.cost + Cost(flop, 0.0, epochs))
        try:
            self._watch(self._contest.finish(record))
        except Exception as fault:
            self.fault = self.fault or fault

    def _lost(self, trial_id: str, assignment: Assignment) -> Record:
        """Return the record of a trial whose worker died on every try.

        It is charged what it had cost at its last rung, at most one stretch to the next rung for each try since, and
        the time that passed until it was missed; no more than its limit.
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
        cause = (
            f"its worker process died, and died again when retried: {self._deaths.get(trial_id, 'it is not known why')}"
        )
        lost = self.miss(trial_id)
        flop, epochs = (lost.tries * part for part in self._stretch(assignment))
        cost = last.cost + Cost(flop, lost.seconds, epochs)
        capped = {self._currency: min(getattr(cost, self._currency), max(assignment.limit, 0.0))}
        return replace(last, status="failed", cause=cause, val=None, cost=replace(cost, **capped))

    def _patience(self, assignment: Assignment) -> float:
        return self._timeout_s or patience(self._contest.stretch(assignment).device_s)

    def note_death(self, trial_id: str, error: BaseException | None) -> None:
        """Note why the worker of a trial has died, before another one begins with the trial.

        Args:
            trial_id: Tune's name of the trial.
            error: What Ray raised.
        """
        if (assignment := self._running.get(trial_id)) is None:
            return
        kills, folder = memory_kills(), self._run_dir / CHECKPOINTS / assignment.trial
        cause = cause_of_death(error, folder, self._patience(assignment), kills > self._memory_kills)
        self._deaths[trial_id], self._memory_kills = cause, kills

    def _stretch(self, assignment: Assignment) -> tuple[float, float]:
        """Return FLOP and epochs of a trial between two rungs, or from the last one to its end, at most."""
        stretch = self._contest.stretch(assignment)
        return stretch.flop, stretch.epochs

    def began(self, trial_id: str) -> None:
        """Note that a worker begins with a trial, or goes on with it."""
        self._since[trial_id] = time.monotonic()

    def miss(self, trial_id: str) -> Losses:
        """Note that the worker of a trial has died, and return what has been lost since its last rung."""
        lost = self._lost_since_rung.get(trial_id, Losses())
        now = time.monotonic()
        held = now - self._since.get(trial_id, now)
        self._lost_since_rung[trial_id] = Losses(lost.tries + 1, lost.seconds + held)
        return self._lost_since_rung[trial_id]

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


class LossAccounting(tune.Callback):
    """Let a worker that tries again know how often it was tried before: all tries are charged.

    Args:
        searcher: Counts the losses.

    Example:
        >>> tune.RunConfig(callbacks=[LossAccounting(searcher)])
    """

    def __init__(self, searcher: ContestSearcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a worker begins with a trial."""
        self._searcher.began(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a loss, and pass all losses on to the worker that tries again."""
        self._searcher.note_death(trial.trial_id, trial.get_pickled_error())
        trial.set_config({**trial.config, LOSSES: asdict(self._searcher.miss(trial.trial_id))})


class RungScheduler(FIFOScheduler):
    """Stop a training when the contest says so.

    Args:
        searcher: Asks the contest.
        workers: How many trials run at the same time.

    Example:
        >>> tune.TuneConfig(search_alg=searcher, scheduler=RungScheduler(searcher, workers=2))
    """

    def __init__(self, searcher: ContestSearcher, workers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._workers, self._kept = workers, False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Keep workers for what comes after this trial, and nothing of the trials before it."""
        super().on_trial_add(tune_controller, trial)
        self._kept = self._kept or keep_idle_workers(tune_controller, trial.placement_group_factory, self._workers)
        forget_ended(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether a trial continues or stops after its rung."""
        go_on = self._searcher.judge(trial.trial_id, result)
        return TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Note why a trial's last worker has died, before its record is made."""
        self._searcher.note_death(trial.trial_id, trial.get_pickled_error())

    def __getstate__(self) -> dict[str, Any]:
        return {}
