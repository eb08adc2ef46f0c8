"""Training with a layer in a convolution's place: it is let change, told of, charged, and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, Guest
from rfsearch.export import patch_of
from rfsearch.ledger import Record
from rfsearch.planning.forecaster import Forecaster
from rfsearch.space import Space
from rfsearch.tasks.from_space import task_of
from rfsearch.training import checkpoint, settings_of
from rfsearch.training.loop import TrainingLoop
from tests.toys import CLIMBING
from tests.training.test_training import CPU, DATA, finished, toy_space, training

CHOICE = Guest(2, CLIMBING)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return toy_space(tmp_path)


def test_what_it_finds_is_the_records_and_the_trace_shows_how(space: Space, tmp_path: Path) -> None:
    record = finished(training(space, CHOICE, tmp_path))
    assert record.status == "completed"
    assert (record.f, record.found["conv6"].found) == ({}, 4)
    assert Candidate.from_json(record.outcome) == space.uniform(Guest(2, CLIMBING, found=4.0))
    # 8 steps, the fifth at the next dilation
    assert [dilation for _, _, dilation in record.trace] == [2.0] * 5 + [4.0] * 4
    expected = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)
    assert (record.rf_init_px, record.rf_px) == tuple(expected(space.uniform(Dilated(d))).rf_px for d in (2, 4))


def test_a_step_is_metered_again_when_the_layers_work_changes(space: Space) -> None:
    loop, anew = (TrainingLoop(space, DATA, space.uniform(CHOICE), 0, CPU) for _ in range(2))
    seen = []
    for step in range(space.recipe.steps):
        seen.append(loop.train_step(step))
        assert anew.train_step(step) == seen[-1]
        anew._costs._step.clear()  # so that every step is metered
    assert len(set(seen[:4])) == len(set(seen[4:])) == 1
    assert seen[0] > 1.1 * seen[-1]


def test_scoring_costs_what_the_layer_is_now(space: Space) -> None:
    loop = TrainingLoop(space, DATA, space.uniform(CHOICE), 0, CPU)
    before = loop.evaluation.cost(1).flop
    loop.train_step(space.recipe.steps - 1)
    plain = TrainingLoop(space, DATA, space.uniform(Dilated(4)), 0, CPU).evaluation.cost(1).flop
    assert before > loop.evaluation.cost(1).flop == plain


def test_what_it_does_between_steps_is_charged(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.toys.Climbing.advance", lambda self, step, steps: self.conv.weight * 1)
    loop = TrainingLoop(space, DATA, space.uniform(CHOICE), 0, CPU)
    with_it = loop.train_step(0)
    monkeypatch.setattr("tests.toys.Climbing.advance", lambda self, step, steps: None)
    assert with_it == loop.train_step(1) + loop.model.get_submodule("conv6").conv.weight.numel()


def test_weight_decay_leaves_what_the_layer_says_alone(tmp_path: Path) -> None:
    space = toy_space(tmp_path, weight_decay=1.0, momentum=0.0)
    loop = TrainingLoop(space, DATA, space.uniform(CHOICE), 0, CPU)
    layer = loop.model.get_submodule("conv6")
    before = layer.share.item()  # both shares see the same map, so no loss moves it
    weight = layer.conv.weight.detach().clone()
    loop.train_step(0)
    assert layer.share.item() == pytest.approx(before, abs=1e-6)
    assert not torch.equal(layer.conv.weight, weight)


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_resumed_it_ends_as_if_never_stopped(space: Space, tmp_path: Path, looks: int) -> None:
    def timeless(record: Record) -> Record:
        rungs = tuple(replace(rung, cost=replace(rung.cost, device_s=0)) for rung in record.rungs)
        cost = replace(record.cost, device_s=0)
        return replace(record, cost=cost, rungs=rungs, infer_latency_ms=None, train_peak_bytes=None)

    whole = finished(training(space, CHOICE, tmp_path / "whole"))
    first = training(space, CHOICE, tmp_path / "half")
    for _ in range(looks):
        first.advance()
    assert timeless(finished(training(space, CHOICE, tmp_path / "half"))) == timeless(whole)


def test_a_checkpoint_of_schema_1_goes_on_with_dilations_in_its_trace(space: Space, tmp_path: Path) -> None:
    whole = finished(training(space, CHOICE, tmp_path / "whole"))
    first = training(space, CHOICE, tmp_path / "half")
    first.advance()
    (file,) = tmp_path.glob("half/*/progress.pt")
    state = torch.load(file, weights_only=True)
    del state["schema"]
    state["trace"] = [(step, path, CHOICE.dilation / value) for step, path, value in state["trace"]]
    state["rungs"] = [{**rung, "f": {"conv6": 1.0}} for rung in state["rungs"]]
    checkpoint.save(state, file)
    record = finished(training(space, CHOICE, tmp_path / "half"))
    assert record.trace == whole.trace
    assert [rung.f for rung in record.rungs] == [rung.f for rung in whole.rungs]


def test_an_exported_winner_keeps_its_layer_from_where_it_started(space: Space, tmp_path: Path) -> None:
    record = finished(training(space, CHOICE, tmp_path))
    patch = patch_of(space.backbone, settings_of(space, DATA.classes), record)
    assert patch.candidate == space.uniform(Guest(2, CLIMBING, found=4.0))
    assert patch.settings.dilations == space.dilations
    state = torch.load(tmp_path / "t" / "model.pt", weights_only=True)["model"]
    model = patch.install(plugins.make_backbone(space.backbone, DATA.num_classes, 3))
    model.load_state_dict(state)
    assert model.get_submodule("conv6").dilation == 4.0
