"""The checks for kinds of choice: what ships passes them, and each of them catches a kind that breaks its rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from rfsearch import plugins, testing
from rfsearch.choices import Choice, Dilated, Fractional, Guest, Inflated, Moved, Sampled, Searched
from rfsearch.surgery import Installed, Place
from rfsearch.testing import choices as choice_checks
from tests.toys import CLIMBING


def by_name(check: Callable[..., None]) -> str:
    return check.__name__


SHIPPED = (
    Dilated(3),
    Inflated(2, 0.7),
    Inflated(2, learned=True),
    Sampled(1, 2.0, 3),
    Sampled(1, 2.0, 3, learned=True),
    Searched(2),
    Moved(2),
    Fractional(2.5),
    Guest(1, CLIMBING),
)


@pytest.mark.parametrize("choice", SHIPPED, ids=str)
@pytest.mark.parametrize("check", testing.CHOICE_CHECKS, ids=by_name)
def test_what_ships_keeps_to_it(check, choice):
    check(choice)


@dataclass(frozen=True)
class Sized(Choice):
    """A kernel of another size, which keeps to every rule."""

    kind: ClassVar[str] = "sized"
    installer: ClassVar[str] = "tests.testing.test_choices:install"

    size: int

    def __str__(self) -> str:
        return f"kernel {self.size}"


def install(choice: Sized, place: Place) -> Installed:
    conv = place.conv_2d("a size is that of one 2-D convolution")
    return Installed(place.put(nn.Conv2d(conv.in_channels, conv.out_channels, choice.size, padding=choice.size // 2)))


def of_kind(monkeypatch: pytest.MonkeyPatch, kind: type[Choice]) -> None:
    """Let a kind be an entry point."""
    shipped = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: kind if name == kind.kind else shipped(group, name))


@pytest.mark.parametrize("check", testing.CHOICE_CHECKS, ids=by_name)
def test_a_kind_of_a_few_lines_keeps_to_it(check, monkeypatch):
    of_kind(monkeypatch, Sized)
    check(Sized(5))


@dataclass
class Thawed(Choice):
    kind: ClassVar[str] = "thawed"
    installer: ClassVar[str] = "tests.testing.test_choices:install"

    size: int

    def __str__(self) -> str:
        return f"kernel {self.size}"


class Forgetful(Sized):
    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "size": 3}


class Unwritable(Sized):
    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "size": torch.tensor(self.size)}


class Silent(Sized):
    def __str__(self) -> str:
        return ""


class Numberless(Sized):
    @property
    def numbers(self) -> dict[str, float]:
        return {"dilation": float("nan")}


class Restless(Sized):
    @property
    def moves(self) -> str:
        return "size"

    def ended(self, value: float) -> Choice:
        return replace(self, size=round(value))


class Shrinking(Sized):
    installer: ClassVar[str] = "tests.testing.test_choices:install_shrinking"


def install_shrinking(choice: Sized, place: Place) -> Installed:
    conv = place.conv_2d("a size is that of one 2-D convolution")
    return Installed(place.put(nn.Conv2d(conv.in_channels, conv.out_channels, choice.size)))


class Idle(nn.Module):
    """A convolution, and a parameter that nothing reads."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.more = conv, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Unreached(Sized):
    installer: ClassVar[str] = "tests.testing.test_choices:install_unreached"


def install_unreached(choice: Sized, place: Place) -> Installed:
    return Installed(place.put(Idle(place.conv_2d("one convolution"))))


class Hidden(nn.Module):
    """A convolution times a number that no state dict holds."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.times = conv, float(torch.rand(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.times


class Untold(Sized):
    installer: ClassVar[str] = "tests.testing.test_choices:install_untold"


def install_untold(choice: Sized, place: Place) -> Installed:
    return Installed(place.put(Hidden(place.conv_2d("one convolution"))))


class Deciding(nn.Module):
    """A convolution whose way depends on what it reads."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if float(x.sum()) < 1e9 else x


class Unweighed(Sized):
    installer: ClassVar[str] = "tests.testing.test_choices:install_unweighed"


def install_unweighed(choice: Sized, place: Place) -> Installed:
    return Installed(place.put(Deciding(place.conv_2d("one convolution"))))


class Absent(Sized):
    installer: ClassVar[str] = "tests.testing.test_choices:nothing_here"


class Empty(Sized):
    installer: ClassVar[str] = "tests.testing.test_choices:install_nothing"


def install_nothing(choice: Sized, place: Place) -> Any:
    return None


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (Thawed, choice_checks.choice_is_a_value, "a frozen dataclass"),
        (Forgetful, choice_checks.choice_survives_json, "survives JSON unchanged"),
        (Unwritable, choice_checks.choice_survives_json, "written as JSON values"),
        (Silent, choice_checks.choice_says_what_it_is, "a few words in one line. Got ''"),
        (Numberless, choice_checks.choice_says_what_it_is, "finite and above 0"),
        (Restless, choice_checks.choice_becomes_something_that_stays, "moves no further"),
        (Shrinking, choice_checks.choice_keeps_the_networks_output, "the network still maps to"),
        (Unreached, choice_checks.choice_keeps_the_networks_output, "None reaches .*more"),
        (Untold, choice_checks.choice_is_in_the_state_dict, "computes the same"),
        (Untold, choice_checks.choice_can_be_exported, "computes the same"),
        (Unweighed, choice_checks.choice_can_be_weighed_and_traced, "tensors without values"),
        (Absent, choice_checks.choice_keeps_the_networks_output, "no callable 'nothing_here'"),
        (Empty, choice_checks.choice_keeps_the_networks_output, "returns Installed. Got None"),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
def test_a_broken_kind_is_caught(kind, check, said, monkeypatch):
    of_kind(monkeypatch, kind)
    with pytest.raises(AssertionError, match=said):
        check(kind(5))


def test_a_kind_without_its_entry_point_is_caught():
    with pytest.raises(AssertionError, match="'sized' of group rfsearch.choices"):
        choice_checks.choice_survives_json(Sized(11))  # which nothing has read while it was an entry point
