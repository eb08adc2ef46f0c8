"""Networks whose kernels are computed from others at every pass train, and every operator of that is counted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.choices import Choice, Dilated, Inflated
from rfsearch.ledger import Assignment
from rfsearch.planning.forecaster import Forecaster
from rfsearch.receptive import receptive_field
from rfsearch.tasks.from_space import task_of
from rfsearch.training import Meter, Order, Training
from tests.toys import toy_faces, toy_space

NETWORKS = """
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from rfsearch.backbones.small import wei_small


def normed(norm, args):
    net = wei_small(*args)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(module, name, norm(child))
    return net


def weight_parametrization(classes, channels=3):
    return normed(parametrizations.weight_norm, (classes, channels))


def weight_hook(classes, channels=3):
    return normed(weight_norm, (classes, channels))


def spectral_hook(classes, channels=3):
    return normed(spectral_norm, (classes, channels))


def spectral_parametrization(classes, channels=3):
    return normed(parametrizations.spectral_norm, (classes, channels))
"""


FORMS = ("weight_hook", "weight_parametrization", "spectral_hook", "spectral_parametrization")
DILATED, INFLATED = Dilated(2), Inflated(2, 1.3)


@pytest.mark.parametrize(
    ("form", "choice"),
    [
        (FORMS[1], INFLATED),
        (FORMS[2], DILATED),
        *(
            pytest.param(form, choice, marks=pytest.mark.slow)
            for form in FORMS
            for choice in (DILATED, INFLATED)
            if (form, choice) not in ((FORMS[1], INFLATED), (FORMS[2], DILATED))
        ),
    ],
    ids=str,
)
def test_a_network_with_normed_weights_trains_at_the_cost_forecast(tmp_path: Path, form: str, choice: Choice) -> None:
    (tmp_path / "normed.py").write_text(NETWORKS)
    space = toy_space(tmp_path, steps=3).with_(backbone=f"{tmp_path}/normed.py:{form}")
    data, cpu = toy_faces(), torch.device("cpu")
    candidate = space.uniform(choice)
    order = Assignment("t-0-000", "exhaustive", 0, candidate.to_json(), 7, 1e18)
    training = Training(space, data, Order(order, "flop", cpu, tmp_path / "t"))
    while (record := training.advance()).status == "pruned":
        pass
    task = task_of(space, data)
    forecast = Forecaster(space, task, data, cpu, flop_per_s=1e9)(candidate)
    plain = Forecaster(space.with_(backbone="wei-small"), task, data, cpu, flop_per_s=1e9)(candidate)
    assert record.status == "completed"
    assert record.cost.flop > plain.cost.flop
    # A pass computes the kernels once. The forecast is of images one by one; they were scored as 2 x 4,
    # 2 x (4 + 2) and, for the report's pictures, 4.
    net = plugins.make_backbone(space.backbone, data.num_classes)
    kernels = 2 * evaluation_of(net, 1, data.image_size) - evaluation_of(net, 2, data.image_size)
    assert kernels > 0
    assert forecast.cost.flop - record.cost.flop == (2 * 3 + 2 * (3 + 1) + 3) * kernels
    assert record.rf_px == forecast.rf_px == plain.rf_px


@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.weight_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_a_step_of_normed_weights_is_metered_on_shapes_and_on_numbers_alike(
    norm: Callable[[nn.Module], nn.Module],
) -> None:
    plain = step_of(nn.Conv2d(2, 4, 3), "cpu")
    assert step_of(norm(nn.Conv2d(2, 4, 3)), "cpu") == step_of(norm(nn.Conv2d(2, 4, 3)), "meta") > plain
    assert receptive_field(norm(nn.Conv2d(2, 4, 3)), (1, 2, 12, 12)).px == 3


@torch.no_grad()
def evaluation_of(net: nn.Module, images: int, size: Sequence[int]) -> float:
    """The FLOP of one pass in evaluation."""
    with Meter() as meter:
        net.eval()(torch.ones(images, 3, *size))
    return meter.flop


def step_of(net: nn.Module, device: str) -> float:
    """The FLOP of one pass there and back."""
    net = net.to(device)
    with Meter() as meter:
        net(torch.ones(1, 2, 12, 12, device=device)).sum().backward()
    return meter.flop
