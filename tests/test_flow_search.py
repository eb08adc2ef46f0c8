"""Searches on optical flow from beginning to end: every strategy, plan, report, resume, rf, export, exact costs."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from rfsearch.choices import Dilated, Sampled
from rfsearch.data.rendered_motions import rendered_motions
from rfsearch.errors import SpaceError
from rfsearch.ledger import Assignment, read_run
from rfsearch.networks import trained
from rfsearch.planning.forecaster import Forecaster
from rfsearch.space import Space, read_space
from rfsearch.tasks.from_space import task_of
from rfsearch.training import Order, Training
from rfsearch.training.loop import TrainingLoop
from tests.flow_folders import write_chairs
from tests.small_run import run_in_process, train_in_process

CPU = torch.device("cpu")
TOY = """\
name = "toy-flow"
title = "Toy motions"

[task]
name = "flow"
loss = "multi-scale"
scale_weights = [1, 2]

[data]
default = "rendered-motions"
layout = "chairs"
rendered = [6, 4, 4]

[presets.mini]
backbone = "flownet-c-small"
sites = ["conv4_1.conv"]
dilations = [1, 2]
reference = 1
image_size = [64, 64]
budget = "5x"
sampling = { gammas = [1.0, 2.0], regions = [3], features = 4, channels = 2 }

[presets.mini.recipe]
steps = 4
batch_size = 2
optimizer = "adamw"
lr = 0.001
scale = [0.9, 1.2]
shift = 0.1
rungs = 1
rung_images = 2
eval_batch_size = 4
"""
STRATEGIES = ["exhaustive", "random", "optuna", "inflation", "lsdfn", "fractional"]
FEW = ["exhaustive", "lsdfn"]


def toy_flow(folder: Path, **recipe: object) -> Space:
    (folder / "toy.toml").write_text(TOY)
    space = read_space(folder / "toy.toml", None)
    return space.with_(recipe=space.recipe.model_copy(update=recipe))


def run_of(folder: Path, strategies: list[str], *more: str) -> Path:
    toy_flow(folder)
    words = "--space", folder / "toy.toml", "--strategies", ",".join(strategies), "--out", folder / "run"
    run_in_process("run", *words, *more)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("flow"), FEW)


@pytest.mark.slow
def test_every_strategy_completes_trials_on_flow(tmp_path):
    records = read_run(run_of(tmp_path, STRATEGIES, "--budget", "12x")).records
    assert {record.strategy for record in records if record.status == "completed"} >= set(STRATEGIES)
    assert not [record.cause for record in records if record.status == "failed"]


def test_trials_have_the_scores_of_flow(run):
    records = read_run(run).records
    assert {record.strategy for record in records if record.status == "completed"} == set(FEW)
    for record in records:
        if record.status == "completed":
            assert record.scores["aepe"] == record.test
            assert {"fl_all", "aepe_0_10"} <= record.scores.keys()


def test_the_lower_error_leads(run):
    table = pd.read_csv(run / "anytime.csv")
    for _, arm in table.groupby(["strategy", "seed"]):
        assert arm.val.dropna().is_monotonic_decreasing


def test_the_page_holds_fields_against_displacements_and_shows_flow(run):
    page = (run / "report.html").read_text()
    assert "aepe" in page
    assert "to the left" in page
    assert "mean end-point error" in page
    assert "displacements that are no longer" in page


def test_a_run_that_has_ended_can_be_resumed_and_reported(run, call, tmp_path, monkeypatch):
    """Half of its ledger is taken away: resumed, it ends as it did."""
    again = tmp_path / "run"
    shutil.copytree(run, again)
    whole = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
    (again / "ledger.jsonl").write_text("".join(whole[: len(whole) // 2]))
    train_in_process(monkeypatch)
    code, _, err = call("resume", str(again))
    assert code == 0, err
    ends = [
        sorted((r.strategy, r.candidate, r.status, r.cost.flop, r.val) for r in read_run(place).records)
        for place in (run, again)
    ]
    assert ends[0] == ends[1]


def test_the_plan_and_rf_hold_fields_against_displacements(call, tmp_path):
    toy_flow(tmp_path)
    code, out, err = call("plan", "--space", str(tmp_path / "toy.toml"), "--strategies", "exhaustive", "--json")
    assert code == 0, err
    assert {row["objects"] for row in json.loads(out)["candidates"]} == {1.0}
    words = "rf", "flownet-s-small", "--space", str(tmp_path / "toy.toml"), "--no-effective", "--json"
    code, out, err = call(*words, "--out", str(tmp_path / "rf"))
    assert code == 0, err
    assert json.loads(out)["larger"] == []
    assert "up to 10 px" in json.loads(out)["objects"]


def test_its_winner_is_exported_in_every_form(run, call, tmp_path):
    code, out, err = call("export", str(run), "--out", str(tmp_path / "out"), "--json")
    assert code == 0, out + err
    forms = {form["name"]: form for form in json.loads(out)["forms"]}
    assert set(forms) == {"state dict", "program", "onnx"}
    for form in forms.values():
        assert not form["failed"], form
        assert form["difference"] <= 1e-4
    net = trained(run)
    with torch.no_grad():
        assert net(torch.zeros(1, 6, 64, 64))[0].shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("backbone", "choice"), [("flownet-c-small", Dilated(2)), ("flownet-s-lsdfn-small", Sampled(1, 1.5, 3))], ids=str
)
def test_a_training_costs_what_was_forecast_to_the_last_flop(backbone, choice, tmp_path):
    space = toy_flow(tmp_path).with_(backbone=backbone)
    data = rendered_motions(6, 4, 4, (96, 96))
    candidate = space.uniform(choice)
    assignment = Assignment("t-0-000", "exhaustive", 0, candidate.to_json(), 7, 1e18)
    work = Training(space, data, Order(assignment, "flop", CPU, tmp_path / "t"))
    while (record := work.advance()).status == "pruned":
        pass
    expected = Forecaster(space, task_of(space, data), data, CPU, flop_per_s=1e9)(candidate)
    assert record.status == "completed", record.cause
    assert record.cost.flop == expected.cost.flop
    assert record.rf_px == expected.rf_px


def test_windows_of_chairs_are_trained_on(tmp_path):
    """Images from files, a window of each in a step, whole ones scored."""
    space = toy_flow(tmp_path, crop=(32, 48))
    data = space.data.folder_layout.read(write_chairs(tmp_path / "chairs"), None)
    loop = TrainingLoop(space, data, space.uniform(Dilated(1)), seed=0, device=CPU)
    assert loop.train_step(0) > 0
    scores = task_of(space, data).evaluate(loop.model.eval(), data.splits["test"], 4, CPU)
    assert scores.primary > 0


def test_a_task_of_classes_refuses_pairs_and_flow_refuses_labels(call, tmp_path):
    (tmp_path / "toy.toml").write_text(TOY.replace("rendered-motions", "rendered-faces"))
    code, _, err = call("plan", "--space", str(tmp_path / "toy.toml"))
    assert code == 2
    assert "flow needs a displacement for each pixel" in " ".join(err.split())
    (tmp_path / "bad.toml").write_text(TOY.replace("scale_weights = [1, 2]", "scale_weights = [0]"))
    with pytest.raises(SpaceError, match=r"line 7, task\.scale_weights: weights are numbers of at least 0"):
        read_space(tmp_path / "bad.toml", None)
