"""What Ray and its Tune have no setting for, done to their insides. What is not found where it is now is left alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray._private import ray_constants
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
def on_loopback() -> Iterator[None]:
    """Let a session that starts in this context listen to this machine alone.

    Ray does so where it knows of no clusters, as on macOS. Given a `_node_ip_address` of 127.0.0.1, it takes the one by
    which other machines reach this one.
    """
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


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


def session_folder() -> Path | None:
    """Return the folder in which Ray keeps logs and sockets of this machine; None where it is not known."""
    node = getattr(sys.modules.get("ray._private.worker"), "_global_node", None)
    with suppress(Exception):
        return Path(node.get_session_dir_path())  # type: ignore[union-attr]
    return None


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


def process_of(trial: Any) -> tuple[str, int] | None:
    """Return the address of the machine of a trial's worker, and the number of its process; None if not known.

    Args:
        trial: Of Tune.
    """
    with suppress(Exception):
        return _process_of(trial.temporary_state.ray_actor._actor_id.hex())
    return None


@lru_cache(maxsize=1024)
def _process_of(actor: str) -> tuple[str, int]:
    """Ask Ray's tables, once for each worker: it trains one trial after the other."""
    tables = getattr(sys.modules.get("ray._private.state"), "state", None)
    about = tables.actor_table(actor)  # type: ignore[union-attr]
    return str(about["Address"]["IPAddress"]), int(about["Pid"])


def end_worker(trial: Any) -> None:
    """End the process of a trial's worker, one that is stopped too; Tune then learns that it has died.

    Ray asks the process to leave, and kills it 5 s later.

    Args:
        trial: Of Tune.
    """
    actor = getattr(trial.temporary_state, "ray_actor", None)
    if actor is not None:
        ray.kill(actor)


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
