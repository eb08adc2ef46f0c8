"""Observers of a real run: what trackers and Optuna's own tools find in it, and that none can end it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import optuna
import pytest

from rfsearch.ledger import Cost, Record, read_run
from rfsearch.ledger.record import Rung
from rfsearch.observers import Observer, Watched
from rfsearch.observers.optuna_study import OptunaStudies
from rfsearch.observers.watching import Observers
from tests.calls import wrong
from tests.small_run import train_in_process
from tests.toys import toy_file

CANDIDATE = json.dumps({"conv6": {"dilation": 2}})
RANGES = {"dilation": (1, 8), "f": (0.25, 4.0)}


def a_record(trial: str, status: str = "completed", val: float | None = 0.5, **more: object) -> Record:
    rungs = (Rung(2, 0.2, {}, Cost(1e9, 1.0, 0.5)), Rung(4, 0.4, {}, Cost(2e9, 2.0, 1.0)))
    known = {"candidate": CANDIDATE, "rf_px": 31, "rf_init_px": 31, "cost": Cost(3e9, 3.0, 1.5), "rungs": rungs}
    return Record(trial, "exhaustive", 0, status, val=val, steps=6, **{**known, **more})


def a_run(folder: Path, **more: object) -> Watched:
    return Watched(folder, "Toy faces", "mean IoU", "maximize", [("exhaustive", 0), ("random", 1)], RANGES, **more)


class Broken(Observer):
    """Fails at its second record."""

    seen: ClassVar[list[str]] = []

    def __init__(self, watched: Watched) -> None:
        self.seen.clear()

    def finished(self, record: Record) -> None:
        self.seen.append(record.trial)
        if len(self.seen) == 2:
            raise ValueError("the server is gone")


class Unborn(Observer):
    def __init__(self, watched: Watched) -> None:
        raise SystemExit(3)

    def finished(self, record: Record) -> None: ...


def test_one_that_fails_is_named_and_the_others_go_on(tmp_path):
    said: list[str] = []
    spec = f"{__name__}:Broken"
    asked = Observers(("optuna-study", spec, f"{__name__}:Unborn"), a_run(tmp_path), said.append)
    for number in range(4):
        asked.take(a_record(f"t{number}"), running=False)
    asked.close()
    assert Broken.seen == ["t0", "t1"]
    assert len(said) == 2
    assert "tests.observers.test_observers:Unborn is switched off" in said[0]
    assert "Broken is switched off, the run goes on without it: ValueError: the server is gone" in said[1]
    (study,) = (s for s in studies(tmp_path) if s.study_name == "exhaustive/0")
    assert len(study.trials) == 4


def studies(run_dir: Path) -> list[optuna.Study]:
    storage = f"sqlite:///{run_dir / 'study.db'}"
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


def test_every_arm_is_a_study_with_the_states_of_its_trials(tmp_path):
    observer = OptunaStudies(a_run(tmp_path))
    fates = {"completed": 0.5, "pruned": 0.4, "cut": 0.3, "failed": None}
    for status, val in fates.items():
        observer.finished(a_record(status, status, val, cause="out of memory" if status == "failed" else ""))
    observer.finished(a_record("other", candidate=json.dumps({"conv6": {"dilation": 4}}), val=0.7))
    observer.close()
    first, second = studies(tmp_path)
    assert (first.study_name, second.study_name) == ("exhaustive/0", "random/1")
    assert second.trials == []
    states = {trial.user_attrs["trial"]: trial.state.name for trial in first.trials}
    assert states == {
        "completed": "COMPLETE",
        "pruned": "PRUNED",
        "cut": "PRUNED",
        "failed": "FAIL",
        "other": "COMPLETE",
    }
    assert first.best_trial.params == {"conv6.dilation": 4}
    assert {trial.distributions["conv6.dilation"].high for trial in first.trials} == {8}
    assert first.trials[1].intermediate_values == {2: 0.2, 4: 0.4}
    assert first.trials[3].user_attrs["cause"] == "out of memory"
    assert first.trials[0].user_attrs["train_flop"] == 3e9
    assert optuna.importance.get_param_importances(first) == {"conv6.dilation": 1.0}


def test_a_resumed_run_adds_what_is_missing_and_nothing_twice(tmp_path):
    first = OptunaStudies(a_run(tmp_path))
    first.finished(a_record("t0"))
    first.close()
    again = OptunaStudies(a_run(tmp_path, finished=(a_record("t0"), a_record("t1"))))
    again.finished(a_record("t2"))
    again.close()
    assert [trial.user_attrs["trial"] for trial in studies(tmp_path)[0].trials] == ["t0", "t1", "t2"]


def test_real_dilations_and_whole_ones_go_into_one_study(tmp_path):
    real = json.dumps({"conv6": {"kind": "fractional", "dilation": 3.5}})
    inflated = json.dumps({"conv6": {"dilation": 2, "f": 1.5, "learned": True}})
    observer = OptunaStudies(a_run(tmp_path))
    for number, candidate in enumerate((CANDIDATE, real, inflated)):
        observer.finished(a_record(f"t{number}", candidate=candidate))
    observer.close()
    asked = [trial.params for trial in studies(tmp_path)[0].trials]
    assert asked == [{"conv6.dilation": 2}, {"conv6.dilation (real)": 3.5}, {"conv6.dilation": 2, "conv6.f": 1.5}]


def test_a_run_is_followed_from_the_command_line(call, tmp_path, monkeypatch):
    """Its event files are read back by TensorBoard's own reader, its studies by Optuna."""
    train_in_process(monkeypatch)
    run_dir = tmp_path / "run"
    space = toy_file(tmp_path, budget="2x")
    code, *_ = call(
        "run", "--space", space, "--strategies", "exhaustive", "--out", run_dir,
        "--track", "tensorboard", "--track", f"{__name__}:Broken",
    )  # fmt: skip
    assert code == 0
    records = read_run(run_dir).records
    (study,) = studies(run_dir)
    assert {trial.user_attrs["trial"] for trial in study.trials} == {record.trial for record in records}
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record = next(record for record in records if record.rungs)
    events = event_accumulator.EventAccumulator(str(run_dir / "tensorboard" / record.trial))
    events.Reload()
    points = [(event.step, pytest.approx(event.value)) for event in events.Scalars("val")]
    assert points == [(rung.step, rung.val) for rung in record.rungs]
    assert events.Scalars("end/train_flop")[0].value == pytest.approx(record.cost.flop)
    assert "_hparams_/session_start_info" in events.summary_metadata
    report = event_accumulator.EventAccumulator(str(run_dir / "tensorboard" / "report"))
    report.Reload()
    assert "verdict/text_summary" in report.Tags()["tensors"]


def test_an_unknown_tracker_is_refused_before_anything_is_trained(call, tmp_path):
    run = ("run", "--space", "helen", "--out", tmp_path / "run", "--track")
    wrong(call(*run, "tensorbord"), "unknown observer 'tensorbord'", "'tensorboard'")
    wrong(call(*run, f"{__name__}:a_record"), "subclass of rfsearch.observers.Observer")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_mlflow_has_a_run_for_every_trial_under_that_of_the_search(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    follow(tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "Toy faces")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {tmp_path.name, "t0", "t1"}
    trial, search = runs["t0"], runs[tmp_path.name]
    assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
    assert trial.data.params["conv6.dilation"] == "2"
    assert [(m.step, m.value) for m in client.get_metric_history(trial.info.run_id, "val")] == [(2, 0.2), (4, 0.4)]
    assert trial.data.metrics["end/train_flop"] == 3e9
    assert runs["t1"].info.status == "FAILED"
    assert [file.path for file in client.list_artifacts(search.info.run_id)] == ["report.html"]


@pytest.mark.slow
def test_weights_and_biases_keeps_an_offline_run_for_every_trial(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    follow(tmp_path, "wandb")
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 3  # two trials and the page
    assert b"conv6.dilation" in b"".join(
        path.read_bytes() for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    )


def follow(folder: Path, name: str) -> None:
    """Show an observer two trials and a page."""
    said: list[str] = []
    asked = Observers((name,), a_run(folder, settings={"budget": "7x"}), said.append)
    for number, status in enumerate(("completed", "failed")):
        whole = a_record(f"t{number}", status, 0.5 if status == "completed" else None)
        for count in (1, 2):
            asked.take(a_record(f"t{number}", "pruned", rungs=whole.rungs[:count]), running=True)
        asked.take(whole, running=False)
    page = folder / "report.html"
    page.write_text("<p>found</p>")
    asked.end(page)
    asked.close()
    assert said == []


@pytest.mark.slow
def test_optuna_dashboard_opens_the_studies(tmp_path):
    pytest.importorskip("optuna_dashboard")
    observer = OptunaStudies(a_run(tmp_path))
    for number, dilation in enumerate((1, 2, 4, 8)):
        candidate = json.dumps({"conv6": {"dilation": dilation}})
        observer.finished(a_record(f"t{number}", val=0.1 * dilation, candidate=candidate))
    observer.close()
    with dashboard(tmp_path) as ask:
        found = {study["study_name"]: study for study in ask("studies")["study_summaries"]}
        assert set(found) == {"exhaustive/0", "random/1"}
        number = found["exhaustive/0"]["study_id"]
        assert len(ask(f"studies/{number}?after=0")["trials"]) == 4
        (importances,) = ask(f"studies/{number}/param_importances")["param_importances"]
        assert [(each["name"], each["importance"]) for each in importances] == [("conv6.dilation", 1.0)]


@contextmanager
def dashboard(folder: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [f"sqlite:///{folder / 'study.db'}", "--port", str(port)]
    code = "from optuna_dashboard._cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )

    def ask(what: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{what}", timeout=30) as answer:
            return json.load(answer)

    try:
        for _ in range(120):
            try:
                ask("studies")
                break
            except OSError:
                time.sleep(0.5)
        yield ask
    finally:
        server.terminate()
        server.wait()
