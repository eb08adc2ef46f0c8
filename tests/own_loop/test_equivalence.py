"""A search in a user's own loop does what the same search in the built-in training does."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import rfsearch
from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, Dilated, Inflated
from rfsearch.ledger import Assignment, Request
from rfsearch.own_loop.planning import OwnCode, make_own_plan
from rfsearch.planning.forecaster import Forecaster
from rfsearch.space import read_space
from rfsearch.tasks.from_space import task_of
from rfsearch.training import Order, Training
from rfsearch.training.batches import training_batches
from rfsearch.training.schedule import learning_rate
from tests.small_run import run_in_process, train_in_process
from tests.toys import toy_faces, toy_file, toy_space

CPU = torch.device("cpu")
STEPS, EPOCH = 12, 3


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return toy_space(tmp_path_factory.mktemp("toy"), steps=STEPS, rungs=3, rung_images=6, f_delay=0.0, f_step=0.05)


def loop_of(space):
    """Return a training function that does the arithmetic of the built-in training."""
    data, recipe = toy_faces(), space.recipe
    task = task_of(space, data)

    def train(trial) -> None:
        model = trial.prepare(wei_small(task.out_channels))
        groups = trial.parameter_groups(model, lr=recipe.lr, weight_decay=recipe.weight_decay, momentum=recipe.momentum)
        optimizer = torch.optim.SGD(groups)
        batches = training_batches(recipe, data, task, trial.seed, CPU)
        trial.attach(model, optimizer)
        model.train()
        for epoch in trial.epochs(STEPS // EPOCH):
            for step in range(epoch * EPOCH, (epoch + 1) * EPOCH):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, step)
                images, target = batches.at(step)
                optimizer.zero_grad()
                task.loss(model(images), target).backward()
                optimizer.step()
            model.eval()
            with trial.evaluating(), torch.no_grad():
                trial.report(val=task.evaluate(model, data.splits["val"], recipe.eval_batch_size, CPU).primary)
            model.train()
        model.eval()
        with trial.evaluating(), torch.no_grad():
            val, test = (
                task.evaluate(model, data.splits[split], recipe.eval_batch_size, CPU) for split in ("val", "test")
            )
        trial.finish(val=val.primary, test=test.primary)

    return train


def finished(work):
    while (record := work.advance()).status == "pruned":
        pass
    assert record.status == "completed", record.cause
    return record


def begun(space, objectives, folder):
    """Return the training of dilation 2 in a search by the loop that goes by the objectives, and its forecast."""
    data = toy_faces()
    code = OwnCode.of(loop_of(space), lambda: wei_small(data.num_classes))
    request = Request(
        space="",
        sites=("conv6",),
        dilations=(1, 2, 4),
        input_shape=data.input_shape,
        budget="4x",
        objectives=objectives,
    )
    plan = make_own_plan(code, request, CPU)
    order = Assignment("t", "s", 0, Candidate({"conv6": Dilated(2)}).to_json(), 3, 1e30)
    return plan.trainings.begin(Order(order, "flop", CPU, folder)), plan.forecaster(Candidate({"conv6": Dilated(2)}))


def test_a_search_that_goes_by_latency_measures_it_and_pays_for_the_passes(space, tmp_path):
    (work, forecast), (plain_work, plain_forecast) = (
        begun(space, objectives, tmp_path / str(len(objectives))) for objectives in (("val", "infer_latency_ms"), ())
    )
    record, plain = finished(work), finished(plain_work)
    passes = 15 * 2 * record.infer_mac
    assert record.cost.flop == pytest.approx(plain.cost.flop + passes)
    assert forecast.cost.flop == pytest.approx(plain_forecast.cost.flop + passes)
    assert plain.infer_latency_ms is None
    assert 0 < record.infer_latency_ms < 1000


@pytest.mark.parametrize("choice", [Dilated(1), Dilated(4), Inflated(2, f=0.8), Inflated(2, learned=True)], ids=str)
def test_scores_are_equal_to_the_last_digit_and_flop_within_one_percent(space, choice, tmp_path: Path):
    data = toy_faces()
    code = OwnCode.of(loop_of(space), lambda: wei_small(data.num_classes))
    request = Request(space="", sites=("conv6",), dilations=(1, 2, 4), input_shape=data.input_shape, budget="4x")
    plan = make_own_plan(code, request, CPU)
    candidate = Candidate({"conv6": choice})
    order = Assignment("t", "s", 0, candidate.to_json(), 3, 1e30)
    own = finished(plan.trainings.begin(Order(order, "flop", CPU, tmp_path / "own")))
    built_in = finished(Training(space, data, Order(order, "flop", CPU, tmp_path / "built-in")))
    assert (own.val, own.test, own.outcome) == (built_in.val, built_in.test, built_in.outcome)
    assert (own.rf_px, own.params, own.infer_mac) == (built_in.rf_px, built_in.params, built_in.infer_mac)
    # The built-in training also weighs an image before scoring, again at every new size of a map, and shows four.
    aside = 2 * built_in.infer_mac * (5 + (STEPS if candidate.learned else 0))
    assert built_in.cost.flop - aside < 1.01 * own.cost.flop
    assert own.cost.flop < 1.01 * built_in.cost.flop
    reference = Forecaster(space, task_of(space, data), data, CPU, flop_per_s=1e9).reference_flop()
    assert plan.reference_flop == pytest.approx(reference, rel=0.01)


ARMS = ["exhaustive", "optuna", "inflation"]


@pytest.fixture(scope="module")
def searches(tmp_path_factory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the trials of one search in the built-in training and in the loop, without those that a budget cut."""
    folder = tmp_path_factory.mktemp("searches")
    file = toy_file(folder, budget="8x", steps=STEPS)
    text = (
        file.read_text().replace("f_lr_multiplier = 1.0", "f_step = 0.05").replace("rung_images = 4", "rung_images = 6")
    )
    file.write_text(text.replace("f_delay = 0.25", "f_delay = 0.0"))
    run_in_process("run", "--space", file, "--strategies", ",".join(ARMS), "--out", folder / "built-in")
    classes, shape = toy_faces().num_classes, toy_faces().input_shape
    with pytest.MonkeyPatch.context() as patch:
        train_in_process(patch)
        own = rfsearch.search(
            loop_of(read_space(file, None)),
            model=lambda: wei_small(classes),
            input_shape=shape,
            sites="conv6",
            dilations=[1, 2, 4],
            strategies=ARMS,
            budget="8x",
            out=folder / "own",
        )
    tables = rfsearch.load_run(folder / "built-in").trials, own.trials
    first, second = (table[table.status == "completed"].reset_index(drop=True) for table in tables)
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_search_chooses_the_same_candidates_in_the_same_order_and_scores_them_alike(searches, arm):
    built_in, own = (table[table.strategy == arm].reset_index(drop=True) for table in searches)
    assert len(own) == len(built_in) >= 3
    for column in ("candidate", "train_seed", "outcome", "val", "test", "rf_px", "steps", "infer_mac"):
        assert own[column].tolist() == built_in[column].tolist(), column
    # As above: what a built-in training runs beside its steps, again for each size of a map that it meets.
    aside = 2 * built_in.infer_mac * (5 + STEPS * (arm == "inflation"))
    assert (built_in.train_flop - aside < 1.01 * own.train_flop).all()
    assert (own.train_flop < 1.01 * built_in.train_flop).all()
