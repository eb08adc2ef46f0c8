"""A run on a disk that fills up: one message, nothing lost, and it goes on once there is room."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from rfsearch.ledger import read_run
from rfsearch.ledger.journal import LEDGER_FILE
from tests.disks import fill, small_disk
from tests.orchestration.runs import command, environment, wait, wait_for_events
from tests.small_run import run_in_process
from tests.toys import toy_file


@pytest.mark.slow
def test_a_full_disk_stops_the_run_which_resumes_once_there_is_room(tmp_path):
    space = toy_file(tmp_path, budget="4.5x")
    space.write_text(space.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2"))
    errors = tmp_path / "errors.txt"
    with small_disk(tmp_path / "disk", "80m") as disk:
        run_dir = disk / "run"
        words = command("run", "--space", space, "--strategies", "exhaustive", "--out", run_dir)
        with errors.open("wb") as file:
            child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=file, env=environment())
        try:
            wait_for_events(run_dir, 2, child)  # a trial is handed out; its worker takes seconds to start
            ballast = fill(disk)
            assert child.wait(timeout=300) == 2
        finally:
            child.kill()
        (message,) = errors.read_text().splitlines()
        assert "progress.pt: cannot be written" in message
        assert "No space left on device" in message
        assert message.endswith(f"rfsearch resume {run_dir}")
        assert not read_run(run_dir).records
        ballast.unlink()
        run_in_process("resume", run_dir)
        records, events = read_run(run_dir).records, (run_dir / LEDGER_FILE).read_text().splitlines()
        assert {record.trial: record.cause for record in records} == {"exhaustive-0-000": "", "exhaustive-0-001": ""}
        assert records[0].status == "completed"
        assert records[0].forecast is not None
        assert records[0].cost.flop == records[0].forecast.flop  # and not what it had begun before
        assert [json.loads(event)["event"] for event in events].count("start") == 2


@pytest.mark.slow
def test_a_worker_that_dies_while_rays_own_disk_is_full_stops_the_run_and_fails_no_trial(tmp_path):
    space = toy_file(tmp_path, "tests.toys:dying_net", budget="3x", steps=60)
    space.write_text(space.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2"))
    harm = {"TOY_STEPS": str(tmp_path / "steps"), "TOY_DIED": str(tmp_path / "died"), "TOY_KILLS": "40"}
    errors, run_dir = tmp_path / "errors.txt", tmp_path / "run"
    with tempfile.TemporaryDirectory(dir="/tmp") as place, small_disk(Path(place) / "d", "80m") as disk:
        words = command("run", "--space", space, "--strategies", "exhaustive", "--out", run_dir)
        with errors.open("wb") as file:
            child = subprocess.Popen(
                words, stdout=subprocess.DEVNULL, stderr=file, env={**environment(), **harm, "RAY_TMPDIR": str(disk)}
            )
        try:
            wait_for_events(run_dir, 2, child)  # a trial is handed out; its worker takes seconds to start
            wait(lambda: (tmp_path / "steps").exists(), 120)
            fill(disk)
            assert child.wait(timeout=300) == 2, errors.read_text()
        finally:
            child.kill()
    message = errors.read_text().splitlines()[-1]
    assert f"Ray's folder: {disk}/" in message
    assert "No space left on device" in message
    assert message.endswith(f"rfsearch resume {run_dir}")
    assert not read_run(run_dir).records
    with pytest.MonkeyPatch.context() as patch:
        for name, value in harm.items():
            patch.setenv(name, value)
        run_in_process("resume", run_dir)
    assert {record.status for record in read_run(run_dir).records} <= {"completed", "cut"}
