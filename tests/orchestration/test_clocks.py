"""Clocks of the machine that jump by a day while a search runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.orchestration.runs import ROOT, call, command, environment, wait_for_events
from tests.toys import toy_file

# Python imports it when it starts: the run's process, Ray's and every worker.
JUMPING = """
import os, time
_time, _time_ns, _jumps = time.time, time.time_ns, {flag!r}
time.time = lambda: _time() + ({by_s} if os.path.exists(_jumps) else 0)
time.time_ns = lambda: _time_ns() + ({by_s} * 10**9 if os.path.exists(_jumps) else 0)
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[object]:
    space = toy_file(tmp_path_factory.mktemp("space"), budget="4x", steps=40)
    return ["run", "--space", space, "--strategies", "exhaustive,fractional"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, words) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert call(*words, "--out", run_dir).returncode == 0
    return run_dir


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_that_jumps_by_a_day_changes_nothing(words, whole, tmp_path, days):
    flag, run_dir = tmp_path / "jumps", tmp_path / "run"
    (tmp_path / "sitecustomize.py").write_text(JUMPING.format(flag=str(flag), by_s=days * 86400))
    environ = {**environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    child = subprocess.Popen(
        command(*words, "--out", run_dir), env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_events(run_dir, 5, child)
        flag.touch()
        seen = subprocess.check_output([sys.executable, "-c", "import time; print(time.time())"], env=environ)
        assert abs(float(seen) - time.time() - days * 86400) < 600
        _, errors = child.communicate(timeout=300)
    finally:
        child.kill()
    assert child.returncode == 0, errors
    ours, theirs = (pd.read_csv(folder / "trials.csv").set_index("trial").sort_index() for folder in (run_dir, whole))
    timed = ["device_s", "infer_latency_ms"]
    pd.testing.assert_frame_equal(ours.drop(columns=timed), theirs.drop(columns=timed))
    assert ours.device_s.between(0, 3600).all()
