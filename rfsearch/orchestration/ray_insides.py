"""What Ray and its Tune have no setting for, done to their insides. What is not found where it is now is left alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune.progress_reporter import TrialProgressCallback


def keep_idle_workers(tune_controller: Any, resources: Any, count: int) -> bool:
    """Let Tune keep workers while their arms wait for what their next trials will be.

    Tune keeps one, and ends the others unless a next trial waits already. None does where arms are no more than
    workers, and a new worker takes seconds to import torch.

    Args:
        tune_controller: What Tune gives to schedulers.
        resources: Of a trial.
        count: How many workers.

    Returns:
        Whether it will.
    """
    cache: Any = getattr(_inside(tune_controller), "_actor_cache", None)
    if not hasattr(cache, "increase_max"):
        return False
    cache.increase_max(resources, count)
    return True


def forget_ended(tune_controller: Any) -> None:
    """Let Tune forget trials that have ended, whose records are in the ledger.

    Tune keeps 50 to 75 kB of each, and writes all of them to its own files again and again.

    Args:
        tune_controller: What Tune gives to schedulers.
    """
    inside = _inside(tune_controller)
    trials, notes = getattr(inside, "_trials", None), getattr(inside, "_trial_metadata", None)
    if not isinstance(trials, list) or not isinstance(notes, dict):
        return
    trials[:] = [trial for trial in trials if not trial.is_finished()]
    for trial_id in notes.keys() - {trial.trial_id for trial in trials}:
        del notes[trial_id]
    for name in ("_stopped_trials", "_failed_trials"):
        getattr(inside, name, set()).intersection_update(trials)


@contextmanager
def muted() -> Iterator[None]:
    """Let Ray print nothing of its own in this context.

    What happens to machines and workers, it writes to standard output, with pages of the state of its processes.
    """
    worker: Any = sys.modules.get("ray._private.worker")
    printing = getattr(worker, "print_to_stdstream", None)
    if printing is None:
        yield
        return
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


def error_of(trial: Any) -> BaseException | None:
    """Return what Ray raised when a trial's worker died.

    Tune looks for it in the run's storage, where it is not yet: it is on this machine.

    Args:
        trial: Of Tune.
    """
    with suppress(Exception):
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error if isinstance(error, BaseException) else None
    return None


def _inside(tune_controller: Any) -> Any:
    return getattr(tune_controller, "_tune_controller", tune_controller)


class NoDisplay(TrialProgressCallback):
    """Take the place of Tune's own display, which would keep every trial and is not seen here."""

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Show nothing."""

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """Show nothing."""

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """Show nothing."""
