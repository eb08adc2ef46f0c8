"""Costs that depend on what a network sees: forecast from real steps, metered as they run, and kept within limits."""

from pathlib import Path

import pytest
import torch
from torchvision import ops

from rfsearch import plugins
from rfsearch.choices import Dilated
from rfsearch.data import ImageSet
from rfsearch.data.box_rows import PROPOSAL
from rfsearch.data.rendered_objects import rendered_objects
from rfsearch.ledger import Assignment
from rfsearch.planning.forecaster import Forecaster
from rfsearch.space import Space, read_space
from rfsearch.tasks.detection import Detection
from rfsearch.tasks.from_space import task_of
from rfsearch.training import Order, Training
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.meter import Meter

CPU = torch.device("cpu")
KEYS = Detection.Keys(proposals=8, proposal_steps=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ImageSet:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache / "user"))
        return Detection.prepare(KEYS, rendered_objects(6, 5, 4, (48, 48)), cache / "run")


@pytest.fixture(scope="module")
def space() -> Space:
    read = read_space(plugins.space_file("objects"), "mini")
    recipe = read.recipe.model_copy(update={"steps": 4, "batch_size": 2, "warmup": 0, "rungs": 1, "rung_images": 5})
    task = read.task.model_copy(update={"proposals": 8, "proposal_steps": 2})
    return read.with_(recipe=recipe, task=task, dilations=(1, 2), image_size=(48, 48))


def test_regions_are_proposed_once_for_all_images_and_said_to_be_charged_to_no_arm(data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert "trained once for 2 steps on the training images" in data.notice
    assert "charged to no arm" in data.notice
    for split in data.splits.values():
        assert ((split.targets[..., 4] == PROPOSAL).sum(axis=1) <= 8).all()
        assert (split.targets[..., 4] == PROPOSAL).any()
    plain = rendered_objects(6, 5, 4, (48, 48))
    again = Detection.prepare(KEYS, plain, tmp_path / "run")  # nothing is cached here: it is trained again, alike
    assert again.fingerprint() == data.fingerprint()
    assert again.fingerprint() != plain.fingerprint()
    monkeypatch.setattr("rfsearch.tasks.proposals._proposed", None)  # from here on, only what is kept
    assert Detection.prepare(KEYS, plain, tmp_path / "other run").fingerprint() == data.fingerprint()
    assert [file.suffix for file in (tmp_path / "other run").iterdir()] == [".npz"]


def test_a_forecast_is_that_of_real_steps_and_the_same_every_time(data, space, monkeypatch):
    monkeypatch.setattr("rfsearch.backbones.regions.LEAST_SCORE", 0.2)  # about half of them: the weights decide which
    task, candidate = task_of(space, data), space.reference_candidate
    forecasts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        forecasts.append(Forecaster(space, task, data, CPU, flop_per_s=1e9)(candidate))
        assert torch.equal(torch.get_rng_state(), before)
    assert forecasts[0] == forecasts[1]
    loop = TrainingLoop(space, data, candidate, 0, CPU)
    steps = [loop.train_step(step) for step in range(4)]
    assert forecasts[0].step.flop == pytest.approx(sum(steps) / 4, rel=0.05)


def test_a_training_is_charged_for_its_regions_and_ends_within_its_limit(data, space, tmp_path: Path):
    candidate = space.uniform(Dilated(2)).to_json()
    whole = Training(space, data, Order(Assignment("a", "x", 0, candidate, 7, 1e18), "flop", CPU, tmp_path / "a"))
    while (record := whole.advance()).status == "pruned":
        pass
    assert record.status == "completed", record.cause
    forecast = Forecaster(space, task_of(space, data), data, CPU, flop_per_s=1e9)(space.uniform(Dilated(2)))
    assert record.cost.flop == pytest.approx(forecast.cost.flop, rel=0.1)
    assert record.infer_mac is not None
    assert record.infer_mac > 0
    limit = 0.8 * record.cost.flop
    short = Training(space, data, Order(Assignment("b", "x", 0, candidate, 7, limit), "flop", CPU, tmp_path / "b"))
    while (cut := short.advance()).status == "pruned":
        pass
    assert cut.status == "cut"
    assert cut.cost.flop <= 1.02 * limit


def test_scoring_is_charged_for_what_is_made_of_the_regions(data, space):
    loop = TrainingLoop(space, data, space.reference_candidate, 0, CPU)
    loop.model.eval()
    with Meter(memory=False) as meter, torch.no_grad():
        loop.model(torch.zeros(1, 3, 48, 48))  # without regions
    assert loop.evaluation.cost(1).flop > meter.flop


def metered(call):
    with Meter(memory=False) as meter:
        call()
    return meter.flop


def test_operators_on_regions_are_counted_by_hand():
    boxes = torch.tensor([[0.0, 0, 8, 8], [1, 1, 9, 9], [20, 20, 30, 30]])
    assert metered(lambda: ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)) == 11 * 3  # three pairs
    plane = torch.rand(1, 4 * 9, 12, 12, requires_grad=True)
    values = 3 * 4 * 9  # regions, channels behind, bins
    samples = 4 * (11 + 1)
    pooled = ops.ps_roi_align(plane, [boxes], 3, 0.25, 2)
    assert metered(lambda: ops.ps_roi_align(plane, [boxes], 3, 0.25, 2)) == samples * values
    assert metered(lambda: ops.ps_roi_pool(plane, [boxes], 3, 0.25)) == 4 * values
    assert metered(lambda: ops.roi_align(plane[:, :4], [boxes], 3, 0.25, 2)) == samples * values
    gradient = torch.ones_like(pooled)
    flop = metered(lambda: torch.autograd.grad(pooled, plane, gradient))
    assert samples * values <= flop <= samples * values + plane.numel()
