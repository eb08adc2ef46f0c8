"""Commands beside a run that is in progress: one trains, the others are told or say so."""

import json
import os
import subprocess
import sys

import pytest

from rfsearch import cli, published
from rfsearch.ledger import lock
from rfsearch.published import PublishedTable
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
        monkeypatch.setattr("rfsearch.conduct.start_engine", lambda request: pytest.fail("it began to train"))
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


def test_an_export_and_a_field_of_a_run_in_progress_say_so(live, call, tmp_path):
    run_dir, process = live
    for words in (
        ["export", run_dir, "--formats", "none", "--out", tmp_path / "out"],
        ["rf", run_dir, "--no-effective"],
    ):
        code, out, _ = call(*words, *(["--out", tmp_path / "rf"] if words[0] == "rf" else []))
        assert code == 0
        assert f"The run is still running (process {process.pid} on" in " ".join(out.split())
    code, out, _ = call("rf", run_dir, "--no-effective", "--json", "--out", tmp_path / "rf")
    assert any("still running" in sentence for sentence in json.loads(out)["sentences"])


def test_a_table_is_not_trained_in_a_run_in_progress(live, call, tmp_path, monkeypatch):
    run_dir, process = live
    table = PublishedTable(
        title="Toy",
        cite="-",
        columns={},
        protocol={"data": "helen"},
        run={"space": str(toy_file(tmp_path)), "fallback": str(toy_file(tmp_path)), "presets": {"small": "mini"}},
        rows=({"label": "by hand", "candidate": {"conv6": {"dilation": 1}}},),
    )
    monkeypatch.setattr(published, "read_table", lambda name: table)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows").symlink_to(run_dir)
    before = {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()}
    code, _, err = call("reproduce", "toy-table", "--out", tmp_path / "out")
    assert code == 2
    assert f"in use by process {process.pid} on" in err.replace("\n", "")
    assert {path.name: path.stat().st_mtime_ns for path in run_dir.iterdir()} == before
