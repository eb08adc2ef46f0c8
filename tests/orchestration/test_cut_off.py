"""Machines of a cluster that are cut off while they train, each in a network of its own, and come back."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from rfsearch.ledger import read_run
from tests.orchestration.runs import SAME, call, command, environment, wait, wait_for_events
from tests.toys import toy_file

HEAD, PORT = "10.77.0.1", 6399
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of a cluster in the tests, long enough"}
BRIDGE = "rfsearch"


def allowed() -> bool:
    """Return whether this process may make networks."""
    if shutil.which("ip") is None:
        return False
    made = not subprocess.run(["ip", "netns", "add", "rfsearch-try"], capture_output=True, check=False).returncode
    return made and not subprocess.run(["ip", "netns", "del", "rfsearch-try"], capture_output=True).returncode


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


class Machines:
    """A head that trains nothing, and machines on a bridge, with one CPU each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._nodes = folder, dict[str, subprocess.Popen[bytes]]()
        self.environment = {**os.environ, **environment(), **TOKEN}
        del self.environment["RAY_OVERRIDE_RESOURCES"]

    def begin(self) -> None:
        """Start the head."""
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HEAD}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        words = ["--head", f"--port={PORT}", f"--node-ip-address={HEAD}", "--include-dashboard=false", "--num-cpus=0"]
        self._start("head", [], words)

    def add(self, number: int) -> None:
        """Start a machine, and wait until it has joined."""
        name, address = f"rfsearch-{number}", f"10.77.0.{number}"
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", name, "master", BRIDGE, "up")
        inside = ["netns", "exec", name, "ip"]
        ip(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip(*inside, "link", "set", device, "up")
        self.join(number)

    def join(self, number: int) -> None:
        """Let a machine join the cluster."""
        words = [f"--address={HEAD}:{PORT}", f"--node-ip-address=10.77.0.{number}", "--num-cpus=1"]
        self._start(f"rfsearch-{number}", ["ip", "netns", "exec", f"rfsearch-{number}"], words)

    def cut(self, number: int) -> None:
        """Let nothing reach a machine, and nothing leave it."""
        ip("link", "set", f"rfsearch-{number}", "down")

    def mend(self, number: int) -> None:
        """Connect it again."""
        ip("link", "set", f"rfsearch-{number}", "up")

    def ended(self, number: int) -> bool:
        """Return whether Ray has ended on a machine."""
        return self._nodes[f"rfsearch-{number}"].poll() is not None

    def _start(self, name: str, within: list[str], words: list[str]) -> None:
        log = self._folder / f"{name}.log"
        start = [*within, str(Path(sys.executable).with_name("ray")), "start", *words, "--block"]
        with log.open("wb") as file:
            self._nodes[name] = subprocess.Popen(
                [*start, "--disable-usage-stats"], env=self.environment, start_new_session=True,
                stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait(lambda: "Ray runtime started" in log.read_text(errors="replace"), 120)

    def close(self) -> None:
        for node in self._nodes.values():
            subprocess.run(["pkill", "-9", "-s", str(node.pid)], check=False)
            node.wait()
        for name in [*self._nodes.keys() - {"head"}]:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False)


@pytest.fixture
def machines(tmp_path) -> Iterator[Machines]:
    found = Machines(tmp_path)
    try:
        found.begin()
        yield found
    finally:
        found.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not allowed(), reason="networks cannot be made here")
def test_a_machine_that_is_cut_off_loses_no_trial_and_one_that_joins_is_used(machines, tmp_path):
    machines.add(2)
    machines.add(3)
    space = toy_file(tmp_path, budget="30x", steps=150)
    words = ["run", "--space", space, "--strategies", "exhaustive,random", "--out"]
    with (tmp_path / "told").open("wb") as told:
        child = subprocess.Popen(
            command(*words, tmp_path / "run", "--address", f"{HEAD}:{PORT}"), env=machines.environment,
            stdout=told, stderr=told,
        )  # fmt: skip
    try:
        wait_for_events(tmp_path / "run", 8, child)
        machines.cut(2)
        said = tmp_path / "told"
        wait(lambda: b"10.77.0.2 left the cluster: trials that ran there go on elsewhere" in said.read_bytes(), 180)
        machines.mend(2)
        wait(lambda: machines.ended(2), 60)  # Ray ends where it was given up
        machines.join(2)
        wait(lambda: b"10.77.0.2 joined the cluster: 2 at a time now." in said.read_bytes(), 60)
        assert child.wait(400) == 0, said.read_text()
    finally:
        child.send_signal(signal.SIGKILL)
    assert call(*words, tmp_path / "whole", workers=2).returncode == 0
    ours, whole = (read_run(tmp_path / name).records for name in ("run", "whole"))
    assert {record.status for record in ours} <= {"completed", "cut"}
    assert len({record.trial for record in ours}) == len(ours)
    ends = [
        {(r.candidate, r.train_seed): r.val for r in records if r.status == "completed"} for records in (ours, whole)
    ]
    both = ends[0].keys() & ends[1].keys()
    assert len(both) > len(ends[1]) / 2
    assert {key: ends[0][key] for key in both} == {key: ends[1][key] for key in both}
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    assert set(SAME) < set(trials.columns)
    spent, limit = trials.groupby("strategy").train_flop.sum(), read_run(tmp_path / "run").manifest.budget.limit
    assert (spent <= limit * 1.01).all()
    assert b"raylet" not in said.read_bytes()
