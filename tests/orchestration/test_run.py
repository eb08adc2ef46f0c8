"""Whole runs through Ray Tune: equal budgets, faults survived, and interrupted runs that end as if uninterrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rfsearch.data import Split, eval_batches
from rfsearch.errors import RunDirectoryError
from rfsearch.ledger import read_run
from rfsearch.ledger.record import TRIAL_COLUMNS
from rfsearch.run import trained
from tests.disks import fill, small_disk
from tests.toys import toy_file

ROOT = Path(__file__).resolve().parents[2]
SAME = ["trial", "candidate", "seed", "status", "train_flop"]


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from rfsearch.cli import main; main()", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def call(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=environment(), timeout=300)


def one_worker() -> list[object]:
    """Options that leave room for a single trial at a time."""
    return ["--cpus-per-trial", len(os.sched_getaffinity(0))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run with one worker: three strategies, three trainings each."""
    root = tmp_path_factory.mktemp("whole")
    told = call(
        "run", "--space", toy_file(root, budget="4x", steps=30), "--strategies", "exhaustive,optuna,inflation",
        "--out", root / "run", *one_worker(),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    (root / "told.txt").write_text(told.stdout)
    return root / "run"


def test_a_run_leaves_the_whole_directory_of_the_contract(whole):
    for name in ("manifest.json", "ledger.jsonl", "trials.csv", "anytime.csv", "pareto.csv", "report.html"):
        assert (whole / name).exists(), name
    assert not (whole / "ray").exists()  # Tune's own notes: all that is needed is in the ledger
    assert tuple(pd.read_csv(whole / "trials.csv").columns) == TRIAL_COLUMNS
    leaders = set(pd.read_csv(whole / "anytime.csv").groupby(["strategy", "seed"]).last().incumbent)
    assert {path.name for path in (whole / "checkpoints").iterdir()} == leaders


def test_arms_spend_the_same_budget(whole):
    run = read_run(whole)
    limit = run.manifest["budget"]["limit"]
    spent = pd.read_csv(whole / "trials.csv").groupby("strategy").train_flop.sum()
    assert set(spent.index) == {"exhaustive", "optuna", "inflation"}
    assert ((spent / limit - 1).abs() < 0.05).all()
    assert (spent <= limit).all()


def test_the_manifest_says_what_ran(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["data"]["rendered"] is True
    assert {"torch", "ray", "optuna"} <= set(manifest["versions"])
    assert len(manifest["forecast"]) == 6
    assert manifest["space"]["primary"] == "f_classmean_pooled"


def test_the_terminal_says_what_was_found_and_that_faces_are_rendered(whole):
    told = (whole.parent / "told.txt").read_text()
    assert "rendered" in told
    assert "over budget" in told
    assert "report.html" in told
    assert "[" not in told.splitlines()[0]  # no markup left over


def test_latency_is_measured_after_the_run_once_for_each_shape_of_network(whole):
    records = [r for r in read_run(whole).records if r.scored]
    assert all(r.infer_latency_spread_ms is not None for r in records)
    plain: dict[str, set[float]] = {}
    for r in records:
        if r.strategy == "exhaustive":
            plain.setdefault(r.candidate, set()).add(r.infer_latency_ms)
    assert all(len(latencies) == 1 for latencies in plain.values())
    kinds = [json.loads(line)["event"] for line in (whole / "ledger.jsonl").read_text().splitlines()]
    assert kinds.index("latency") > max(i for i, kind in enumerate(kinds) if kind == "finish")
    assert "measured after the search with nothing else running" in (whole / "report.html").read_text()


def test_forecast_and_measurement_stand_side_by_side_in_the_ledger(whole):
    for record in read_run(whole).records:
        assert record.forecast is not None
        if record.strategy != "inflation" and record.status == "completed":
            assert record.forecast.flop == record.cost.flop


def wait_for_events(run_dir: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    ledger = run_dir / "ledger.jsonl"
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and child.poll() is None:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended (code {child.poll()}) before {count} ledger events")


@pytest.mark.parametrize(("how", "events"), [(signal.SIGINT, 6), (signal.SIGTERM, 13), (signal.SIGKILL, 9)])
def test_interrupted_and_resumed_it_ends_as_if_uninterrupted(whole, tmp_path, how, events):
    run_dir = tmp_path / "run"
    child = subprocess.Popen(
        command("run", "--space", toy_file(tmp_path, budget="4x", steps=30), "--strategies",
                "exhaustive,optuna,inflation", "--out", run_dir, *one_worker()),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        wait_for_events(run_dir, events, child)
        child.send_signal(how)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    if how != signal.SIGKILL:
        assert child.returncode == 130
        assert f"rfsearch resume {run_dir}" in err.decode()
        assert (run_dir / "report.html").exists()
        assert not (run_dir / "ray").exists()
    told = call("resume", run_dir)
    assert told.returncode == 0, told.stderr
    expected = pd.read_csv(whole / "trials.csv")[SAME]
    assert pd.read_csv(run_dir / "trials.csv")[SAME].equals(expected)


def test_resuming_a_finished_run_says_so_and_changes_nothing(whole):
    before = (whole / "ledger.jsonl").read_bytes()
    (whole / "ray").mkdir()  # as a process that was killed leaves it
    told = call("resume", whole)
    assert told.returncode == 0, told.stderr
    assert f"Nothing was left to train. Report: {whole / 'report.html'}" in told.stdout.splitlines()
    assert (whole / "ledger.jsonl").read_bytes() == before
    assert not (whole / "ray").exists()
    told = call("resume", whole, "--json")
    assert "Nothing was left to train" in told.stderr
    assert json.loads(told.stdout)["report"] == str(whole / "report.html")


def test_a_disk_that_fills_up_stops_the_run_which_goes_on_once_there_is_room(whole, tmp_path):
    with small_disk(tmp_path / "disk", "80m") as disk:
        run_dir, errors = disk / "run", tmp_path / "errors.txt"
        with errors.open("wb") as file:
            child = subprocess.Popen(
                command("run", "--space", toy_file(tmp_path, budget="4x", steps=30), "--strategies",
                        "exhaustive,optuna,inflation", "--out", run_dir, *one_worker()),
                stdout=subprocess.DEVNULL, stderr=file, env=environment(),
            )  # fmt: skip
        try:
            wait_for_events(run_dir, 5, child)
            ballast = fill(disk)
            assert child.wait(timeout=120) == 2
        finally:
            child.kill()
        err = errors.read_text()
        # Ray may log what of its own it could not write; the last lines are ours.
        assert "No space left on device" in err
        assert f"rfsearch resume {run_dir}" in err
        assert not any(record.status == "failed" for record in read_run(run_dir).records)
        ballast.unlink()
        told = call("resume", run_dir)
        assert told.returncode == 0, told.stderr
        assert pd.read_csv(run_dir / "trials.csv")[SAME].equals(pd.read_csv(whole / "trials.csv")[SAME])


@pytest.mark.parametrize(("net", "cause"), [("nan_net", "nan"), ("hungry_net", "out of memory"), ("dying_net", "died")])
def test_a_fault_in_one_trial_fails_that_trial_and_the_run_goes_on(tmp_path, net, cause):
    told = call(
        "run", "--space", toy_file(tmp_path, f"tests.toys:{net}", budget="4x", steps=30), "--strategies", "exhaustive",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    table = pd.read_csv(tmp_path / "run" / "trials.csv")
    failed = table[table.status == "failed"]
    assert len(failed) >= 1
    assert failed.candidate.str.contains('"dilation": 2').all()
    assert failed.cause.str.contains(cause).all()
    assert (table.status == "completed").sum() >= 2


@pytest.mark.parametrize(("kills", "steps"), [(2, 2), (5, 1)], ids=["before a look", "behind a look"])
def test_what_a_lost_worker_did_is_charged_when_its_retry_succeeds(tmp_path, kills, steps):
    """A worker dies at one of 8 steps, which are looked at after the fourth; steps: lost since the last look."""
    trainings, costs = {}, {}
    for net in ("once_dying_net", "wei_small"):
        folder = tmp_path / net
        folder.mkdir()
        backbone = "wei-small" if net == "wei_small" else f"tests.toys:{net}"
        path = toy_file(folder, backbone, budget="3x", steps=8)
        text = path.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2")
        path.write_text(text.replace("rungs = 3", "rungs = 1"))
        told = subprocess.run(
            command("run", "--space", path, "--strategies", "exhaustive", "--out", folder / "run", *one_worker()),
            capture_output=True, text=True, timeout=300,
            env={**environment(), "TOY_STEPS": str(folder / "steps"), "TOY_DIED": str(folder / "died"),
                 "TOY_KILLS": str(kills)},
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        trainings[net] = read_run(folder / "run").records[0]
        costs[net] = trainings[net].cost
    lost, plain = costs["once_dying_net"], costs["wei_small"]
    assert (tmp_path / "once_dying_net" / "died").exists()
    assert trainings["once_dying_net"].status == trainings["wei_small"].status == "completed"
    assert lost.epochs - plain.epochs >= steps * 2 / 12
    forward = 2 * 2 * trainings["wei_small"].infer_mac  # FLOP of a batch of two
    assert lost.flop - plain.flop >= steps * 2.5 * forward
    assert lost.device_s > 0


def test_a_run_in_which_nothing_succeeds_says_so_with_exit_code_one(tmp_path):
    path = toy_file(tmp_path, "tests.toys:nan_net", steps=12)
    path.write_text(path.read_text().replace("[1, 2, 4]", "[2]").replace("reference = 1", "reference = 2"))
    told = call("run", "--space", path, "--strategies", "exhaustive", "--out", tmp_path / "run", "--json")
    assert told.returncode == 1, told.stderr
    assert "Traceback" not in told.stderr
    body = json.loads(told.stdout)
    assert body["verdict"]["best"] is None
    assert body["arms"][0]["trials"] >= 1


FORMS = ["--strategies", "inflation@bi,exhaustive@tri,optuna@lsdfn,lsdfn"]


def forms_file(folder: Path) -> Path:
    """A toy space whose maps of 12 x 12 px hold its parallel paths and its sample strides."""
    path = toy_file(folder, budget="4x", steps=16)
    text = path.read_text().replace("reference = 1", "reference = 1\nsampling = { gammas = [1.0, 2.0], features = 8 }")
    path.write_text(
        text
        + """
[paths.bi]
manual = [1, 4]
labels = [["left eye", "right eye"], []]

[paths.tri]
manual = [1, 2, 4]
"""
    )
    return path


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> Path:
    """An uninterrupted run with one worker over parallel paths and LS-DFN."""
    root = tmp_path_factory.mktemp("forms")
    told = call("run", "--space", forms_file(root), *FORMS, "--out", root / "run", *one_worker())
    assert told.returncode == 0, told.stderr
    return root / "run"


def test_paths_and_blocks_interrupted_and_resumed_end_as_if_uninterrupted(forms, tmp_path):
    run_dir = tmp_path / "run"
    child = subprocess.Popen(
        command("run", "--space", forms_file(tmp_path), *FORMS, "--out", run_dir, *one_worker()),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        wait_for_events(run_dir, 4, child)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
    finally:
        child.kill()
    assert call("resume", run_dir).returncode == 0
    expected = pd.read_csv(forms / "trials.csv")[[*SAME, "f", "gamma", "rf_px"]]
    assert pd.read_csv(run_dir / "trials.csv")[[*SAME, "f", "gamma", "rf_px"]].equals(expected)


def test_arms_of_every_form_spend_the_same_budget(forms):
    limit = read_run(forms).manifest["budget"]["limit"]
    spent = pd.read_csv(forms / "trials.csv").groupby("strategy").train_flop.sum()
    assert set(spent.index) == {"inflation@bi", "exhaustive@tri", "optuna@lsdfn", "lsdfn"}
    assert ((spent / limit - 1).abs() < 0.1).all()


def test_the_page_tells_of_every_path(forms):
    page = (forms / "report.html").read_text()
    guided = next(r for r in read_run(forms).records if r.strategy == "inflation@bi" and r.status == "completed")
    assert "left eye, right eye | \u2013" in page
    assert " | ".join(f"{px:,}" for px in guided.path_rf_px.values()) in page
    assert " | ".join(f"{f:.3f}" for f in guided.f.values()) in page


def test_every_leader_is_had_back_as_it_was_trained(forms):
    """The network of a run predicts what its trial had predicted, whatever its form."""
    leaders = sorted((forms / "checkpoints").iterdir())
    assert len(leaders) == 4
    for leader in leaders:
        held = np.load(leader / "examples.npz")
        shown = Split(held["images"], held["truth"], tuple(map(str, range(len(held["images"])))))
        images, _ = next(eval_batches(shown, len(shown)))
        with torch.no_grad():
            predicted = trained(forms, leader.name)(images).argmax(1)
        assert (predicted.numpy() == held["prediction"]).mean() > 0.999
    with pytest.raises(RunDirectoryError, match="no checkpoint of trial 'lsdfn-0-99' is kept. Did you mean 'lsdfn-0"):
        trained(forms, "lsdfn-0-99")


OWN = """
from rfsearch.space import Choice
from rfsearch.strategies import Exhausted

class Mine:
    def __init__(self, space, seed):
        self.space, self.told = space, 0

    def suggest(self, pending):
        if self.told == 2:
            return Exhausted("two are enough")
        return self.space.uniform(Choice(self.told + 1))

    def observe(self, record):
        self.told += 1
        {fault}
"""


def test_an_own_strategy_that_fails_is_mended_and_the_run_resumed_from_another_folder(tmp_path):
    file, run_dir = tmp_path / "own.py", tmp_path / "run"
    file.write_text(OWN.format(fault="raise KeyError('loss')"))
    options = ["--space", toy_file(tmp_path, budget="4x"), "--out", run_dir, *one_worker()]
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
    assert run.manifest["request"]["strategies"] == [f"{file}:Mine"]
    assert [record.trial for record in run.records] == ["Mine-0-000", "Mine-0-001"]
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} < {"Mine-0-000", "Mine-0-001"}
    assert "Left unspent: Mine/0 " in told.stdout
    assert "since two are enough." in told.stdout
    page = (run_dir / "report.html").read_text()
    assert "since two are enough." in page
    assert "full trainings of the hand default: one costs" in page
