"""Whole runs through Ray Tune: equal budgets, and interrupted runs that end as if uninterrupted."""

import json
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from rfsearch.ledger import read_run
from rfsearch.ledger.record import TRIAL_COLUMNS
from tests.orchestration.runs import SAME, call, command, environment, wait_for_events
from tests.small_run import run_in_process
from tests.toys import toy_file

CALLBACKS = """
import json
from pathlib import Path
from ray import tune

NOTES = Path(__file__).with_name("notes.jsonl")


class Noting(tune.Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        said = {name: result.get(name) for name in ("val", "train_flop", "done")} | {"trial": trial.config["trial"]}
        with NOTES.open("a") as file:
            file.write(json.dumps(said) + chr(10))


class Raising(tune.Callback):
    def on_trial_start(self, iteration, trials, trial, **info):
        raise KeyError("mine")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run with one worker: three strategies, three trainings each."""
    root = tmp_path_factory.mktemp("whole")
    (root / "callbacks.py").write_text(CALLBACKS)
    told = call(
        "run", "--space", toy_file(root, budget="4x", steps=30), "--strategies", "exhaustive,optuna,inflation",
        "--track", root / "callbacks.py:Noting", "--track", root / "callbacks.py:Raising", "--out", root / "run",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    (root / "warned.txt").write_text(told.stderr)
    (root / "told.txt").write_text(told.stdout)
    return root / "run"


def test_a_run_writes_the_whole_run_directory_of_the_contract(whole):
    for name in ("manifest.json", "ledger.jsonl", "trials.csv", "anytime.csv", "pareto.csv", "report.html"):
        assert (whole / name).exists(), name
    assert not (whole / "ray").exists()  # Tune's own notes: all that is needed is in the ledger
    assert tuple(pd.read_csv(whole / "trials.csv").columns) == TRIAL_COLUMNS
    leaders = set(pd.read_csv(whole / "anytime.csv").groupby(["strategy", "seed"]).last().incumbent)
    assert {path.name for path in (whole / "checkpoints").iterdir()} == leaders


def test_callbacks_of_ray_see_plain_metrics_and_one_that_raises_is_switched_off(whole):
    noted = pd.read_json(whole.parent / "notes.jsonl", lines=True)
    trials = pd.read_csv(whole / "trials.csv").set_index("trial")
    ends = noted[noted.done].set_index("trial")
    assert set(ends.index) == set(trials.index)
    assert (ends.val.round(9) == trials.val.round(9)).all()
    assert (ends.train_flop == trials.train_flop).all()
    assert noted.groupby("trial").train_flop.is_monotonic_increasing.all()
    warned = (whole.parent / "warned.txt").read_text()
    assert warned.count("callbacks.py:Raising is switched off, the run goes on without it: KeyError: 'mine'") == 1


def test_arms_spend_the_same_budget(whole):
    run = read_run(whole)
    limit = run.manifest.budget.limit
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
    assert "overshoot" in told
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
    assert "measured after the search, when nothing else of it runs" in (whole / "report.html").read_text()


def test_the_ledger_holds_forecast_and_measurement(whole):
    for record in read_run(whole).records:
        assert record.forecast is not None
        if record.strategy != "inflation" and record.status == "completed":
            assert record.forecast.flop == record.cost.flop


@pytest.mark.timeout(1200)  # up to three starts of Ray
@pytest.mark.parametrize(
    "signals",
    [
        pytest.param(((signal.SIGINT, 6),), id="once"),
        pytest.param(
            ((signal.SIGINT, 6), (signal.SIGKILL, 10), (signal.SIGTERM, 15)), id="thrice", marks=pytest.mark.slow
        ),
    ],
)
def test_an_interrupted_run_ends_as_if_uninterrupted(whole, tmp_path, signals):
    run_dir = tmp_path / "run"
    words: tuple[object, ...] = (
        "run", "--space", toy_file(tmp_path, budget="4x", steps=30), "--strategies", "exhaustive,optuna,inflation",
        "--out", run_dir,
    )  # fmt: skip
    for how, events in signals:
        child = subprocess.Popen(
            command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
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
            (run_dir / "report.html").unlink()  # the next one writes its own
            assert not (run_dir / "ray").exists()
        words = ("resume", run_dir)
    run_in_process("resume", run_dir)
    expected = pd.read_csv(whole / "trials.csv")[SAME]
    assert pd.read_csv(run_dir / "trials.csv")[SAME].equals(expected)


def test_resuming_a_finished_run_says_so_and_changes_nothing(call, whole):
    before = (whole / "ledger.jsonl").read_bytes()
    (whole / "ray").mkdir()  # as an older version that was killed left it
    code, out, err = call("resume", whole)
    assert code == 0, err
    assert f"Nothing was left to train. Report: {whole / 'report.html'}" in out.splitlines()
    assert (whole / "ledger.jsonl").read_bytes() == before
    assert not (whole / "ray").exists()
    code, out, err = call("resume", whole, "--json")
    assert code == 0, err
    assert "Nothing was left to train" in err
    assert json.loads(out)["report"] == str(whole / "report.html")


@pytest.mark.parametrize(
    ("kills", "steps"),
    [
        pytest.param(2, 2, id="before a look"),
        pytest.param(5, 1, id="behind a look"),
    ],
)
@pytest.mark.slow
def test_what_a_lost_worker_did_is_charged_when_its_retry_succeeds(tmp_path, kills, steps):
    """A worker dies at one of 8 steps, which are looked at after the fourth; steps: lost since the last look.

    At the other dilation every worker dies, which fails that trial and no other.
    """
    trainings = {}
    for net in ("dying_net", "wei_small"):
        folder = tmp_path / net
        folder.mkdir()
        backbone = "wei-small" if net == "wei_small" else f"tests.toys:{net}"
        path = toy_file(folder, backbone, budget="7x", steps=8)
        text = path.read_text().replace("[1, 2, 4]", "[2, 4]").replace("reference = 1", "reference = 2")
        path.write_text(text.replace("rungs = 3", "rungs = 1"))
        words = ("run", "--space", path, "--strategies", "exhaustive", "--out", folder / "run")
        if net == "wei_small":
            run_in_process(*words)
        else:
            told = subprocess.run(
                command(*words), capture_output=True, text=True, timeout=300,
                env={**environment(), "TOY_STEPS": str(folder / "steps"), "TOY_DIED": str(folder / "died"),
                     "TOY_KILLS": str(kills)},
            )  # fmt: skip
            assert told.returncode == 0, told.stderr
        trainings[net] = {
            json.loads(record.candidate)["conv6"]["dilation"]: record
            for record in reversed(read_run(folder / "run").records)
        }
    assert (tmp_path / "dying_net" / "died").exists()
    assert trainings["dying_net"][4].status == "failed"
    assert "died" in trainings["dying_net"][4].cause
    assert trainings["dying_net"][2].status == trainings["wei_small"][2].status == "completed"
    lost, plain = (trainings[net][2].cost for net in trainings)
    assert lost.epochs - plain.epochs >= steps * 2 / 12
    forward = 2 * 2 * trainings["wei_small"][2].infer_mac  # FLOP of a batch of two
    assert lost.flop - plain.flop >= steps * 2.5 * forward
    assert lost.device_s > 0
