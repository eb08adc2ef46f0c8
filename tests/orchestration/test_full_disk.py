"""A run on a disk that fills up: one message, nothing lost, and it goes on once there is room."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rfsearch.ledger import read_run
from rfsearch.ledger.journal import LEDGER_FILE
from tests.disks import fill, small_disk
from tests.toys import toy_file

ROOT = Path(__file__).resolve().parents[2]


def begin(*words: object, errors: Path) -> subprocess.Popen[bytes]:
    """Start a command, whose standard error goes to a file."""
    with errors.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", "from rfsearch.cli import main; main()", *map(str, words)],
            stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def wait_for_lines(ledger: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and child.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"the run ended (code {child.poll()}) before its ledger had {count} lines")


def test_a_full_disk_stops_the_run_which_resumes_once_there_is_room(tmp_path):
    space = toy_file(tmp_path, budget="4.5x")
    space.write_text(space.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2"))
    errors = tmp_path / "errors.txt"
    with small_disk(tmp_path / "disk", "80m") as disk:
        run_dir = disk / "run"
        child = begin("run", "--space", space, "--strategies", "exhaustive", "--out", run_dir, errors=errors)
        try:
            wait_for_lines(run_dir / LEDGER_FILE, 2, child)  # a trial is handed out; its worker takes seconds to start
            ballast = fill(disk)
            assert child.wait(timeout=120) == 2
        finally:
            child.kill()
        (message,) = errors.read_text().splitlines()
        assert "progress.pt: cannot be written" in message
        assert "No space left on device" in message
        assert message.endswith(f"rfsearch resume {run_dir}")
        assert not read_run(run_dir).records
        ballast.unlink()
        child = begin("resume", run_dir, errors=errors)
        assert child.wait(timeout=240) == 0, errors.read_text()
        records, events = read_run(run_dir).records, (run_dir / LEDGER_FILE).read_text().splitlines()
        assert {record.trial: record.cause for record in records} == {"exhaustive-0-000": "", "exhaustive-0-001": ""}
        assert records[0].status == "completed"
        assert records[0].forecast is not None
        assert records[0].cost.flop == records[0].forecast.flop  # and not what it had begun before
        assert [json.loads(event)["event"] for event in events].count("start") == 2
