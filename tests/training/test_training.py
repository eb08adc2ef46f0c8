"""One training: its cost as forecast, its limit kept, resumed as if never stopped, and faults turned into records."""

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Moved, Sampled, Searched, SitePath
from rfsearch.data.batches import normalised_images
from rfsearch.data.image_set import evenly
from rfsearch.ledger import Assignment, Record
from rfsearch.planning.forecaster import Forecaster
from rfsearch.space import Space
from rfsearch.tasks.colours import coloured
from rfsearch.tasks.from_space import task_of
from rfsearch.training import Order, Training, build_network
from rfsearch.training.loop import TrainingLoop
from tests.toys import toy_faces, toy_space

CPU = torch.device("cpu")
DATA = toy_faces()


EYES = ("left eye", "right eye", "left eyebrow", "right eyebrow")
# Fixed: two different paths; three, one of them guided; blocks at a whole and another stride, and without neighbours.
PATHS = [Dilated(1), Inflated(2, 1.37)]
GUIDED = [SitePath(Dilated(2), EYES), Dilated(2), Inflated(4, 0.8)]
BLOCKS = [Sampled(1, gamma, s) for gamma, s in ((2.0, 3), (1.5, 3), (1.0, 1))]
LEARNED_PATHS = [SitePath(Inflated(2, learned=True), EYES), Inflated(2, learned=True)]
LEARNED_BLOCK = Sampled(1, 2.0, 3, learned=True)


def assignment(space: Space, choice: Choice | list[Choice], limit: float = 1e18) -> Assignment:
    return Assignment("t-0-000", "exhaustive", 0, space.uniform(choice).to_json(), 7, limit)


def training(
    space: Space, choice: Choice | list[Choice], folder: Path, limit: float = 1e18, currency: str = "flop"
) -> Training:
    return Training(space, DATA, Order(assignment(space, choice, limit), currency, CPU, folder / "t"))


def finished(work: Training) -> Record:
    while (record := work.advance()).status == "pruned":
        pass
    return record


@pytest.fixture
def space(tmp_path):
    return toy_space(tmp_path)


@pytest.mark.parametrize("choice", [Dilated(1), Dilated(4), Inflated(2, 1.37), PATHS, GUIDED, *BLOCKS])
def test_its_cost_is_the_forecast_to_the_last_flop(space, tmp_path, choice):
    record = finished(training(space, choice, tmp_path))
    expected = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)(space.uniform(choice))
    assert record.status == "completed"
    assert (record.cost.flop, record.cost.epochs) == (expected.cost.flop, expected.cost.epochs)
    assert record.rf_px == expected.rf_px
    assert record.path_rf_px == expected.path_rf_px
    assert record.infer_mac > 0
    assert record.infer_latency_ms is None  # measured after the run, when nothing else trains


def test_a_search_that_goes_by_latency_measures_it_at_a_trainings_end_and_pays_for_the_passes(space, tmp_path):
    timed, at = space.with_(objectives=("val", "infer_latency_ms")), Dilated(2)
    record, plain = finished(training(timed, at, tmp_path / "timed")), finished(training(space, at, tmp_path / "plain"))
    forecast = Forecaster(timed, task_of(timed, DATA), DATA, CPU, flop_per_s=1e9)(timed.uniform(at))
    assert record.cost.flop == forecast.cost.flop == plain.cost.flop + 15 * 2 * record.infer_mac
    assert (record.val, record.test) == (plain.val, plain.test)
    model = build_network(timed, task_of(timed, DATA), DATA, timed.uniform(at)).model
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        with torch.no_grad():
            model.eval()(torch.zeros(DATA.input_shape))
        seconds.append(time.perf_counter() - began)
    assert 0.3 * min(seconds) < record.infer_latency_ms / 1000 < 30 * max(seconds)
    assert record.infer_latency_spread_ms is None  # others may train beside it


def test_a_step_costs_at_least_what_torchs_own_counter_sees(space):
    loop = TrainingLoop(space, DATA, space.uniform(Dilated(2)), seed=0, device=CPU)
    with FlopCounterMode(display=False) as theirs:
        mine = loop.train_step(0)
    again = loop.train_step(1)
    assert theirs.get_total_flops() < mine < 1.25 * theirs.get_total_flops()
    assert again == mine


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_it_is_cut_within_one_step_of_its_limit(tmp_path, share):
    space = toy_space(tmp_path, steps=24)  # scoring and weighing what is cut take a third of a training of 8 steps
    whole = finished(training(space, Dilated(1), tmp_path)).cost.flop
    record = finished(training(space, Dilated(1), tmp_path / "cut", limit=share * whole))
    step = TrainingLoop(space, DATA, space.uniform(Dilated(1)), 0, CPU).train_step(0)
    assert record.status == "cut"
    assert share * whole - 1.01 * step <= record.cost.flop <= share * whole
    assert record.val is not None


def test_no_step_is_begun_that_its_limit_has_no_room_for(space, tmp_path):
    forecast = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)(space.uniform(Dilated(1)))
    for limit, steps in ((forecast.least.flop, 1), (forecast.least.flop - 1, 0)):
        given = assignment(space, Dilated(1), limit)
        record = finished(Training(space, DATA, Order(given, "flop", CPU, tmp_path / str(steps), step=forecast.step)))
        assert (record.status, record.steps) == ("cut", steps)
        assert record.cost.flop <= limit
        assert record.val is not None


@pytest.mark.parametrize(
    "shares",
    [
        (0.2, 0.3, 0.45),
        pytest.param((0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8), marks=pytest.mark.slow),
    ],
    ids=["some", "many"],
)
def test_looks_that_find_dilations_keep_the_limit_too(tmp_path, shares):
    space = toy_space(tmp_path, steps=24)
    searched = Searched(1)
    whole = finished(training(space, searched, tmp_path)).cost.flop
    for share in shares:
        record = finished(training(space, searched, tmp_path / str(share), limit=share * whole))
        assert record.status == "cut"
        assert record.cost.flop <= share * whole


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_too_short_for_its_second_look_still_finds_dilations(tmp_path, steps):
    space = toy_space(tmp_path, steps=steps)
    record = finished(training(space, Searched(1), tmp_path))
    assert record.status == "completed"
    assert record.val is not None
    assert min(space.dilations) <= record.found["conv6"].numbers["dilation"] <= max(space.dilations)
    expected = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)(space.uniform(Searched(1)))
    assert record.cost.flop <= expected.cost.flop


def test_an_epoch_budget_is_kept_in_epochs(space, tmp_path):
    record = finished(training(space, Dilated(1), tmp_path, limit=0.5, currency="epochs"))
    assert (record.status, record.cost.epochs) == ("cut", 0.5)


def test_picked_up_at_a_look_it_shows_that_look_again_before_it_trains_on(space, tmp_path):
    """Whoever was to judge the look may have been interrupted before doing so."""
    first = training(space, Dilated(2), tmp_path).advance()
    again = training(space, Dilated(2), tmp_path).advance()
    assert (again.status, again.steps, again.val) == ("pruned", first.steps, first.val)
    assert again.rungs == first.rungs


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_cut_after_a_resume_it_has_cost_the_same(space, tmp_path, share):
    limit = share * finished(training(space, Dilated(1), tmp_path / "full")).cost.flop
    whole = finished(training(space, Dilated(1), tmp_path / "whole", limit=limit))
    training(space, Dilated(1), tmp_path / "half", limit=limit).advance()
    half = finished(training(space, Dilated(1), tmp_path / "half", limit=limit))
    assert (half.status, half.steps, half.cost.flop) == (whole.status, whole.steps, whole.cost.flop)


@pytest.mark.parametrize("looks", [1, *(pytest.param(looks, marks=pytest.mark.slow) for looks in (2, 3))])
# The block's sample stride leaves 2 and comes back within the 8 steps, which changes what a step costs.
@pytest.mark.parametrize(
    ("choice", "f_rate"),
    [
        (Dilated(2), 1),
        (Inflated(2, learned=True), 1),
        (LEARNED_PATHS, 1),
        (LEARNED_BLOCK, 1e6),
        (Searched(1), 1),
        (Moved(2), 1),
    ],
    ids=["fixed", "learned", "paths", "block", "found", "moved"],
)
def test_resumed_it_ends_as_if_never_stopped(tmp_path, looks, choice, f_rate):
    space = toy_space(tmp_path, f_lr_multiplier=f_rate, gamma_lr_multiplier=f_rate)
    whole = finished(training(space, choice, tmp_path / "whole"))
    first = training(space, choice, tmp_path / "half")
    for _ in range(looks):
        first.advance()
    torch.manual_seed(99)  # whatever else the process did meanwhile
    second = finished(training(space, choice, tmp_path / "half"))

    def timeless(record: Record) -> Record:
        cost = replace(record.cost, device_s=0)
        rungs = tuple(replace(rung, cost=replace(rung.cost, device_s=0)) for rung in record.rungs)
        return replace(record, cost=cost, rungs=rungs, infer_latency_ms=None, train_peak_bytes=None)

    assert timeless(second) == timeless(whole)
    assert second.cost.device_s > second.rungs[looks - 1].cost.device_s  # the time before the interruption counts
    weights = [torch.load(tmp_path / name / "t" / "model.pt", weights_only=True)["model"] for name in ("whole", "half")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_whatever_a_training_draws_from_is_kept_and_torch_alone_was_before(space):
    def draws() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    loop = TrainingLoop(space, DATA, space.uniform(Dilated(1)), 0, CPU)
    state = loop.state()
    drawn = draws()
    loop.load_state(state, 0.0)
    assert draws() == drawn
    loop.load_state(state | {"random": {"cpu": state["random"]["torch"]}}, 0.0)
    assert draws()[2] == drawn[2]


def test_the_same_seed_trains_the_same_weights_and_another_does_not(space, tmp_path):
    scores = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        work = Training(
            space, DATA, Order(replace(assignment(space, Dilated(2)), train_seed=seed), "flop", CPU, tmp_path / name)
        )
        scores[name] = finished(work).val
    assert scores["a"] == scores["b"] != scores["c"]


def test_its_checkpoint_gives_its_predictions(space, tmp_path):
    record = finished(training(space, Inflated(4, learned=True), tmp_path))
    saved = torch.load(tmp_path / "t" / "model.pt", weights_only=True)
    candidate = Candidate.from_json(saved["candidate"])
    model, *_ = build_network(space, task_of(space, DATA), DATA, candidate)
    model.load_state_dict(saved["model"])
    assert model.inflation.factor.f.item() == pytest.approx(record.f["conv6"])
    examples = np.load(tmp_path / "t" / "examples.npz")
    images = normalised_images(DATA.splits["test"])
    with torch.no_grad():
        predicted = model.eval()(images).argmax(1).numpy()
    pictures = DATA.splits["test"].images.transpose(0, 2, 3, 1)
    shown = [i for i in range(6) if any(np.array_equal(pictures[i], x) for x in examples["images"])]
    assert len(shown) == 4
    assert np.array_equal(coloured(predicted[shown].astype(np.uint8)), examples["predictions"])


def test_a_learned_factor_waits_for_its_delay_then_moves(space, tmp_path):
    record = finished(training(space, Inflated(2, learned=True), tmp_path))
    steps = {step: f for step, _, f in record.trace}
    assert [steps[i] for i in range(3)] == [1.0, 1.0, 1.0]  # a quarter of 8 steps
    assert steps[3] != 1.0
    assert record.f["conv6"] == steps[8]
    assert record.outcome == space.uniform(Inflated(2, steps[8])).to_json()
    assert record.rf_init_px == 31
    assert (record.rf_px > record.rf_init_px) == (record.f["conv6"] < 1) or record.rf_px == record.rf_init_px


def test_a_wild_factor_is_held_at_its_bounds(tmp_path):
    space = toy_space(tmp_path, f_lr_multiplier=1e6, f_delay=0.0).with_(f_bounds=(0.5, 1.5))
    record = finished(training(space, Inflated(2, learned=True), tmp_path))
    values = [f for _, _, f in record.trace]
    assert all(0.5 <= f <= 1.5 for f in values)
    assert {0.5, 1.5} & set(values)


def test_a_learned_factor_has_no_weight_decay_and_its_own_rate(tmp_path):
    space = toy_space(tmp_path, f_lr_multiplier=3.0)
    loop = TrainingLoop(space, DATA, space.uniform(Inflated(2, learned=True)), 0, CPU)
    loop.train_step(0)
    (f,) = loop.learnable.factors.values()
    groups = loop.optimisation.optimizer.param_groups
    (mine,) = [g for g in groups if any(p is f.f for p in g["params"])]
    (others,) = [g for g in groups if g is not mine]
    assert mine["weight_decay"] == 0
    assert mine["lr"] == pytest.approx(3 * others["lr"])
    assert others["weight_decay"] == space.recipe.weight_decay


@pytest.mark.parametrize(
    ("net", "cause"),
    [
        ("nan_net", "the loss became nan by step"),
        ("raising_net", "ValueError: a shape is off"),
        ("hungry_net", "out of memory: asked for 1 EB"),
    ],
)
def test_a_fault_becomes_a_failed_record_with_its_cause(space, tmp_path, net, cause):
    space = space.with_(backbone=f"tests.toys:{net}")
    bad = finished(training(space, Dilated(2), tmp_path))
    assert bad.status == "failed"
    assert cause in bad.cause
    assert bad.val is None
    assert finished(training(space, Dilated(1), tmp_path / "good")).status == "completed"


def test_a_learned_factor_that_diverges_fails_its_trial_with_that_cause(tmp_path):
    space = toy_space(tmp_path, f_delay=0.0).with_(backbone="tests.toys:nan_net")
    bad = finished(training(space, Inflated(2, learned=True), tmp_path))
    assert bad.status == "failed"
    assert "inflation factor is finite" in bad.cause
    json.dumps(bad.to_json(), allow_nan=False)


def test_a_failed_training_is_charged_for_what_it_did(space, tmp_path):
    bad = finished(training(space.with_(backbone="tests.toys:nan_net"), Dilated(2), tmp_path))
    assert bad.cost.flop > 0
    assert bad.cost.device_s > 0


def test_scores_are_chosen_on_validation_and_reported_on_test(space, tmp_path):
    record = finished(training(space, Dilated(1), tmp_path))
    assert record.test == record.scores["f_classmean_pooled"]
    assert json.loads(json.dumps(record.to_json()))["val"] == record.val


def test_a_validation_that_has_nothing_to_score_says_how_many_images_it_takes(tmp_path):
    space = toy_space(tmp_path, rungs=2, rung_images=3)
    val = DATA.splits["val"]
    targets = val.targets.copy()
    targets[evenly(len(val), 3)] = 255
    data = replace(DATA, ignore_index=255, splits={**DATA.splits, "val": replace(val, targets=targets)})
    order = Order(assignment(space, Dilated(1)), "flop", CPU, tmp_path / "t")
    record = finished(Training(space, data, order))
    assert record.status == "failed"
    assert "A validation on the way takes 3 of 6 images, as recipe.rung_images says." in record.cause


def test_a_validation_tells_the_mean_loss_since_the_one_before(tmp_path, monkeypatch):
    losses: list[float] = []
    optimise = TrainingLoop._optimise

    def spied(self, *batch):
        loss = optimise(self, *batch)
        losses.append(float(loss))
        return loss

    monkeypatch.setattr(TrainingLoop, "_optimise", spied)
    space = toy_space(tmp_path, steps=9, rungs=3)
    record = finished(training(space, Dilated(1), tmp_path))
    steps = [0, *(rung.step for rung in record.rungs)]
    assert len(record.rungs) > 1
    for rung, first in zip(record.rungs, steps, strict=False):
        assert rung.loss == pytest.approx(np.mean(losses[first : rung.step]), rel=1e-5)
