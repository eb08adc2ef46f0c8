"""Training parallel paths and LS-DFN blocks: what tells paths apart, what holds f back, and what the record says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from rfsearch.choices import Candidate, Choice, Dilated, Inflated, Sampled, SitePath
from rfsearch.data import ImageSet, Split
from rfsearch.ledger import Record
from rfsearch.planning.forecaster import Forecaster
from rfsearch.space import PathSet, Space
from rfsearch.surgery import Settings, assemble
from rfsearch.tasks.from_space import task_of
from rfsearch.training.loop import TrainingLoop
from rfsearch.training.network import fields_of
from tests.surgery.test_build import Foreign
from tests.toys import toy_faces, toy_space
from tests.training.test_training import CPU, EYES, finished, training

DATA = toy_faces()
LEARNED = Inflated(2, learned=True)


def alike(*labels: tuple[str, ...], dilation: int = 2) -> list[Choice]:
    """One learned path a label set, all from one dilation."""
    return [SitePath(Inflated(dilation, learned=True), names) for names in labels]


def loop_of(space: Space, paths: Choice | list[Choice], data: ImageSet = DATA) -> TrainingLoop:
    torch.manual_seed(0)
    return TrainingLoop(space, data, space.uniform(paths), 0, CPU)


def labelled(class_id: int) -> ImageSet:
    """The toy faces with every pixel of one class."""
    splits = {n: Split(s.images, np.full_like(s.targets, class_id), s.names) for n, s in DATA.splits.items()}
    return replace(DATA, splits=splits)


def one_step(space: Space, data: ImageSet, paths: Choice | list[Choice] = LEARNED) -> dict[str, float]:
    """How far f moves in the first step."""
    loop = loop_of(space, paths, data)
    before = loop.learned_values()
    loop.train_step(0)
    return {path: value - before[path] for path, value in loop.learned_values().items()}


def test_alike_paths_stay_alike_without_guidance_and_part_with_it(tmp_path):
    """Wei sec. 4.3: summed and initialised alike, paths get the same gradient for ever, unless labels weigh it."""
    space = toy_space(tmp_path, steps=40, f_delay=0.0)
    parted = {}
    for name, labels in (("alike", ()), ("guided", EYES)):
        loop = loop_of(space, alike(labels, ()))
        for step in range(40):
            loop.train_step(step)
        first, second = loop.learned_values().values()
        parted[name] = abs(first - second)
        assert min(abs(first - 1), abs(second - 1)) > 0.05  # f did move
        one, other = loop.model.conv6.weight, loop.model.parallel[0].conv6.weight
        assert torch.equal(one, other) == (name == "alike")
    assert parted["alike"] == 0
    assert parted["guided"] > 1e-3


def test_paths_part_in_a_whole_training_and_the_record_tells(tmp_path):
    space = toy_space(tmp_path, steps=12, f_delay=0.0, f_lr_multiplier=2.0, guidance_weight=2.0)
    records = {}
    for name, labels in (("alike", ()), ("guided", EYES)):
        records[name] = record = finished(training(space, alike(labels, ()), tmp_path / name))
        assert record.status == "completed"
        assert set(record.f) == set(record.path_rf_px) == {"conv6/1", "conv6/2"}
        assert [(step, path) for step, path, _ in record.trace][:4] == [
            (0, "conv6/1"), (0, "conv6/2"), (1, "conv6/1"), (1, "conv6/2")
        ]  # fmt: skip
        assert record.rf_px == max(record.path_rf_px.values())
        assert dict(record.rungs[-1].f).keys() == record.f.keys()
        assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert len(set(records["alike"].f.values())) == 1
    first, second = records["guided"].f.values()
    assert abs(first - second) > 1e-3


def test_the_receptive_field_of_every_path_is_the_one_by_hand(tmp_path):
    """wei-small: 15 px of features at a stride of 4 px, then a 3x3 convolution at dilation d."""
    space = toy_space(tmp_path).with_(paths={"tri": PathSet(manual=(1, 2, 4))}).with_form("tri")
    forecast = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)
    fields = {f"conv6/{i}": 15 + 4 * 2 * d for i, d in enumerate((1, 2, 4), start=1)}
    expected = forecast(space.default_candidate)
    assert (dict(expected.path_rf_px), expected.rf_px) == (fields, 47)
    assert forecast(space.uniform([Dilated(4), Dilated(1)])).path_rf_px == {"conv6/1": 47, "conv6/2": 23}
    assert forecast(space.uniform(Dilated(4))).path_rf_px == {}
    # f halves or doubles what the dilated kernel adds, up to the reach of the bilinear samples
    resized = forecast(space.uniform([Inflated(2, 2.0), Dilated(2), Inflated(2, 0.5)])).path_rf_px
    assert resized["conv6/1"] < resized["conv6/2"] == 31 < resized["conv6/3"]
    assert resized["conv6/1"] == pytest.approx(15 + 8, abs=4)
    assert resized["conv6/3"] == pytest.approx(15 + 32, abs=4)
    record = finished(training(space, [Dilated(1), Dilated(2), Dilated(4)], tmp_path))
    assert (record.path_rf_px, record.rf_px, record.rf_init_px) == (fields, 47, 47)


def test_more_paths_cost_more(tmp_path):
    space = toy_space(tmp_path)
    forecast = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)
    one, two, three = (forecast(space.uniform([Dilated(1)] * n)) for n in (1, 2, 3))
    assert two.cost.flop - one.cost.flop == pytest.approx(three.cost.flop - two.cost.flop, rel=0.01)
    assert one.cost.flop < two.cost.flop
    assert one.peak_bytes < two.peak_bytes < three.peak_bytes


@pytest.mark.parametrize("clip", [1e-4, 1e-6])
def test_a_clipped_gradient_bounds_the_step_of_f(tmp_path, clip):
    plain = {"f_delay": 0.0, "momentum": 0.0, "f_lr_multiplier": 3.0}
    (free,) = one_step(toy_space(tmp_path, **plain), DATA).values()
    (held,) = one_step(toy_space(tmp_path, **plain, f_clip=clip), DATA).values()
    most = 0.05 * 3.0 * clip
    assert abs(free) > 2 * most
    assert held == pytest.approx(np.copysign(most, free), rel=0.01, abs=1.2e-7)  # f is kept in single precision
    (loose,) = one_step(toy_space(tmp_path, **plain, f_clip=1e3), DATA).values()
    assert loose == free


def test_every_path_is_clipped_by_itself(tmp_path):
    space = toy_space(tmp_path, f_delay=0.0, momentum=0.0, f_clip=1e-3)
    steps = one_step(space, DATA, [Inflated(1, learned=True), Inflated(4, learned=True)])
    assert [abs(step) for step in steps.values()] == pytest.approx([0.05e-3, 0.05e-3], rel=0.01)


def test_background_of_no_weight_leaves_f_where_it_was_and_trains_the_rest(tmp_path):
    settings = {"f_delay": 0.0, "class_weights": "none"}
    ignored, counted = (toy_space(tmp_path, **settings, f_background=share) for share in (0.0, 1.0))
    assert set(one_step(ignored, labelled(0), alike((), ())).values()) == {0.0}
    assert all(step != 0 for step in one_step(counted, labelled(0), alike((), ())).values())
    assert one_step(ignored, labelled(1)) == one_step(counted, labelled(1)) != {"conv6": 0.0}
    weights = []
    for space in (ignored, counted):
        loop = loop_of(space, Inflated(2, learned=True), labelled(0))
        loop.train_step(0)
        weights.append(loop.model.conv6.weight)
    assert torch.equal(*weights)


def test_guidance_works_in_the_training_step(tmp_path):
    """Where every pixel is in a path's set, its gradient is W times that of the path beside it."""
    space = toy_space(tmp_path, f_delay=0.0, class_weights="none", guidance_weight=3.0)
    loop = loop_of(space, alike(("background",), ()), labelled(0))
    loop.train_step(0)
    for name in ("conv6.weight", "output.bias"):
        guided, other = (loop.model.get_parameter(path + name).grad for path in ("", "parallel.0."))
        assert other.abs().max() > 1e-4
        torch.testing.assert_close(guided, 3 * other)


def test_the_optimiser_gets_the_rate_of_the_recipe_at_every_step(tmp_path):
    space = toy_space(tmp_path, steps=8, lr_steps=(0.25, 0.5), lr_drop=0.5, warmup=1, power=0.0, f_lr_multiplier=3.0)
    loop = loop_of(space, Inflated(2, learned=True))
    seen = []
    for step in range(6):
        loop.train_step(step)
        (mine,) = [g for g in loop.optimisation.optimizer.param_groups if g["multiplier"] == 3.0]
        (others,) = [g for g in loop.optimisation.optimizer.param_groups if g is not mine]
        assert mine["lr"] == pytest.approx(3 * others["lr"])
        seen.append(others["lr"])
    assert seen == pytest.approx([0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125])


def test_a_learned_sample_stride_moves_within_its_bounds_and_is_recorded(tmp_path):
    # a block starts unheard, so that the gradient of its sample stride starts at nothing
    space = toy_space(tmp_path, gamma_lr_multiplier=1e5)
    record = finished(training(space, Sampled(1, 1.5, 3, learned=True), tmp_path))
    assert record.status == "completed"
    values = {step: gamma for step, path, gamma in record.trace if path == "conv6"}
    assert [values[i] for i in range(3)] == [1.5, 1.5, 1.5]  # f_delay: a quarter of 8 steps
    assert values[8] != values[7] != 1.5
    assert record.gamma == {"conv6": values[8]}
    assert record.f == {}
    low, high = space.sampling.bounds
    assert all(low <= gamma <= high for gamma in values.values())
    assert record.row()["gamma"] == f"conv6={values[8]:.6g}"
    assert record.outcome == space.uniform(Sampled(1, values[8], 3)).to_json()


def test_a_wild_sample_stride_is_held_at_its_bounds(tmp_path):
    space = toy_space(tmp_path, gamma_lr_multiplier=1e7, f_delay=0.0)
    space = space.with_(sampling=space.sampling.model_copy(update={"bounds": (1.75, 2.25)}))
    record = finished(training(space, Sampled(1, 2.0, 3, learned=True), tmp_path))
    values = [gamma for _, _, gamma in record.trace]
    assert all(1.75 <= gamma <= 2.25 for gamma in values)
    assert {1.75, 2.25} & set(values)


def test_a_fixed_sample_stride_is_recorded_and_stays(tmp_path):
    record = finished(training(toy_space(tmp_path), Sampled(1, 2.0, 3), tmp_path))
    assert (record.gamma, record.trace) == ({"conv6": 2.0}, ())


@pytest.mark.slow
def test_the_field_of_a_block_grows_with_its_sample_stride(tmp_path):
    """Behind a 3x3 convolution (23 px at dilation 1, a unit every 4 px) it reads gamma (s-1) + k - 1 units more."""
    space = toy_space(tmp_path)
    forecast = Forecaster(space, task_of(space, DATA), DATA, CPU, flop_per_s=1e9)
    for gamma, s in ((1.0, 1), (1.0, 3), (2.0, 3), (3.0, 5)):
        candidate = space.uniform(Sampled(1, gamma, s))
        assert forecast(candidate).rf_px == 23 + 4 * (gamma * (s - 1) + 2)


@pytest.mark.parametrize(("s", "gammas"), [(3, (1.0, 2.0)), (5, (1.2, 2.3)), (3, (0.5, 0.7)), (5, (1.0, 1.5))])
def test_a_step_is_charged_at_the_sample_stride_of_the_moment(tmp_path, s, gammas):
    """How far a block reads, and how many of its places lie between pixels, changes what it costs."""
    space = toy_space(tmp_path, f_delay=0.0, f_lr_multiplier=1e-9, gamma_lr_multiplier=1e-9)

    def cost(loop: TrainingLoop, gamma: float) -> float:
        with torch.no_grad():
            loop.learnable.strides["conv6"].gamma.fill_(gamma)
        return loop.train_step(0)

    choice = Sampled(1, 1.0, s, learned=True)
    moved = loop_of(space, choice)
    charged = [cost(moved, gamma) for gamma in gammas]
    assert charged == [cost(loop_of(space, choice), gamma) for gamma in gammas]
    if (gammas, s) != ((0.5, 0.7), 3):  # the same costs there
        assert charged[0] != charged[1]


@pytest.mark.parametrize(
    ("choice", "rate"),
    [
        (LEARNED, 5.0),
        ([Inflated(1, learned=True), Inflated(4, learned=True)], 5.0),
        pytest.param(Sampled(1, 2.0, 3, learned=True), 1e6, marks=pytest.mark.slow),
    ],
    ids=["f", "paths", "block"],
)
def test_every_step_is_charged_what_it_costs_where_f_or_gamma_stands(tmp_path, choice, rate):
    """Costs are kept and looked up again: each must be kept under the sizes that gave it, not those after its step."""
    space = toy_space(tmp_path, f_delay=0.0, f_lr_multiplier=rate, gamma_lr_multiplier=rate)
    loop, charged, real = loop_of(space, choice), [], []
    for step in range(8):
        values = loop.learned_values()
        charged.append(loop.train_step(step))
        fresh = loop_of(space, choice)
        with torch.no_grad():
            for path, value in values.items():
                (fresh.learnable.factors.get(path) or fresh.learnable.strides[path]).get_parameter(
                    "f" if path in fresh.learnable.factors else "gamma"
                ).fill_(value)
        real.append(fresh.train_step(step))
    assert charged == real
    assert len(set(charged)) > 1


@pytest.mark.parametrize(
    ("choice", "whole", "parts"),
    [
        (
            (Dilated(2), Inflated(3, 1.5), Dilated(5)),
            3 + 2 * 5 * 2,
            {1: 3 + 2 * 2 * 2, 2: 3 + 2 * 2 * 2, 3: 3 + 2 * 5 * 2},
        ),
        (Sampled(1, 2.0, 3), 3 + 2 * 2 + (2 * 2 + 2) * 2, {}),
    ],
)
def test_fields_of_a_network_that_cannot_fork_itself(choice, whole, parts):
    """By hand: a stem of 3 px at stride 2, then the site; what a path adds is divided by its f."""
    candidate = Candidate({"body.1": choice})
    model, learnable = assemble(Foreign(), candidate, Settings())
    fields = fields_of(model, learnable, candidate, (1, 3, 48, 48))
    assert (fields.rf_px, fields.path_rf_px) == (whole, {f"body.1/{i}": px for i, px in parts.items()})
