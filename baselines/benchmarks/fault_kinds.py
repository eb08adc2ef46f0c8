"""The faults that `faults.py` inflicts on a search in training, each a function, and where the search runs for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # some faults are those of tests

if TYPE_CHECKING:
    from tests.gate import Gate
    from tests.orchestration.test_cut_off import Machines

TIMEOUT_S = 120  # --trial-timeout of every run
LONGEST_S = 1800.0  # a worker that is stopped for good is ended after 1.5 timeouts and 300 s
AWAY_S = 60.0


@dataclass
class Place:
    """Say where a search runs.

    Attributes:
        out: Its --out.
        find: Returns the directory that its ledger and tables are in.
        words: More words of its command.
        variables: More variables of its environment.
        disk: Where it is on a disk of its own.
        gate: What its storage is behind.
        machines: What it trains on, where that is not this machine alone.
    """

    out: str
    find: Callable[[], Path]
    words: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    disk: Path | None = None
    gate: Gate | None = None
    machines: Machines | None = None


@dataclass
class Running:
    """Hold a search in training.

    Attributes:
        process: Its driver.
        place: Where it runs.
        harm: How its network fails; see `counted_network.py`.
    """

    process: subprocess.Popen[bytes]
    place: Place
    harm: Path

    @property
    def run_dir(self) -> Path:
        """Its directory."""
        return self.place.find()

    @property
    def worker(self) -> psutil.Process:
        """The process that trains."""
        return next(child for child in self.ray if any("ResourceTrainable" in part for part in child.cmdline()))

    @property
    def ray(self) -> list[psutil.Process]:
        """The driver's own processes."""
        return psutil.Process(self.process.pid).children(recursive=True)


def kill_worker(running: Running) -> None:
    """End the process that trains."""
    running.worker.kill()


def exit_twice(running: Running) -> None:
    """Let the network leave its process, and again when it is retried: this trial fails."""
    running.harm.write_text("exit\nexit")


def hang(running: Running) -> None:
    """Let the network hang once."""
    running.harm.write_text("hang")


def pause_worker(running: Running) -> None:
    """Stop the process that trains for a while; it is not dead."""
    worker = running.worker
    worker.suspend()
    time.sleep(20)
    worker.resume()


def stop_worker(running: Running) -> None:
    """Stop the process that trains for good."""
    running.worker.suspend()


def kill_driver(running: Running) -> None:
    """End the driver and all that it has started."""
    for process in [*running.ray, psutil.Process(running.process.pid)]:
        process.kill()


def interrupt(running: Running) -> None:
    """Press Ctrl-C."""
    running.process.send_signal(signal.SIGINT)


def kill_raylet(running: Running) -> None:
    """End Ray's own process."""
    next(child for child in running.ray if child.name() == "raylet").kill()


def damage_checkpoint(running: Running) -> None:
    """End everything, and leave half of the checkpoint."""
    kill_driver(running)
    (file,) = running.run_dir.glob("checkpoints/*/progress.pt")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def tear_ledger(running: Running) -> None:
    """End everything in the middle of a line of the ledger."""
    kill_driver(running)
    with (running.run_dir / "ledger.jsonl").open("ab") as file:
        file.write(b'{"event":"finish","trial":"exhau')


def set_files_back(running: Running) -> None:
    """Set the times of all files of the run back by a day, as after a clock that jumped."""
    kill_driver(running)
    for file in running.run_dir.rglob("*"):
        before = file.stat().st_mtime - 86400
        os.utime(file, (before, before))


def jump_clock(running: Running) -> None:
    """Set the clock of Python in all processes of the run forward by a day."""
    Path(running.place.variables["CLOCK_JUMPS"]).touch()


def fill_disk(running: Running) -> None:
    """Fill the disk of the run's directory until the run has stopped."""
    from tests.disks import fill

    assert running.place.disk is not None
    ballast = fill(running.place.disk)
    running.process.wait(LONGEST_S)
    ballast.unlink()


def take_storage_away(running: Running) -> None:
    """Let nothing reach the storage for a minute."""
    gate = running.place.gate
    assert gate is not None
    gate.close()
    time.sleep(AWAY_S)
    gate.open()


def cut_machine_off(running: Running) -> None:
    """Cut the machine off that trains, until Ray has given it up, and let it join again."""
    from tests.orchestration.runs import wait

    machines = running.place.machines
    assert machines is not None
    machines.cut(2)
    time.sleep(AWAY_S)
    machines.mend(2)
    wait(lambda: machines.ended(2), 180)
    machines.join(2)


@contextmanager
def folder(run_dir: Path) -> Iterator[Place]:
    """Provide a folder of this machine."""
    yield Place(str(run_dir), lambda: run_dir)


@contextmanager
def small_disk(run_dir: Path) -> Iterator[Place]:
    """Provide a disk of its own."""
    from tests.disks import small_disk as mounted

    with mounted(run_dir, "200m") as disk:
        inside = disk / "run"
        yield Place(str(inside), lambda: inside, disk=disk)


@contextmanager
def storage(run_dir: Path) -> Iterator[Place]:
    """Provide object storage, an S3 server of this machine, behind a gate."""
    import boto3
    from moto.server import ThreadedMotoServer

    from tests.gate import Gate

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    gate = Gate(server.get_host_and_port()[1])
    gate.open()
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}",
        "XDG_CACHE_HOME": str(run_dir),
    }
    os.environ.update({name: value for name, value in variables.items() if name.startswith("AWS_")})
    boto3.client("s3").create_bucket(Bucket="bucket")

    def local() -> Path:
        return next(run_dir.glob("rfsearch/runs/*"), run_dir / "none")

    try:
        yield Place("s3://bucket/run", local, variables=variables, gate=gate)
    finally:
        gate.close()
        server.stop()


@contextmanager
def jumping_clock(run_dir: Path) -> Iterator[Place]:
    """Provide a folder, and a clock that jumps once a file is there."""
    from tests.orchestration.test_clocks import JUMPING

    run_dir.mkdir(parents=True)
    flag, inside = run_dir / "jumps", run_dir / "run"
    (run_dir / "sitecustomize.py").write_text(JUMPING.format(flag=str(flag), by_s=86400))
    yield Place(str(inside), lambda: inside, variables={"CLOCK_JUMPS": str(flag), "PYTHONPATH": str(run_dir)})


@contextmanager
def other_machine(run_dir: Path) -> Iterator[Place]:
    """Provide a cluster whose only machine that trains is in a network of its own; needs root."""
    from tests.orchestration.test_cut_off import HEAD, PORT, Machines, allowed

    if not allowed():
        raise SystemExit("networks cannot be made here: this fault needs root")
    logs = run_dir.with_suffix(".ray")
    logs.mkdir(parents=True, exist_ok=True)
    machines = Machines(logs)
    machines.environment.update(counted_variables(run_dir))
    try:
        machines.begin()
        machines.add(2)
        variables = {name: machines.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        joined = ("--address", f"{HEAD}:{PORT}")
        yield Place(str(run_dir), lambda: run_dir, joined, variables, machines=machines)
    finally:
        machines.close()


def counted_variables(run_dir: Path) -> dict[str, str]:
    """Return what the network of a run reads; see `counted_network.py`."""
    return {
        "COUNTED_STEPS": str(run_dir.with_suffix(".steps").resolve()),
        "COUNTED_HARM": str(run_dir.with_suffix(".harm").resolve()),
    }


def environment(run_dir: Path, place: Place) -> dict[str, str]:
    """Return the variables of a driver whose Ray has one worker."""
    variables = {**os.environ, **counted_variables(run_dir), "OMP_NUM_THREADS": "1", **place.variables}
    if place.machines is None:
        variables["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": 1})
    paths = (place.variables.get("PYTHONPATH"), os.environ.get("PYTHONPATH"))
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@dataclass(frozen=True)
class Fault:
    """Say what is done, and where the search runs for it."""

    inflict: Callable[[Running], None]
    place: Callable[[Path], AbstractContextManager[Place]] = folder


FAULTS = {
    "worker killed": Fault(kill_worker),
    "worker left twice": Fault(exit_twice),
    "worker hung": Fault(hang),
    "worker stopped for 20 s": Fault(pause_worker),
    "worker stopped for good": Fault(stop_worker),
    "driver and workers killed": Fault(kill_driver),
    "Ctrl-C": Fault(interrupt),
    "Ray's raylet killed": Fault(kill_raylet),
    "checkpoint cut in half": Fault(damage_checkpoint),
    "ledger torn in a line": Fault(tear_ledger),
    "files a day old": Fault(set_files_back),
    "clock a day ahead": Fault(jump_clock, jumping_clock),
    "disk full": Fault(fill_disk, small_disk),
    "storage away for a minute": Fault(take_storage_away, storage),
    "machine cut off and back": Fault(cut_machine_off, other_machine),
}
