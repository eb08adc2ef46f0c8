"""Whole runs in which something fails: a trial, every trial, a strategy."""

import json
import subprocess

import pandas as pd
import pytest

from rfsearch.ledger import read_run
from tests.orchestration.runs import call, command, environment, one_worker
from tests.toys import toy_file


@pytest.fixture(scope="module")
def harmed(tmp_path_factory) -> pd.DataFrame:
    """The trials of a run in which three dilations of five do harm, each in its own way."""
    root = tmp_path_factory.mktemp("harmed")
    path = toy_file(root, "tests.toys:harmful_net", budget="5x", steps=12)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[1, 2, 3, 4, 5]"))
    told = call("run", "--space", path, "--strategies", "exhaustive", "--out", root / "run")
    assert told.returncode == 0, told.stderr
    return pd.read_csv(root / "run" / "trials.csv")


@pytest.mark.parametrize(("dilation", "cause"), [(2, "nan"), (3, "out of memory"), (4, "died")])
def test_a_fault_in_one_trial_fails_that_trial_and_the_run_goes_on(harmed, dilation, cause):
    failed = harmed[harmed.candidate.str.contains(f'"dilation": {dilation}')]
    assert len(failed) >= 1
    assert (failed.status == "failed").all()
    assert failed.cause.str.contains(cause).all()
    unharmed = harmed[harmed.candidate.str.contains('"dilation": [15]')]
    assert (unharmed.status == "completed").sum() >= 2
    assert not (unharmed.status == "failed").any()


def test_a_run_in_which_nothing_succeeds_says_so_with_exit_code_one(tmp_path):
    path = toy_file(tmp_path, "tests.toys:nan_net", steps=12)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2"))
    told = call("run", "--space", path, "--strategies", "exhaustive", "--out", tmp_path / "run", "--json")
    assert told.returncode == 1, told.stderr
    assert "Traceback" not in told.stderr
    body = json.loads(told.stdout)
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


def test_a_run_resumes_from_another_folder_once_a_failing_strategy_is_fixed(tmp_path):
    file, run_dir = tmp_path / "own.py", tmp_path / "run"
    file.write_text(OWN.format(fault="raise KeyError('loss')"))
    options = ["--space", toy_file(tmp_path, budget="6x"), "--out", run_dir, *one_worker()]
    told = subprocess.run(
        command("run", *options, "--strategies", "own.py:Mine"),
        capture_output=True, text=True, env=environment(), timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert told.returncode == 2, told.stderr
    assert "strategy Mine: observe(record) failed with KeyError: 'loss'. Raised in" in told.stderr
    assert told.stderr.rstrip().endswith(f"Mend the strategy, then go on with: rfsearch resume {run_dir}")
    assert "Traceback" not in told.stderr
    assert [record.trial for record in read_run(run_dir).records] == ["Mine-0-000"]
    assert (run_dir / "report.html").exists()
    assert not (run_dir / "ray").exists()
    file.write_text(OWN.format(fault="pass"))
    told = call("resume", run_dir)
    assert told.returncode == 0, told.stderr
    run = read_run(run_dir)
    assert run.manifest.request.strategies == (f"{file}:Mine",)
    assert [record.trial for record in run.records] == ["Mine-0-000", "Mine-0-001"]
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} < {"Mine-0-000", "Mine-0-001"}
    assert "Left unspent: Mine/0 " in told.stdout
    assert "since two are enough." in told.stdout
    page = (run_dir / "report.html").read_text()
    assert "since two are enough." in page
    assert "full trainings of the hand default: one costs" in page
