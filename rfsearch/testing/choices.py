"""What every kind of choice keeps to: a value, its words, its JSON, and what it puts into a network.

Each takes one choice of the kind, as a space may list it, and puts it at one convolution of a small network, of 3 x 3
taps and 8 channels, on maps of 24 x 32 px.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass

import torch
from torch import Tensor, nn

from rfsearch.choices import Candidate, Choice, Given, SitePath
from rfsearch.errors import RfsearchError
from rfsearch.patch import Patch, PatchSettings
from rfsearch.planning.forecaster import shapes_only
from rfsearch.receptive import receptive_field
from rfsearch.surgery import Settings, build
from rfsearch.surgery.shapes import OnShapes
from rfsearch.testing.rules import hold
from rfsearch.training.meter import Meter

_SITE = "1"
_SETTINGS = Settings(dilations=(1, 2, 4), classes=("background", "mark"))
_SIZE = (24, 32)


def choice_is_a_value(choice: Choice) -> None:
    """Check that it is a frozen dataclass: hashable, and equal to another of the same values."""
    frozen = is_dataclass(choice) and choice.__dataclass_params__.frozen
    hold(frozen, f"a kind of choice is a frozen dataclass. Got {type(choice).__name__}")
    again = type(choice).from_json(choice.to_json())
    equal = again == choice and hash(again) == hash(choice)
    hold(equal, f"choices of equal values are equal. Got {again!r} and {choice!r}")


def choice_survives_json(choice: Choice) -> None:
    """Check that a candidate with it is written and read unchanged, alone and as a guided one of several paths."""
    together: Given = [SitePath(choice, ("mark",)), choice]
    for given in (choice, together):
        candidate = Candidate({_SITE: given})
        try:
            text = candidate.to_json()
            again = Candidate.from_json(text)
        except (TypeError, RfsearchError) as error:
            raise AssertionError(
                f"a choice is written as JSON values and read by the entry point of its kind, {choice.kind!r} of group "
                f"rfsearch.choices. This one raised {error!r}"
            ) from error
        hold(again == candidate, f"a choice survives JSON unchanged. Got {candidate}, read back as {again}")
        hold(again.to_json() == text, f"a choice is always written alike. Got {text} and {again.to_json()}")


def choice_says_what_it_is(choice: Choice) -> None:
    """Check that it has words for a line, a table, a sentence and a plot, one line each, and finite numbers."""
    said = {
        "str": str(choice),
        "cell": choice.cell(choice, str),
        "described": choice.described(None, str)[0],
        "setting": choice.setting(choice, str)[0],
        "started": choice.started(str),
    }
    for name, text in said.items():
        hold(
            isinstance(text, str) and bool(text.strip()) and "\n" not in text,
            f"{name} gives a few words in one line. Got {text!r}",
        )
    wrong = {name: value for name, value in choice.numbers.items() if not 0 < value < float("inf")}
    hold(not wrong, f"the numbers of a choice are finite and above 0. Got {wrong}")
    hold(
        choice.moves is None or choice.moves in choice.numbers or not choice.numbers,
        f"training moves one of its numbers, {sorted(choice.numbers)}. Got {choice.moves!r}",
    )


def choice_becomes_something_that_stays(choice: Choice) -> None:
    """Check that what training has made of it moves no further, is a choice itself and survives JSON."""
    if choice.moves is None:
        return
    ended = choice.ended(2.5)
    hold(isinstance(ended, Choice), f"a choice becomes a choice. Got {ended!r}")
    hold(ended.moves is None, f"what a choice has become moves no further. Got {ended!r}")
    choice_survives_json(ended)


def choice_keeps_the_networks_output(choice: Choice) -> None:
    """Check that, installed, it gives maps of the size that the network takes, and gets gradients."""
    net = _installed(choice)
    expected, output = _network()(_images()).shape, net(_images())
    hold(output.shape == expected, f"the network still maps to {tuple(expected)}. Got {tuple(output.shape)}")
    output.square().mean().backward()
    missed = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    hold(not missed, f"a gradient reaches every parameter that requires one. None reaches {missed}")


def choice_leaves_the_model_alone(choice: Choice) -> None:
    """Check that it is installed on a copy: the model that was given computes what it did."""
    model = _network().eval()
    before = model(_images())
    build(model, Candidate({_SITE: choice}), _SETTINGS)
    hold(torch.equal(model(_images()), before), "installing changes the copy alone. The model's output has changed")


def choice_is_in_the_state_dict(choice: Choice) -> None:
    """Check that a network built again and given the state dict computes the same: nothing is kept elsewhere."""
    torch.manual_seed(1)
    net = _installed(choice).train()
    net(_images())
    torch.manual_seed(2)
    again = _installed(choice)
    again.load_state_dict(net.state_dict())
    _same_output(net.eval(), again.eval(), "a network built again from its state dict computes the same")


def choice_can_be_exported(choice: Choice) -> None:
    """Check that its patch, written and read, puts the same on a fresh network."""
    if choice.searched:
        return
    patch = Patch(
        "under-test",
        _SETTINGS.classes,
        Candidate({_SITE: choice}),
        PatchSettings(dilations=(1, 2, 4), border=_SETTINGS.border),
    )
    net = _installed(choice).eval()
    again = Patch.read(json.loads(json.dumps(patch.to_json())), trust=True).install(_network())
    again.load_state_dict(net.state_dict())
    _same_output(net, again.eval(), "a network that a patch is applied to computes the same")


def choice_can_be_weighed_and_traced(choice: Choice) -> None:
    """Check that its training step can be forecast, and that it has a receptive field.

    It runs on tensors without values (PyTorch's `meta` device), and every operator of it has a FLOP count.
    """
    net = shapes_only(_installed(choice)).train()
    try:
        with Meter() as meter, OnShapes():  # type: ignore[no-untyped-call]
            net(_images().to("meta")).square().mean().backward()
    except Exception as error:
        raise AssertionError(
            "an installed choice runs on tensors without values, and every operator of it has a FLOP count. "
            f"This one raised {error!r}"
        ) from error
    hold(meter.metered.flop > 0, "a training step costs some FLOP. Got 0")
    try:
        field = receptive_field(_installed(choice).eval(), (1, 3, *_SIZE))
    except RfsearchError as error:
        raise AssertionError(f"an installed choice has a receptive field. This one raised {error!r}") from error
    hold(field.px >= 1, f"a receptive field is 1 px or more. Got {field.px}")


CHOICE_CHECKS: tuple[Callable[[Choice], None], ...] = (
    choice_is_a_value,
    choice_survives_json,
    choice_says_what_it_is,
    choice_becomes_something_that_stays,
    choice_keeps_the_networks_output,
    choice_leaves_the_model_alone,
    choice_is_in_the_state_dict,
    choice_can_be_exported,
    choice_can_be_weighed_and_traced,
)


def _network() -> nn.Module:
    """Build a network from B x 3 x H x W to B x 5 x H x W; its convolution "1" is the site."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))


def _installed(choice: Choice) -> nn.Module:
    try:
        return build(_network(), Candidate({_SITE: choice}), _SETTINGS)
    except RfsearchError as error:
        raise AssertionError(f"a choice can be installed at a plain convolution. {error}") from error


def _images() -> Tensor:
    """Return noise, 2 x 3 x H x W, always the same."""
    return torch.randn(2, 3, *_SIZE, generator=torch.Generator().manual_seed(0))


def _same_output(one: nn.Module, other: nn.Module, rule: str) -> None:
    with torch.no_grad():
        a, b = one(_images()), other(_images())
    hold(a.shape == b.shape and bool(torch.allclose(a, b, atol=1e-6)), f"{rule}. Got other outputs")
