"""Averaged weights that a loop scores are kept, whatever averages, wraps or compiles them."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rfsearch.choices import Dilated, Inflated, Moved, Searched
from rfsearch.errors import RequestError
from tests.own_loop import loops
from tests.own_loop.trials import completed, kept_score, plan, training

timm = pytest.importorskip("timm")


class Holder(nn.Module):
    """A model as trainers hold it, beside another."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net, self.other = model, nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Average(NamedTuple):
    """Averaged weights of what a loop trains.

    Attributes:
        make: Makes them of a model.
        update: Updates them with the model.
        change: What the loop does with the prepared model before.
    """

    make: Callable[[nn.Module], nn.Module]
    update: Callable[[nn.Module, nn.Module], object] = lambda averaged, model: averaged.update_parameters(model)
    change: Callable[[nn.Module], nn.Module] = lambda model: model


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compiled_in_part(model: nn.Module) -> nn.Module:
    model[2] = compiled(model[2])
    return model


TORCHS = Average(AveragedModel)
AVERAGES = {
    "timm's": Average(
        lambda model: timm.utils.ModelEmaV3(model, decay=0.5), lambda average, model: average.update(model)
    ),
    "of a compiled model": Average(AveragedModel, change=compiled),
    "of a model compiled in part": Average(AveragedModel, change=compiled_in_part),
    "compiled": Average(
        lambda model: compiled(AveragedModel(model)), lambda average, model: average._orig_mod.update_parameters(model)
    ),
    "in a holder": Average(AveragedModel, change=Holder),
}
CHOICES = [Dilated(2), Inflated(2, learned=True), Moved(2), Searched(2)]


def averaging(average: Average, copied: str = "before", scored: Callable[[nn.Module], object] = lambda copy: copy):
    """Return a loop that scores averaged weights, whose copy is made before or after the model is attached."""

    def train(trial) -> None:
        model = average.change(trial.prepare(loops.make_model()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        averaged = average.make(model) if copied == "before" else None
        trial.attach(model, optimizer, look=loops.scorer(model))
        averaged = average.make(model) if averaged is None else averaged
        trial.keep(averaged=averaged)
        for _ in trial.epochs(2):
            for x, y in loops.loader(16):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
                average.update(averaged, model)
            trial.report(val=loops.scorer(averaged)())
        trial.finish(val=loops.scorer(averaged)(), model=scored(averaged))

    return train


@pytest.mark.parametrize("copied", ["before", "after"])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_averaged_weights_are_scored_and_kept(choice, copied, tmp_path):
    found = plan(averaging(TORCHS, copied))
    record = completed(training(found, choice, tmp_path))
    assert kept_score(found, tmp_path) == pytest.approx(record.val, rel=1e-5)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
def test_weights_averaged_and_wrapped_in_any_way_fit_the_plain_model(average, choice, tmp_path):
    found = plan(averaging(average))
    record = completed(training(found, choice, tmp_path))
    assert kept_score(found, tmp_path) == pytest.approx(record.val, rel=1e-5)


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("choice", [Dilated(2), Moved(2)], ids=str)
@pytest.mark.parametrize("change", [compiled, compiled_in_part, compiled_in_place])
def test_a_compiled_model_is_kept_as_it_was_written(change, choice, tmp_path):
    def train(trial) -> None:
        model = change(trial.prepare(loops.make_model()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        trial.attach(model, optimizer)
        for _ in trial.epochs(2):
            model(torch.ones(loops.INPUT)).square().mean().backward()
            optimizer.step()
        trial.finish(val=loops.scorer(model)())

    found = plan(train, budget="20x")
    record = completed(training(found, choice, tmp_path))
    assert kept_score(found, tmp_path) == pytest.approx(record.val, rel=1e-5)


@pytest.mark.parametrize(
    ("scored", "said"),
    [
        (
            lambda averaged: loops.make_model()[:3],
            r"No part of this Sequential has the same parameters: it has 0\.weig",
        ),
        (lambda averaged: averaged.state_dict(), "takes a torch.nn.Module. Got OrderedDict"),
        (lambda averaged: nn.ModuleList([averaged, loops.make_model()]), "holds 2: pass the one that was scored"),
        (lambda averaged: nn.ReLU(), "it has none; the prepared model has 0.weight, 0.bias, 2.weight"),
    ],
)
def test_what_is_no_copy_of_the_model_is_one_message_before_anything_is_searched(scored, said):
    with pytest.raises(RequestError, match=said):
        plan(averaging(TORCHS, scored=scored))
