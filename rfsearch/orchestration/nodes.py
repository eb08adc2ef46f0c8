"""The machines of a cluster: how many trials they have room for, who comes and goes, and who sees the run directory."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rfsearch.errors import RequestError

# A busy machine starts a process in seconds. One that has not answered by then is found out by its first trial.
_PATIENCE_S = 30.0
_LOOK_AGAIN_S = 5.0
_NO_ROOM = "None is left that has room for one; Ctrl-C ends the run, which can be resumed"


@dataclass(frozen=True)
class Machine:
    """Describe a machine of a cluster.

    Attributes:
        address: Its IP address.
        cpus: Number of its CPUs that Ray may use.
        gpus: Likewise of its GPUs.

    Example:
        >>> Machine("10.0.0.2", cpus=8, gpus=1).room(cpus=2, gpus=0.5)
        2
    """

    address: str
    cpus: float
    gpus: float

    def room(self, cpus: float, gpus: float) -> int:
        """Return how many trials run on it at the same time.

        Args:
            cpus: Of each, more than 0.
            gpus: Of each.
        """
        slots = [have / want for have, want in ((self.cpus, cpus), (self.gpus, gpus)) if want > 0]
        return int(min(slots) + 1e-9)


def machines() -> dict[str, Machine]:
    """Return the machines that are in the cluster now, by Ray's name of each."""
    found = {node["NodeID"]: (node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]}
    return {name: Machine(at, has.get("CPU", 0.0), has.get("GPU", 0.0)) for name, (at, has) in found.items()}


class Roster:
    """Follow which machines of a cluster have room for trials, and say who comes and goes.

    Args:
        cpus: Number of CPUs of a trial.
        gpus: Number of its GPUs.
        say: Called with a sentence.

    Example:
        >>> roster = Roster(cpus=1, gpus=0, say=print)
        >>> roster.room
        16
    """

    def __init__(self, cpus: float, gpus: float, say: Callable[[str], None]) -> None:
        self._needs, self._say = (cpus, gpus), say
        self._machines, self._looked = machines(), time.monotonic()

    @property
    def room(self) -> int:
        """How many trials run at the same time, of those machines that were there at the last look."""
        return sum(machine.room(*self._needs) for machine in self._machines.values())

    def look(self) -> None:
        """Look who is there, every few seconds."""
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

    def _with_room(self, these: dict[str, Machine], without: dict[str, Machine]) -> str:
        names = these.keys() - without.keys()
        return ", ".join(sorted(these[name].address for name in names if these[name].room(*self._needs)))


def check_seen(run_dir: Path) -> None:
    """Check that all nodes that trials can run on see a directory of this machine.

    Raises:
        RequestError: One does not; the message names it.
    """
    workers = {name: machine.address for name, machine in machines().items() if machine.cpus > 0}
    if len(workers) < 2:
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
