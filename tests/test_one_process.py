"""Commands beside a run that is in progress: one trains, the others are told or say so."""

import json
import os
import subprocess
import sys

import pytest

from rfsearch import cli
from rfsearch.ledger import lock
from tests.ledger.test_lock import HOLD, ROOT
from tests.small_run import begin, train
from tests.toys import toy_file


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run with a finished trial, in which another process is at work: (its directory, that process)."""
    run_dir, plan = begin(tmp_path_factory.mktemp("live"))
    train(run_dir, plan, 1)
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout
    process.stdout.readline()
    yield run_dir, process
    process.kill()
    process.communicate()


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line in this process: (exit code, standard output, standard error). No engine is started."""

    def called(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rfsearch", *map(str, words)])
        monkeypatch.setattr(cli, "_engine", lambda request: pytest.fail("it began to train"))
        monkeypatch.setattr(lock, "_PATIENCE_S", 0.2)
        with pytest.raises(SystemExit) as leave:
            cli.main()
        told = capsys.readouterr()
        return int(leave.value.code or 0), told.out, told.err

    return called


@pytest.mark.parametrize("how", ["resume", "run"])
def test_no_second_process_trains_in_a_run(live, call, tmp_path, how):
    run_dir, process = live
    before = {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()}
    words = ["resume", run_dir] if how == "resume" else ["run", "--space", toy_file(tmp_path), "--out", run_dir]
    code, _, err = call(*words)
    assert code == 2
    assert f"in use by process {process.pid} on" in err.replace("\n", "")
    assert "Traceback" not in err
    assert {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before


def test_a_report_of_a_run_in_progress_says_so(live, capsys, monkeypatch):
    run_dir, process = live
    for words in (["report", str(run_dir)], ["report", str(run_dir), "--json"]):
        monkeypatch.setattr(sys, "argv", ["rfsearch", *words])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        assert not leave.value.code
    out = capsys.readouterr().out
    text, _, body = out.partition("{")
    assert f"This run is running (process {process.pid} on" in " ".join(text.split())
    assert "rfsearch resume" not in text
    assert json.loads("{" + body)["running"]["pid"] == process.pid
    assert "This run is running" in (run_dir / "report.html").read_text()
