"""What would train nothing or be lost on the way is one message, and what wraps an optimiser is followed."""

import copy
import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rfsearch.choices import Candidate, Dilated, Inflated, Moved, Sampled, SitePath
from rfsearch.errors import RequestError
from tests.own_loop import loops
from tests.own_loop.trials import completed, finished, interrupted, plan, training

BLOCK = Sampled(1, gamma=2.0, s=3, learned=True)
SIDE_BY_SIDE = Candidate({"2": (SitePath(Dilated(2)), SitePath(Dilated(4)))})


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def epochs_of(trial, model: nn.Module, *optimizers, count: int = 2, begin: Callable = lambda epoch: None) -> None:
    """Train and score as usual. begin: called at the start of each epoch."""
    dtype = next(model.parameters()).dtype
    for epoch in trial.epochs(count):
        begin(epoch)
        for x, y in loops.loader(16):
            for optimizer in optimizers:
                optimizer.zero_grad()
            nn.functional.mse_loss(model(x.to(dtype)), y.to(dtype)).backward()
            for optimizer in optimizers:
                optimizer.step()
        trial.report(val=float(epoch))
    trial.finish(val=1.0)


def usual(trial, prepared: Callable = lambda model: model, attached: Callable = lambda model: None, **options) -> None:
    """prepared: what a model becomes between `prepare` and `attach`. attached: called with it behind `attach`."""
    model = prepared(trial.prepare(loops.make_model()))
    optimizer = sgd(model)
    trial.attach(model, optimizer)
    attached(model)
    epochs_of(trial, model, optimizer, **options)


def loads(part: str, strict: bool):
    trained = loops.make_model()

    def load(model: nn.Module) -> nn.Module:
        model.get_submodule(part).load_state_dict(trained.get_submodule(part).state_dict(), strict=strict)
        return model

    return load


@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_are_loaded_behind_prepare_are_refused(strict):
    with pytest.raises(RequestError, match=r"load trained weights before trial\.prepare"):
        plan(partial(usual, prepared=loads("", strict)))


def test_a_part_without_sites_and_copies_load_what_they_are_given(tmp_path):
    def prepared(model: nn.Module) -> nn.Module:
        loads("0", True)(model)
        for copied in (copy.deepcopy(model), AveragedModel(model).module):
            copied.load_state_dict(model.state_dict())
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        torch.load(file, weights_only=False).load_state_dict(model.state_dict())
        return model

    def attached(model: nn.Module) -> None:
        model.load_state_dict(model.state_dict())

    found = plan(partial(usual, prepared=prepared, attached=attached))
    completed(training(found, Moved(2), tmp_path))


@pytest.mark.parametrize("choice", [SIDE_BY_SIDE, BLOCK], ids=str)
def test_an_optimizer_from_before_prepare_is_refused_where_layers_would_not_train(choice, tmp_path):
    def loop(trial) -> None:
        model = loops.make_model()
        optimizer = sgd(model)
        trial.prepare(model)
        trial.attach(model, optimizer)
        epochs_of(trial, model, optimizer)

    found = plan(loop)
    record = finished(training(found, choice, tmp_path / "new"))
    assert record.status == "failed"
    assert "the optimiser was made before trial.prepare" in record.cause
    completed(training(found, Moved(2), tmp_path / "moved"))  # of which the search moves what is new


def test_an_optimizer_of_another_model_is_refused():
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        trial.attach(model, sgd(loops.make_model()))

    with pytest.raises(RequestError, match="holds no parameter of the model that trial.prepare returned"):
        plan(loop)


@pytest.mark.parametrize("choice", [Dilated(2), Moved(2), Inflated(2, learned=True)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_in_another_precision_is_searched(dtype, choice, tmp_path):
    found = plan(partial(usual, prepared=lambda model: model.to(dtype)))
    completed(training(found, choice, tmp_path))


def compiles_a_part(model: nn.Module) -> None:
    model[2] = torch.compile(model[2], backend="eager")


def compiles_in_place(model: nn.Module) -> None:
    model.compile(backend="eager")


@pytest.mark.parametrize("compiled", [compiles_a_part, compiles_in_place])
def test_a_model_that_is_compiled_behind_attach_is_searched(compiled, tmp_path):
    completed(training(plan(partial(usual, attached=compiled)), Moved(2), tmp_path))


class Unpicklable:
    def state_dict(self):
        return {"rule": lambda: 1}

    def load_state_dict(self, state) -> None: ...


@pytest.mark.parametrize(
    ("early", "said"), [(True, "That of rule cannot be pickled"), (False, r"keep everything before trial\.epochs")]
)
def test_what_cannot_be_kept_is_one_message_in_the_pilot(early, said):
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = sgd(model)
        trial.attach(model, optimizer)
        if early:
            trial.keep(rule=Unpicklable())
        late = lambda epoch: None if early else trial.keep(average=AveragedModel(model))  # noqa: E731
        epochs_of(trial, model, optimizer, begin=late)

    with pytest.raises(RequestError, match=said):
        plan(loop)


class Foreign:
    """A class of the user's, as an optimiser's state may hold."""


def test_a_state_that_is_not_read_back_is_one_message_in_the_pilot():
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = sgd(model)
        optimizer.param_groups[0]["rule"] = Foreign()
        trial.attach(model, optimizer)
        epochs_of(trial, model, optimizer)

    with pytest.raises(RequestError, match=r"also holds \S+Foreign, which is not read back"):
        plan(loop)


@pytest.mark.parametrize("choice", [Dilated(2), Moved(2)], ids=str)
def test_a_rate_of_numpys_goes_on_where_it_was(choice, tmp_path):
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = sgd(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 * (1 + np.cos(np.pi * n / 4)))
        trial.attach(model, optimizer)
        trial.keep(schedule=schedule)
        epochs_of(trial, model, optimizer, count=4, begin=lambda epoch: schedule.step())

    found = plan(loop)
    unbroken = completed(training(found, choice, tmp_path / "unbroken"))
    resumed = interrupted(found, choice, tmp_path / "broken", reports=2)
    assert (resumed.val, resumed.outcome, resumed.cause) == (unbroken.val, unbroken.outcome, "")
    assert resumed.cost.flop == pytest.approx(unbroken.cost.flop, rel=0.02)


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_optimizer_moves_what_is_learned(first, tmp_path):
    """In whichever order they step: the other one would move f by a rate and a decay of its own."""
    moved: list[bool] = []

    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        head = torch.optim.SGD(model[4].parameters(), lr=0.01)
        rest = [p for name, p in model.named_parameters() if not name.startswith("4.")]
        other = torch.optim.AdamW(rest, lr=0.1, weight_decay=0.5)
        before: list[dict] = []
        other.register_step_pre_hook(lambda *_: before.append(trial.learned_values()))
        other.register_step_post_hook(lambda *_: moved.append(trial.learned_values() != before.pop()))
        trial.attach(model, head, other)
        epochs_of(trial, model, *((head, other) if first else (other, head)))

    record = completed(training(plan(loop), Inflated(2, learned=True), tmp_path))
    assert len(moved) > 2
    assert not any(moved)
    assert len({value for *_, value in record.trace}) > 1  # it is learned


class Wrapped:
    """What Accelerate and Fabric return: an optimiser by class, whose hooks are those of the one inside."""

    @staticmethod
    def around(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        class Wrapper(torch.optim.Optimizer):
            def __init__(self) -> None:
                self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, optimizer.state

            def step(self, closure=None) -> None:
                optimizer.step(closure)

            def zero_grad(self, set_to_none: bool = True) -> None:
                optimizer.zero_grad(set_to_none)

            def state_dict(self):
                return optimizer.state_dict()

            def load_state_dict(self, state) -> None:
                optimizer.load_state_dict(state)

        return Wrapper()


@pytest.mark.parametrize("choice", [Dilated(2), Moved(2)], ids=str)
def test_a_wrapped_optimizer_is_followed(choice, tmp_path):
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = Wrapped.around(sgd(model))
        trial.attach(model, optimizer)
        epochs_of(trial, model, optimizer)

    record = completed(training(plan(loop), choice, tmp_path))
    assert record.steps == 4


def accelerated(model: nn.Module, optimizer: torch.optim.Optimizer):
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(model, optimizer)


def in_fabric(model: nn.Module, optimizer: torch.optim.Optimizer):
    fabric = pytest.importorskip("lightning.fabric")
    return fabric.Fabric(accelerator="cpu", devices=1).setup(model, optimizer)


@pytest.mark.parametrize("wrap", [accelerated, in_fabric])
def test_what_accelerate_and_fabric_return_is_attached_as_it_is(wrap, tmp_path):
    def loop(trial) -> None:
        prepared = trial.prepare(loops.make_model())
        model, optimizer = wrap(prepared, sgd(prepared))
        trial.attach(model, optimizer)
        epochs_of(trial, model, optimizer)

    assert interrupted(plan(loop), Moved(2), tmp_path, reports=1).steps == 4


def test_weights_that_are_frozen_at_first_are_in_the_groups(tmp_path):
    moved: list[bool] = []

    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        model[0].requires_grad_(False)
        optimizer = torch.optim.SGD(trial.parameter_groups(model, lr=0.01))
        trial.attach(model, optimizer)
        before = model[0].weight.clone()
        epochs_of(trial, model, optimizer, begin=lambda epoch: model[0].requires_grad_(epoch == 1))
        moved.append(not torch.equal(model[0].weight, before))

    completed(training(plan(loop), Moved(2), tmp_path))
    assert moved == [False, True]  # the pilot ends before


@pytest.mark.parametrize("from_epoch", [0, 1])
def test_an_optimizer_that_is_made_anew_is_one_message_at_its_second_step(from_epoch, tmp_path):
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = sgd(model)
        trial.attach(model, optimizer)
        for epoch in trial.epochs(4):
            optimizer = sgd(model) if epoch >= from_epoch else optimizer
            for x, y in loops.loader(24):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
            trial.report(val=0.5)

    said = "the SGD that moves the model was not attached. Make every optimiser once, before trial.epochs"
    if from_epoch == 0:
        with pytest.raises(RequestError, match=said):
            plan(loop)
        return
    record = finished(training(plan(loop), Dilated(2), tmp_path))
    assert record.status == "failed"
    assert said in record.cause
    assert record.steps == 3


class Both(torch.optim.Optimizer):
    """Two optimisers in one, as of the weights of a transformer and all others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {})
        self._inner = [torch.optim.SGD(model[0].parameters(), 0.01), torch.optim.AdamW(model[4].parameters())]

    def step(self, closure=None) -> None:
        for inner in self._inner:
            inner.step()


def test_optimizers_within_an_attached_one_are_no_strangers(tmp_path):
    def loop(trial) -> None:
        model = trial.prepare(loops.make_model())
        optimizer = Both(model)
        trial.attach(model, optimizer)
        epochs_of(trial, model, optimizer)

    completed(training(plan(loop), Dilated(2), tmp_path))


def test_what_is_no_model_is_one_message():
    def prepares_a_function(trial) -> None:
        trial.prepare(loops.make_model)

    def groups_a_list(trial) -> None:
        trial.parameter_groups(list(trial.prepare(loops.make_model()).parameters()), lr=0.1)

    for loop, said in ((prepares_a_function, r"such as make_model\(\)"), (groups_a_list, "the model, not its param")):
        with pytest.raises(RequestError, match=said):
            plan(loop)


def test_the_number_of_epochs_may_be_numpys():
    assert plan(partial(usual, count=np.int64(2))).space.length.epochs == 2
    for wrong in (0, 1.5, "2"):
        with pytest.raises(RequestError, match=rf"at least 1\. Got {wrong!r}"):
            plan(partial(usual, count=wrong))
