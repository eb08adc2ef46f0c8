"""Whole runs in which something fails: a trial, every trial, a strategy."""

import json

import pandas as pd
import pytest

from rfsearch.ledger import read_run
from tests.small_run import run_in_process, train_in_process
from tests.toys import toy_file


@pytest.fixture(scope="module")
def harmed(tmp_path_factory) -> pd.DataFrame:
    """The trials of a run in which two dilations of four do harm, each in its own way."""
    root = tmp_path_factory.mktemp("harmed")
    path = toy_file(root, "tests.toys:harmful_net", budget="5x", steps=12)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[1, 2, 3, 5]"))
    run_in_process("run", "--space", path, "--strategies", "exhaustive", "--out", root / "run")
    return pd.read_csv(root / "run" / "trials.csv")


@pytest.mark.parametrize(("dilation", "cause"), [(2, "nan"), (3, "out of memory")])
def test_a_fault_in_one_trial_fails_that_trial_and_the_run_goes_on(harmed, dilation, cause):
    failed = harmed[harmed.candidate.str.contains(f'"dilation": {dilation}')]
    assert len(failed) >= 1
    assert (failed.status == "failed").all()
    assert failed.cause.str.contains(cause).all()
    unharmed = harmed[harmed.candidate.str.contains('"dilation": [15]')]
    assert (unharmed.status == "completed").sum() >= 2
    assert not (unharmed.status == "failed").any()


def test_a_network_that_leaves_fails_its_trial_and_no_other(tmp_path):
    path = toy_file(tmp_path, "tests.toys:leaving_net", budget="60x", steps=2)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[1, 2, 3]"))
    run_in_process("run", "--space", path, "--strategies", "exhaustive", "--out", tmp_path / "run")
    trials = {json.loads(r.candidate)["conv6"]["dilation"]: r for r in reversed(read_run(tmp_path / "run").records)}
    assert {dilation: trial.status for dilation, trial in trials.items()} == {1: "completed", 2: "failed", 3: "failed"}
    assert trials[2].cause == "SystemExit: no licence"
    assert trials[3].cause == "Strange: of its own kind"


def test_a_run_in_which_nothing_succeeds_says_so_with_exit_code_one(call, trained_here, tmp_path):
    path = toy_file(tmp_path, "tests.toys:nan_net", steps=12)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2"))
    code, out, err = call("run", "--space", path, "--strategies", "exhaustive", "--out", tmp_path / "run", "--json")
    assert code == 1, err
    assert "Traceback" not in err
    body = json.loads(out)
    assert body["verdict"]["best"] is None
    assert body["arms"][0]["trials"] >= 1


OWN = """
from rfsearch.choices import Dilated
from rfsearch.strategies import Exhausted

class Mine:
    def __init__(self, space, seed):
        self.space, self.told = space, 0

    def suggest(self, pending):
        if self.told == 2:
            return Exhausted("two are enough")
        return self.space.uniform(Dilated(self.told + 1))

    def observe(self, record):
        self.told += 1
        {fault}
"""


def test_a_run_resumes_from_another_folder_once_a_failing_strategy_is_fixed(call, tmp_path, monkeypatch):
    file, run_dir = tmp_path / "own.py", tmp_path / "run"
    file.write_text(OWN.format(fault="raise KeyError('loss')"))
    options = ["--space", toy_file(tmp_path, budget="6x"), "--out", run_dir]
    with monkeypatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 1}')
        code, _, err = call("run", *options, "--strategies", "own.py:Mine")
    assert code == 2, err
    assert "strategy Mine: observe(record) failed with KeyError: 'loss'. Raised in" in err
    assert err.rstrip().endswith(f"Mend the strategy, then go on with: rfsearch resume {run_dir}")
    assert "Traceback" not in err
    assert [record.trial for record in read_run(run_dir).records] == ["Mine-0-000"]
    assert (run_dir / "report.html").exists()
    assert not (run_dir / "ray").exists()
    file.write_text(OWN.format(fault="pass"))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    train_in_process(monkeypatch)
    code, out, err = call("resume", run_dir)
    assert code == 0, err
    run = read_run(run_dir)
    assert run.manifest.request.strategies == (f"{file}:Mine",)
    assert [record.trial for record in run.records] == ["Mine-0-000", "Mine-0-001"]
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} < {"Mine-0-000", "Mine-0-001"}
    assert "Left unspent: Mine/0 " in out
    assert "since two are enough." in out
    page = (run_dir / "report.html").read_text()
    assert "since two are enough." in page
    assert "full trainings of the hand default: one costs" in page
