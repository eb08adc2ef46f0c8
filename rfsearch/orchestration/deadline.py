"""End workers that are stopped or stuck in the system, which cannot end themselves as those that hang do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from rfsearch.orchestration.ray_insides import end_worker
from rfsearch.orchestration.trainable import PATIENCE

# A worker that hangs ends itself once its patience is over. This process ends one that has not, after half as much
# again and the minutes for which a worker looks for storage that is away.
_TIMES_PATIENCE, _GRACE_S = 1.5, 300.0
# A longer pause between two looks is this process's own, which was stopped or busy: workers may have been stopped too.
_LONGEST_PAUSE_S = 5.0


class Deadline(tune.Callback):
    """End the worker of a trial that has reported nothing for much longer than it was given.

    Time counts while this process runs. What it was itself stopped for, as when a machine sleeps, does not.

    Args:
        note: Called with Tune's name of a trial and the seconds it was waited for, before its worker is ended.

    Example:
        >>> tune.RunConfig(callbacks=[Deadline(searcher.note_silence)])
    """

    def __init__(self, note: Callable[[str, float], None]) -> None:
        self._note = note
        self._waited: dict[str, float] = {}
        self._looked = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Wait for a trial's first report."""
        self._waited[trial.trial_id] = 0.0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Wait for its next report."""
        self._waited[trial.trial_id] = 0.0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Wait for it no more."""
        self._waited.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Wait for it no more."""
        self._waited.pop(trial.trial_id, None)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the workers that have been waited for too long."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_PAUSE_S), now
        for trial in trials:
            waited = self._waited.get(trial.trial_id)
            if waited is None:
                continue
            self._waited[trial.trial_id] = waited = waited + passed
            if waited > _TIMES_PATIENCE * float(trial.config[PATIENCE]) + _GRACE_S:
                del self._waited[trial.trial_id]
                self._note(trial.trial_id, waited)
                end_worker(trial)
