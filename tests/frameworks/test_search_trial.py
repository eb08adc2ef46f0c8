"""Searches whose trials are trained by Lightning, transformers and mmengine, with the real packages."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

import rfsearch
from rfsearch.choices import Candidate, Dilated, Inflated, Moved, Searched
from rfsearch.errors import RequestError
from rfsearch.ledger import Assignment, Request
from rfsearch.own_loop.loop_training import LoopTraining
from rfsearch.own_loop.planning import OwnCode, OwnPlan, make_own_plan
from rfsearch.surgery import install
from rfsearch.training import Order
from rfsearch.training.progress import Progress
from tests.frameworks import trainers
from tests.frameworks.trainers import BATCH, EPOCHS, FRAMEWORKS, STEPS, by_loop, make_model
from tests.own_loop.loops import INPUT, scorer
from tests.small_run import train_in_process

CPU = torch.device("cpu")
CHOICES = [Dilated(4), Inflated(4, learned=True), Moved(2), Searched(2)]


def plan(train: Callable[..., None], **changes: Any) -> OwnPlan:
    given = {"sites": ("2",), "dilations": (1, 2, 4), "input_shape": INPUT, "budget": "4x"} | changes
    return make_own_plan(OwnCode.of(train, make_model), Request(space="", **given), CPU)


@cache
def plan_of(name: str, noisy: bool = False) -> OwnPlan:
    return plan(partial({"loop": by_loop, **FRAMEWORKS}[name], noisy=noisy))


def training(the_plan: OwnPlan, choice: Any, folder: Path, limit: float = 1e30) -> LoopTraining:
    candidate = Candidate({"2": choice})
    order = Assignment("t", "s", 0, candidate.to_json(), 0, limit)
    step = the_plan.forecaster(candidate).step
    return the_plan.trainings.begin(Order(order, "flop", CPU, folder / "t", step=step))


def finished(work: LoopTraining):
    while (record := work.advance()).status == "pruned":
        pass
    work.close()
    return record


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: type(choice).__name__)
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_trainer_does_what_the_loop_does(name, choice, tmp_path):
    """To the last digit, at the same FLOP."""
    loop = finished(training(plan_of("loop"), choice, tmp_path / "loop"))
    own = finished(training(plan_of(name), choice, tmp_path / name))
    assert (loop.status, own.status) == ("completed", "completed"), own.cause
    assert own.val == loop.val
    assert [(rung.step, rung.val, rung.f) for rung in own.rungs] == [
        (rung.step, rung.val, rung.f) for rung in loop.rungs
    ]
    assert (own.outcome, own.steps) == (loop.outcome, EPOCHS * STEPS)
    assert own.cost.flop == pytest.approx(loop.cost.flop, rel=0.01)
    lengths = plan_of(name).space.length, plan_of("loop").space.length
    assert lengths[0].train_flop == pytest.approx(lengths[1].train_flop, rel=0.01)
    assert lengths[0].score_flop == pytest.approx(lengths[1].score_flop, rel=0.01)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: type(choice).__name__)
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_killed_and_resumed_it_ends_as_an_unbroken_one(name, choice, tmp_path):
    unbroken = finished(training(plan_of(name, True), choice, tmp_path / "unbroken"))
    assert unbroken.status == "completed", unbroken.cause
    for reports in (1, EPOCHS - 1):
        folder = tmp_path / str(reports)
        broken = training(plan_of(name, True), choice, folder)
        for _ in range(reports):
            assert broken.advance().status == "pruned"
        broken.close()
        resumed = training(plan_of(name, True), choice, folder)
        assert resumed.advance().rungs[-1].step == reports * STEPS
        record = finished(resumed)
        assert record.val == unbroken.val
        assert [(rung.step, rung.val, rung.f) for rung in record.rungs] == [
            (rung.step, rung.val, rung.f) for rung in unbroken.rungs
        ]
        assert (record.outcome, record.trace) == (unbroken.outcome, unbroken.trace)
        assert record.cost.flop == pytest.approx(unbroken.cost.flop, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_strategies_compete_on_equal_budgets(name, tmp_path, monkeypatch):
    train_in_process(monkeypatch)
    result = rfsearch.search(
        FRAMEWORKS[name], model=make_model, input_shape=INPUT, sites=["2"], dilations=[1, 4],
        strategies=["exhaustive", "inflation", "fractional"], budget="2.5x", out=tmp_path / "run",
    )  # fmt: skip
    limit = 2.5 * result.run.manifest.budget.reference_flop
    spent = result.trials.groupby("strategy").train_flop.sum()
    assert set(spent.index) == {"exhaustive", "inflation", "fractional"}
    assert (spent <= 1.05 * limit).all()
    assert (spent >= 0.6 * limit).all()
    assert set(result.trials.status) <= {"completed", "cut"}
    assert result.trials.candidate.str.contains("learned|fractional").any()
    model = rfsearch.apply(make_model(), result.patch())
    state = torch.load(result.directory / "checkpoints" / result.best.trial / "model.pt", weights_only=True)
    model.load_state_dict(state["model"])
    assert scorer(model)() == pytest.approx(result.best.val, rel=1e-5)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_trainer_stops_where_the_next_epoch_does_not_fit(name, tmp_path):
    ended: list[int] = []
    train = FRAMEWORKS[name]

    def training_function(trial):
        train(trial, noisy=True)
        ended.append(trial.step)

    the_plan = plan(training_function)
    whole = finished(training(the_plan, Dilated(2), tmp_path / "whole"))
    limit = 0.6 * whole.cost.flop
    record = finished(training(the_plan, Dilated(2), tmp_path / "cut", limit))
    assert record.status == "cut"
    assert record.steps == 2 * STEPS
    assert record.val == whole.rungs[1].val
    assert record.cost.flop <= limit
    assert ended == [STEPS, EPOCHS * STEPS, 2 * STEPS]  # what stands behind the trainer runs as ever
    broken = training(the_plan, Dilated(2), tmp_path / "lost")
    for _ in range(2):
        broken.advance()
    broken.close()
    resumed = training(the_plan, Dilated(2), tmp_path / "lost", limit)
    record = finished(resumed)
    assert (record.status, record.steps, record.val) == ("cut", 2 * STEPS, whole.rungs[1].val)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_pruned_trial_ends_its_trainer(name, tmp_path):
    work = training(plan_of(name), Dilated(1), tmp_path)
    assert work.advance().rungs[-1].step == STEPS
    thread = work._thread._thread
    work.close()
    assert not thread.is_alive()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_score_that_is_not_logged_is_one_message_that_lists_what_is(name):
    logged = {"lightning": "train, val", "transformers": "eval_loss, ", "mmengine": "val"}[name.split()[0]]
    with pytest.raises(RequestError, match=f"no metric is called 'iou', .*Logged: {logged}"):
        plan(partial(FRAMEWORKS[name], score="iou"))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("lightning", {"max_steps": 9}, "set max_epochs, and neither max_steps"),
        ("lightning", {"max_epochs": -1}, "set max_epochs"),
        ("lightning", {"min_epochs": 2}, "nor min_steps"),
        ("lightning", {"optimizers": 2}, "one optimizer. Got 2"),
        ("lightning", {"check_val_every_n_epoch": 2}, "leave check_val_every_n_epoch at 1. Got 2"),
        ("transformers", {"load_best_model_at_end": True, "save_strategy": "epoch"}, "set it to False"),
        ("transformers", {"max_steps": 9}, "neither max_steps"),
        ("transformers", {"num_train_epochs": 1.5}, "whole epochs"),
        ("transformers", {"eval_strategy": "no"}, "eval_strategy='epoch'"),
        ("mmengine", {"train_cfg": {"by_epoch": True, "max_epochs": 4, "val_interval": 3}}, "Got 4, and val_"),
        ("mmengine", {"val_cfg": None, "val_dataloader": None, "val_evaluator": None}, "set val_dataloader"),
    ],
)  # fmt: skip
def test_what_a_search_cannot_follow_is_one_message(name, options, said):
    with pytest.raises(RequestError, match=said):
        plan(partial(FRAMEWORKS[name], **options))


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_accumulated_gradients_are_one_step(name, tmp_path):
    option = {"lightning": "accumulate_grad_batches", "transformers": "gradient_accumulation_steps"}
    options = {option.get(name, "accumulate"): 2}
    the_plan = plan(partial(FRAMEWORKS[name], noisy=True, **options))
    assert the_plan.space.length.steps == STEPS // 2
    unbroken = finished(training(the_plan, Moved(2), tmp_path / "unbroken"))
    assert unbroken.steps == EPOCHS * STEPS // 2
    broken = training(the_plan, Moved(2), tmp_path / "broken")
    broken.advance()
    broken.close()
    assert finished(training(the_plan, Moved(2), tmp_path / "broken")).val == unbroken.val


@pytest.mark.parametrize("iterations", [False, True])
def test_mmengine_counts_its_accumulation_on_when_resumed(iterations, tmp_path):
    """Its last iteration steps with what is left over."""
    the_plan = plan(partial(FRAMEWORKS["mmengine"], iterations=iterations, accumulate=3))
    unbroken = finished(training(the_plan, Dilated(2), tmp_path / "unbroken"))
    assert unbroken.steps == EPOCHS * STEPS // 3 + 1
    broken = training(the_plan, Dilated(2), tmp_path / "broken")
    for _ in range(3):
        broken.advance()
    broken.close()
    record = finished(training(the_plan, Dilated(2), tmp_path / "broken"))
    assert (record.steps, record.val) == (unbroken.steps, unbroken.val)


def averaging(name: str) -> list[Any]:
    """Return what lets a trainer score averaged weights; transformers has none."""
    if name == "lightning":
        from lightning.pytorch.callbacks import EMAWeightAveraging

        return [EMAWeightAveraging(decay=0.7)]
    if name == "transformers":
        return []
    from mmengine.hooks import EMAHook

    return [EMAHook(momentum=0.3)]


@pytest.mark.slow
@pytest.mark.parametrize("by_score", [False, True])
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_schedules_by_score_and_averaged_weights_go_on_when_resumed(name, by_score, tmp_path):
    the_plan = plan(partial(FRAMEWORKS[name], noisy=True, by_score=by_score, callbacks=partial(averaging, name)))
    unbroken = finished(training(the_plan, Moved(2), tmp_path / "unbroken"))
    assert unbroken.status == "completed", unbroken.cause
    if by_score or averaging(name):
        assert unbroken.val != finished(training(plan_of(name, True), Moved(2), tmp_path / "plain")).val
    broken = training(the_plan, Moved(2), tmp_path / "broken")
    for _ in range(2):
        broken.advance()
    broken.close()
    resumed = finished(training(the_plan, Moved(2), tmp_path / "broken"))
    assert [rung.val for rung in resumed.rungs] == [rung.val for rung in unbroken.rungs]
    assert (resumed.val, resumed.outcome) == (unbroken.val, unbroken.outcome)
    broken = training(the_plan, Moved(2), tmp_path / "cut")
    for _ in range(2):
        broken.advance()
    broken.close()
    cut = finished(training(the_plan, Moved(2), tmp_path / "cut", 0.6 * unbroken.cost.flop))
    assert (cut.status, cut.val) == ("cut", unbroken.rungs[1].val)
    for folder, record in (("broken", resumed), ("cut", cut)):
        saved = torch.load(tmp_path / folder / "t" / "model.pt", weights_only=True)
        model = make_model()
        install(model, Candidate.from_json(saved["candidate"]), the_plan.settings)
        model.load_state_dict(saved["model"])
        assert scorer(model)() == pytest.approx(record.val, rel=1e-5)  # what is kept is what was scored


def test_a_scale_of_losses_goes_on_when_resumed(tmp_path):
    the_plan = plan(partial(FRAMEWORKS["lightning"], noisy=True, half=True))
    unbroken = finished(training(the_plan, Moved(2), tmp_path / "unbroken"))
    broken = training(the_plan, Moved(2), tmp_path / "broken")
    for _ in range(2):
        broken.advance()
    broken.close()
    left = Progress.read(tmp_path / "broken" / "t" / "progress.pt", CPU, Candidate({"2": Moved(2)}))
    kept = torch.load(io.BytesIO(left.loop["kept"]["lightning"].numpy().tobytes()), weights_only=False)
    assert kept["MixedPrecision"]["scale"] == 2.0 ** (16 + 2 * STEPS // 3)  # the most that half precision holds
    assert finished(training(the_plan, Moved(2), tmp_path / "broken")).val == unbroken.val


def stopping(name: str) -> list[Any]:
    """Return what ends a training after two epochs, by a rule of its own."""
    if name == "lightning":
        from lightning.pytorch import Callback

        class Stop(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                trainer.should_stop = trainer.current_epoch == 1

    elif name == "transformers":
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                control.should_training_stop |= state.epoch == 2

    else:
        from mmengine.hooks import Hook

        class Stop(Hook):
            def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
                runner.train_loop.stop_training = runner.iter == 2 * STEPS

    return [Stop()]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_trainer_may_stop_by_a_rule_of_its_own(name, tmp_path):
    whole = finished(training(plan_of(name, True), Dilated(2), tmp_path / "whole"))
    the_plan = plan(partial(FRAMEWORKS[name], noisy=True, callbacks=partial(stopping, name)))
    record = finished(training(the_plan, Dilated(2), tmp_path / "stopped"))
    assert (record.status, record.steps, record.val) == ("completed", 2 * STEPS, whole.rungs[1].val)


def counting(name: str, seen: list[Any]) -> list[Any]:
    """Return what notes after every epoch, and after the training, how far a trainer has counted."""
    if name == "lightning":
        from lightning.pytorch import Callback

        class Count(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                seen.append(trainer.global_step)

            def on_train_end(self, trainer: Any, pl_module: Any) -> None:
                seen.append(trainer.fit_loop.state_dict())

    elif name == "transformers":
        from transformers import TrainerCallback

        class Count(TrainerCallback):
            def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                seen.append((state.global_step, state.epoch))

            def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                seen.append([(line["step"], line["epoch"]) for line in state.log_history])

    else:
        from mmengine.hooks import Hook

        class Count(Hook):
            def after_val(self, runner: Any) -> None:
                seen.append((runner.epoch, runner.iter))

    return [Count()]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_resumed_trainer_counts_on_and_one_that_stops_has_no_epoch_more(name, tmp_path):
    seen: list[Any] = []
    the_plan = plan(partial(FRAMEWORKS[name], callbacks=partial(counting, name, seen)))
    seen.clear()
    whole = finished(training(the_plan, Dilated(2), tmp_path / "whole"))
    unbroken, seen[:] = list(seen), []
    broken = training(the_plan, Dilated(2), tmp_path / "broken")
    for _ in range(2):
        broken.advance()
    broken.close()
    seen.clear()
    finished(training(the_plan, Dilated(2), tmp_path / "broken"))
    assert seen == unbroken[2:]
    seen.clear()
    assert finished(training(the_plan, Dilated(2), tmp_path / "cut", 0.6 * whole.cost.flop)).status == "cut"
    assert seen[:2] == unbroken[:2]
    assert len(seen) == len(unbroken) - 2


def in_two(trial: rfsearch.Trial, name: str) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": BATCH // trial.world_size}
    if name == "lightning":
        trainers.BATCH = BATCH // trial.world_size
        options = {"strategy": "ddp"} if trial.world_size > 1 else {}
    FRAMEWORKS[name](trial, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_processes_that_a_search_starts_train_together(name, tmp_path):
    """mmengine's cannot on CPUs."""
    train = partial(in_two, name=name)
    one = plan(train)
    work = replace(one.trainings, processes=2).begin(
        Order(Assignment("t", "s", 0, Candidate({"2": Dilated(2)}).to_json(), 0, 1e30), "flop", CPU, tmp_path / "two")
    )
    two, alone = finished(work), finished(training(one, Dilated(2), tmp_path / "one"))
    assert (two.status, two.steps) == ("completed", EPOCHS * STEPS), two.cause
    # Each evaluates all images, or its half; the optimiser steps in both.
    assert 0.97 < two.cost.flop / alone.cost.flop < 1.2


def test_a_trainer_of_several_devices_is_one_message():
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule, Trainer

    from rfsearch.frameworks.lightning import SearchTrial

    callback = SearchTrial(Namespace(world_size=1), "val")
    with pytest.raises(RequestError, match="trains on 2 devices, and its trial has 1"):
        callback.setup(Trainer(accelerator="cpu", devices=2, logger=False), LightningModule(), "fit")
