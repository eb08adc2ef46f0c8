"""Object storage that is away for a minute, while trials want to put their checkpoints there."""

import subprocess
import time

import pandas as pd
import pytest

import rfsearch
from tests.gate import Gate
from tests.orchestration.runs import call, command, environment, wait_for_events
from tests.test_storage import server  # noqa: F401
from tests.toys import toy_file

AWAY_S = 60


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_whose_storage_is_away_for_a_minute_ends_as_if_it_had_been_there(server, tmp_path, monkeypatch):  # noqa: F811
    space = toy_file(tmp_path, budget="5x", steps=60)
    words = ["run", "--space", space, "--strategies", "exhaustive,fractional"]
    gate = Gate(int(server["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    gate.open()
    place = f"s3://bucket/away-{gate.port}"
    environ = {**environment(), **server, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}"}
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    errors = tmp_path / "errors.txt"
    with errors.open("wb") as file:
        child = subprocess.Popen(command(*words, "--out", place), env=environ, stdout=file, stderr=file)
    try:
        give_up = time.monotonic() + 120
        while not (found := list((tmp_path / "cache").glob("rfsearch/runs/*"))):
            assert time.monotonic() < give_up, errors.read_text()
            time.sleep(0.2)
        wait_for_events(found[0], 5, child)
        gate.close()
        time.sleep(AWAY_S)
        assert child.poll() is None, errors.read_text()
        gate.open()
        assert child.wait(600) == 0, errors.read_text()
    finally:
        child.kill()
        gate.close()
    assert call(*words, "--out", tmp_path / "whole").returncode == 0
    for name, value in {**server, "XDG_CACHE_HOME": str(tmp_path / "elsewhere")}.items():
        monkeypatch.setenv(name, value)
    ours = rfsearch.load_run(place).trials.set_index("trial").sort_index()  # by what is on the storage
    whole = pd.read_csv(tmp_path / "whole" / "trials.csv").set_index("trial").sort_index()
    same = ["candidate", "seed", "status", "val", "test", "train_flop", "outcome"]
    pd.testing.assert_frame_equal(ours[same], whole[same], check_dtype=False)
    assert rfsearch.trained(place, trust=True) is not None
