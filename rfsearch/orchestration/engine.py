"""Adapt a contest to Ray Tune.

A trial's training is a Tune trainable, advanced from rung to rung; a searcher hands out what the contest hands out; a
scheduler asks the contest whether to go on. Tune decides nothing and remembers nothing that matters: the ledger does.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import tune

from rfsearch import interrupt
from rfsearch.errors import RequestError, RunDirectoryError
from rfsearch.ledger import Record
from rfsearch.ledger.journal import resume_command
from rfsearch.ledger.manifest import MANIFEST_FILE, read_manifest
from rfsearch.ledger.run_directory import SCRATCH
from rfsearch.numbers import byte_size
from rfsearch.orchestration import session
from rfsearch.orchestration.callbacks import Switched
from rfsearch.orchestration.deadline import Deadline
from rfsearch.orchestration.disk import full_disk_error, with_way_on
from rfsearch.orchestration.nodes import Roster, check_seen, machines, wait_for_first
from rfsearch.orchestration.ray_insides import NoDisplay, muted, session_folder
from rfsearch.orchestration.searcher import ContestSearcher, Pulse, RungScheduler, Starts
from rfsearch.orchestration.trainable import TrialTraining
from rfsearch.planning.contest import Contest
from rfsearch.sources import pack, refusal
from rfsearch.storage import storage_of
from rfsearch.training import Trainings

# Tune starts workers one after the other unless so many trials may be pending. The searcher says how many run at once.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class Resources:
    """State what one trial gets.

    Attributes:
        cpus: Number of CPUs.
        gpus: Number of GPUs. With a fraction, trials share a GPU. None: one for each process if there are any.
        timeout_s: How long it may go without a validation before it is taken for one that hangs. None: a multiple of
            its forecast.
        processes: How many processes train it.
        memory: Memory that is set aside for it, bytes. 0: as many trials run as have room by the other two.

    Example:
        >>> Resources(cpus=2, gpus=0.5)
        Resources(cpus=2, gpus=0.5, timeout_s=None, processes=1, memory=0)
    """

    cpus: float = 1
    gpus: float | None = None
    timeout_s: float | None = None
    processes: int = 1
    memory: float = 0


class Engine:
    """Run contests on a Ray session, started here or joined at an address. A context, which handles SIGINT and SIGTERM.

    Args:
        address: HOST:PORT of a cluster's head, "auto", or None to start a session on this machine.
        resources: What one trial gets.
        callbacks: Of Ray Tune's, called beside what the engine needs itself, by name.
        warn: Called with a sentence about a callback that raises, which is called no more.

    Example:
        >>> with Engine(None, Resources()) as engine:
        ...     engine.run(contest, trainings, run_dir, "flop", watch, check)
    """

    def __init__(
        self,
        address: str | None,
        resources: Resources,
        callbacks: Mapping[str, tune.Callback] | None = None,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        self._address, self._asked, self._warn = address, resources, warn
        self._guard = session.Guard()
        self._callbacks = [Switched(name, one, warn) for name, one in (callbacks or {}).items()]
        self._context = ExitStack()

    def __enter__(self) -> Engine:
        logging.getLogger("ray").setLevel(logging.ERROR)
        # What Tune logs with a traceback ends up in a trial's cause or in one of our exceptions.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        with ExitStack() as stack:
            stack.enter_context(interrupt.handlers_restored())
            stack.enter_context(muted())
            temporary = "" if self._address else stack.enter_context(session.folder())
            stack.callback(self._guard.end)
            stack.callback(ray.shutdown)
            session.join(self._address) if self._address else session.start(temporary)
            interrupt.install()  # Ray has replaced the handler of SIGTERM
            self._guard.begin()
            if self._address:
                wait_for_first(self._asked.cpus, self._asked.gpus or 0.0, self._warn)
            self._context = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    @contextmanager
    def _guarded(self, run_dir: Path) -> Iterator[None]:
        """End a run, and say how it goes on, where a process of Ray's own session ends in this context."""
        how = f"Nothing is lost. Go on with: {resume_command(run_dir)}"
        self._guard.say = lambda name: self._warn(f"Ray cannot go on: its process {name} has ended. {how}")
        try:
            yield
        finally:
            self._guard.say = None

    @property
    def resources(self) -> tuple[float, float]:
        """Return CPUs and GPUs of one trial, checked against what is available.

        Raises:
            RequestError: A trial asks for more than there is.
        """
        there, cpus = machines().values(), self._asked.cpus
        gpus = self._asked.gpus
        if gpus is None:
            gpus = float(self._asked.processes) if any(machine.gpus for machine in there) else 0.0
        where = " on one machine" if len(there) > 1 else ""
        for option, kind, said, want, most in (
            ("cpus", "CPUs", "{:g}".format, cpus, max(machine.cpus for machine in there)),
            ("gpus", "GPUs", "{:g}".format, gpus, max(machine.gpus for machine in there)),
            ("memory", "of memory", byte_size, self._asked.memory, max(machine.memory for machine in there)),
        ):
            if want > most:
                raise RequestError(
                    f"a trial asks for {said(want)} {kind}, but {said(most)} are available{where}. "
                    f"Ask for at most that with --{option}-per-trial."
                )
        return cpus, gpus

    @property
    def workers(self) -> int:
        """Return how many trials run at the same time."""
        return max(1, Roster(*self.resources, self._warn, self._asked.memory).room)

    def run(
        self,
        contest: Contest,
        trainings: Trainings,
        run_dir: Path,
        currency: str,
        watch: Callable[[Record], None],
        check: Callable[[], None],
    ) -> None:
        """Train until the contest is done.

        Args:
            contest: Hands out trials, and takes their records.
            trainings: Makes the training of each.
            run_dir: The run's directory.
            currency: What budgets are in.
            watch: Called with each record, including provisional ones (`pruned`).
            check: Called many times a second. What it raises ends the run.

        Raises:
            RequestError: A machine of the cluster does not see the run directory.
            RunDirectoryError: The run directory cannot be written. Nothing that is in the ledger is lost.
        """
        cpus, gpus = self.resources
        storage = storage_of(run_dir)
        shared = self._address is not None and storage is None
        if shared:
            check_seen(run_dir, cpus, gpus, self._asked.memory)
        try:
            trainable = tune.with_parameters(
                TrialTraining,
                trainings=trainings,
                run_dir=str(run_dir.resolve()),
                currency=currency,
                resources=(cpus, gpus),
                storage=storage.uri if storage else "",
                files=pack(_files_of(run_dir)) if self._address is not None else {},
                refusal=refusal(),
            )
        except Exception as error:  # whatever a user's object raises where it is pickled
            raise RequestError(
                f"what is trained cannot be sent to workers: {' '.join(str(error).split())[:500]}"
            ) from error
        roster = Roster(cpus, gpus, self._warn, self._asked.memory, run_dir if shared else None)
        searcher = ContestSearcher(contest, lambda: roster.room, watch, run_dir, currency, self._asked.timeout_s)
        watching = [Pulse(check), Pulse(roster.look), Starts(searcher), Deadline(searcher.note_silence)]
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_NO_LIMIT)
        with _notes_of_tune(run_dir.resolve(), shared=self._address is not None) as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus, "memory": self._asked.memory}),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=RungScheduler(searcher),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: str(trial.config.get("trial", trial.trial_id)),
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[*watching, NoDisplay(), *self._callbacks],
                    failure_config=tune.FailureConfig(max_failures=0),  # the searcher hands them out again
                ),
            )
            try:
                with self._guarded(run_dir):
                    tuner.fit()
            except Exception as error:
                # What our own code raised inside Tune's loop is the real cause; Tune wraps it.
                # A full disk shows itself anywhere: Tune notes each death in Ray's folder, and wraps what that raises.
                if searcher.fault is None:
                    searcher.fault = full_disk_error(run_dir, session_folder())
                if searcher.fault is None and isinstance(error, OSError):
                    what = f"{error.filename or scratch}: cannot be written: {error.strerror or error}."
                    raise RunDirectoryError(with_way_on(what, run_dir)) from error
                raise searcher.fault or error from error
        if searcher.fault:
            raise searcher.fault


def _files_of(run_dir: Path) -> list[str]:
    """Return the user's files that a run's trials need; a confirmation has those of the run that it lies in."""
    return read_manifest(run_dir if (run_dir / MANIFEST_FILE).exists() else run_dir.parent).files


@contextmanager
def _notes_of_tune(run_dir: Path, shared: bool) -> Iterator[str]:
    """Provide a folder for what Tune writes down for itself and nobody reads.

    It is removed afterwards. Unless other machines must see it too, it lies outside the run, whose disk may be full.
    """
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
