"""The machines of a cluster: how many trials they have room for, who comes and goes, and who sees the run directory."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rfsearch.errors import RequestError, RunDirectoryError
from rfsearch.ledger.journal import LEDGER_FILE, resume_command
from rfsearch.numbers import duration

# A busy machine starts a process in seconds.
_PATIENCE_S = 30.0
_LOOK_AGAIN_S = 5.0
_POLL_S = 0.5
# A cloud starts a machine, and the machine its image, in minutes.
_FIRST_MACHINE_S = 600.0
_NO_ROOM = "None is left that has room for one; Ctrl-C ends the run, which can be resumed"


@dataclass(frozen=True)
class Machine:
    """Describe a machine of a cluster.

    Attributes:
        address: Its IP address.
        cpus: Number of its CPUs that Ray may use.
        gpus: Likewise of its GPUs.
        memory: Likewise of its memory, bytes.

    Example:
        >>> Machine("10.0.0.2", cpus=8, gpus=1).room(cpus=2, gpus=0.5)
        2
    """

    address: str
    cpus: float
    gpus: float
    memory: float = 0.0

    def room(self, cpus: float, gpus: float, memory: float = 0.0) -> int:
        """Return how many trials run on it at the same time.

        Args:
            cpus: Of each, more than 0.
            gpus: Of each.
            memory: Of each, bytes; 0 where none is set aside.
        """
        pairs = (self.cpus, cpus), (self.gpus, gpus), (self.memory, memory)
        slots = [have / want for have, want in pairs if want > 0]
        return int(min(slots) + 1e-9)


def machines() -> dict[str, Machine]:
    """Return the machines that are in the cluster now, by Ray's name of each."""
    found = {node["NodeID"]: (node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]}
    return {
        name: Machine(at, has.get("CPU", 0.0), has.get("GPU", 0.0), has.get("memory", 0.0))
        for name, (at, has) in found.items()
    }


def wait_for_first(cpus: float, gpus: float, say: Callable[[str], None], patience_s: float = _FIRST_MACHINE_S) -> None:
    """Wait for a machine that trials can run on, where a cluster has none but its head yet.

    An autoscaler adds machines to those that its file says only where it is asked to.

    Args:
        cpus: Of a trial.
        gpus: Of a trial.
        say: Called with a sentence where there is something to wait for.
        patience_s: For how long.

    Raises:
        RequestError: None has joined by then.
    """
    from ray.autoscaler.sdk import request_resources

    if _with_cpus_of(machines()):
        return
    say(f"No machine of the cluster has CPUs for trials yet. One is asked for; it has {duration(patience_s)} to join.")
    request_resources(bundles=[{"CPU": cpus} | ({"GPU": gpus} if gpus else {})])
    give_up = time.monotonic() + patience_s
    try:
        while not _with_cpus_of(machines()):
            if time.monotonic() > give_up:
                raise RequestError(
                    f"no machine with CPUs for trials has joined the cluster within {duration(patience_s)}. Start one "
                    "with ray start --address=HEAD:PORT, or let the autoscaler have some: min_workers of its file."
                )
            time.sleep(_POLL_S)
    finally:
        request_resources(bundles=[])  # else it would keep that machine for ever


def _with_cpus_of(these: dict[str, Machine]) -> dict[str, Machine]:
    """Return those of some machines that trials can run on."""
    return {name: machine for name, machine in these.items() if machine.cpus > 0}


class Roster:
    """Follow which machines of a cluster have room for trials, and say who comes and goes.

    Args:
        cpus: Number of CPUs of a trial.
        gpus: Number of its GPUs.
        say: Called with a sentence.
        memory: What is set aside for it, bytes.
        run_dir: A run's directory that every machine that joins must see. None: none need be.

    Example:
        >>> roster = Roster(cpus=1, gpus=0, say=print)
        >>> roster.room
        16
    """

    def __init__(
        self,
        cpus: float,
        gpus: float,
        say: Callable[[str], None],
        memory: float = 0.0,
        run_dir: Path | None = None,
    ) -> None:
        self._needs, self._say = (cpus, gpus, memory), say
        self._machines, self._looked = machines(), time.monotonic()
        self._run_dir, self._asked = run_dir, dict[ray.ObjectRef[bool], str]()

    @property
    def room(self) -> int:
        """How many trials run at the same time, of those machines that were there at the last look."""
        return sum(machine.room(*self._needs) for machine in self._machines.values())

    def look(self) -> None:
        """Look who is there, every few seconds.

        Raises:
            RunDirectoryError: A machine that has joined does not see the run's directory.
        """
        if time.monotonic() - self._looked < _LOOK_AGAIN_S:
            return
        self._looked, before = time.monotonic(), self._machines
        try:
            self._machines = machines()
        except RayError:
            return  # the head does not answer; Ray itself says so where it stays away
        if left := self._with_room(before, self._machines):
            then = "go on elsewhere, from their last rung" if self.room else f"wait for a machine. {_NO_ROOM}"
            self._say(f"{left} left the cluster: trials that ran there {then}.")
        if joined := self._with_room(self._machines, before):
            self._say(f"{joined} joined the cluster: {self.room} at a time now.")
        if self._run_dir is not None:
            self._ask_who_joined(self._run_dir / LEDGER_FILE, before)
            self._require_seen(self._run_dir)

    def _ask_who_joined(self, ledger: Path, before: dict[str, Machine]) -> None:
        for name in self._machines.keys() - before.keys():
            if not self._machines[name].room(*self._needs):
                continue  # no trial will run there
            self._asked[_look(name, ledger.resolve())] = self._machines[name].address

    def _require_seen(self, run_dir: Path) -> None:
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        asked = {answer: self._asked.pop(answer) for answer in answered}
        for answer, address in asked.items():
            with suppress(RayError):  # it has left again
                if not ray.get(answer):
                    raise unseen_error(address, run_dir)

    def _with_room(self, these: dict[str, Machine], without: dict[str, Machine]) -> str:
        names = these.keys() - without.keys()
        return ", ".join(sorted(these[name].address for name in names if these[name].room(*self._needs)))


def unseen_error(address: str, run_dir: Path) -> RunDirectoryError:
    """Make the error of a machine that does not see a run's directory, which it joined after the run had begun."""
    return RunDirectoryError(
        f"{address} of the cluster cannot see {run_dir}, where its trials would write their checkpoints. Nothing is "
        f"lost. Let it see that folder, or take it out of the cluster, then go on with: {resume_command(run_dir)}"
    )


def check_seen(run_dir: Path, cpus: float, gpus: float, memory: float = 0.0) -> None:
    """Check that all machines that have room for a trial see a directory of this one.

    One that does not answer in time is found out by its first trial.

    Args:
        run_dir: The directory.
        cpus: Of a trial.
        gpus: Of a trial.
        memory: Of a trial, bytes.

    Raises:
        RequestError: One does not; the message names it.
    """
    workers = {name: one.address for name, one in machines().items() if one.room(cpus, gpus, memory)}
    if set(workers) <= {ray.get_runtime_context().get_node_id()}:
        return
    mark = run_dir.resolve() / f".seen-{uuid.uuid4().hex[:8]}"
    mark.touch()
    try:
        asked = {_look(name, mark): address for name, address in workers.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
        blind = [asked[answer] for answer in answered if not ray.get(answer)]
    finally:
        mark.unlink(missing_ok=True)
    if blind:
        raise RequestError(
            f"{', '.join(blind)} of the cluster cannot see {run_dir}, where trials would write their checkpoints. "
            "--out must be a folder that all machines share, or a place on object storage, such as s3://BUCKET/RUN."
        )


def _look(node: str, mark: Path) -> ray.ObjectRef[bool]:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    # A function of Python's own: one of ours would have each machine import torch for it.
    return ray.remote(num_cpus=0)(os.path.exists).options(scheduling_strategy=where).remote(str(mark))
