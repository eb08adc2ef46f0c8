"""What one path of a site may get: the contract of every kind of choice, and how a choice is read from JSON.

A kind is two files: its data here or in a plugin, which imports no torch, and its installer, which does. The data names
the installer by a SPEC; see `rfsearch.surgery.installing` for what an installer is given and what it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from rfsearch.choices.rounding import Room, Rounded

Number = Callable[[float], str]
"""Writes a number for a reader."""


Body = Mapping[str, object]
"""A choice as JSON values."""


class MeasuredSite(Protocol):
    """Describe a site of a network, measured.

    Attributes:
        path: Its name.
        map_size: Size of the map that it reads, px, per axis.
        largest_dilation: Largest dilation at which its kernels fit into that map.
    """

    @property
    def path(self) -> str: ...
    @property
    def map_size(self) -> tuple[int, ...]: ...
    @property
    def largest_dilation(self) -> int: ...
    def too_far(self, dilation: int, where: str) -> str:
        """Say, as the beginning of a message, that a kernel at a dilation is longer than the map."""


class Choice(ABC):
    """Say what one path of a site gets. A kind is a frozen dataclass whose fields are plain JSON values.

    The smallest kind has fields, a name, an installer and words:

        @dataclass(frozen=True)
        class Kernel(Choice):
            kind: ClassVar[str] = "kernel"
            installer: ClassVar[str] = "my_package.kernel:install"
            size: int

            def __str__(self) -> str:
                return f"kernel {self.size}"

    Attributes:
        kind: Its name in JSON and among the entry points of group `rfsearch.choices`.
        installer: SPEC of the function that puts it into a network.
    """

    kind: ClassVar[str]
    installer: ClassVar[str]

    # --- what it is ---

    @abstractmethod
    def __str__(self) -> str:
        """Return the choice in a few words, for one line of a terminal."""

    def to_json(self) -> dict[str, object]:
        """Return the choice as JSON values."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]  # a kind is a dataclass

    @classmethod
    def from_json(cls, body: Body) -> Self:
        """Read a choice of this kind back."""
        return cls(**{key: value for key, value in body.items() if key != "kind"})

    @property
    def numbers(self) -> Mapping[str, float]:
        """The numbers that tables and plots show, by name.

        `dilation`: px between the taps of its convolution; `f`: inflation factor of the map in front of it; `gamma`:
        sample stride, px.
        """
        return {}

    @property
    def whole_dilation(self) -> int | None:
        """The whole dilation that stands for it in a sweep of dilations; None where there is none."""
        return None

    @property
    def plain_dilation(self) -> int | None:
        """The whole dilation of the nearest plain convolution; None where only the trained network will do."""
        return None

    @property
    def undilated(self) -> Choice:
        """This choice at dilation 1."""
        return self

    @property
    def nearest(self) -> Choice:
        """This choice with the nearest whole dilation in place of a real one."""
        return self

    # --- what it needs and costs ---

    @property
    def dilations(self) -> tuple[int, ...]:
        """The whole dilations that installing it sets, which the network must take."""
        return ()

    @property
    def specs(self) -> tuple[str, ...]:
        """SPECs of a user's code that it puts into a network, by which a resumed run knows that this has changed."""
        return ()

    @property
    def tells_when_installed(self) -> bool:
        """Whether only installing it tells that it is available and fits, and not its dilations."""
        return not self.dilations

    @property
    def cost_changes(self) -> bool:
        """Whether what it costs is known from its trained network alone, because it changes while that is trained."""
        return False

    def misfit(self, site: MeasuredSite, kernel: int, where: str) -> str:
        """Say why a site has no room for it, as the beginning of a message; "" where it has.

        Args:
            site: The site.
            kernel: Taps per axis of an LS-DFN block.
            where: Which of several paths it is, for the message.
        """
        too_far = [dilation for dilation in self.dilations if dilation > site.largest_dilation]
        return site.too_far(too_far[0], where) if too_far else ""

    # --- what it becomes ---

    @property
    def moves(self) -> str | None:
        """The name of the number that training moves; None where it moves none."""
        return None

    @property
    def searched(self) -> bool:
        """Whether training begins with a search of all the space's dilations."""
        return False

    def ended(self, value: float) -> Choice:
        """Return what it has become.

        Args:
            value: The number that `moves` names, finite and above 0, as training left it.
        """
        return self

    def within(self, bounds: Mapping[str, tuple[float, float]]) -> Choice:
        """Return it with its numbers within bounds, which single precision may miss by its rounding."""
        return self

    def rounded(self, path: str, room: Room) -> Rounded | None:
        """Return it with whole numbers in place of real ones, or None where there are no real ones.

        Args:
            path: Its name, for the sentence about it.
            room: What its site has room for.
        """
        return None

    # --- what a report says of it ---

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        """Return it in words, and an aside on how it came about, "" where there is nothing to add.

        Args:
            end: What it has become; None before it is trained.
            number: Writes numbers.
        """
        return str(end or self), ""

    def cell(self, end: Choice, number: Number) -> str:
        """Return it for a cell of a table of dilations."""
        return str(end)

    def setting(self, start: Choice, number: Number) -> tuple[str, str]:
        """Return it as a setting to copy: of its convolution, and of what stands behind it, "" where nothing does.

        Args:
            start: What it was before training.
            number: Writes numbers.
        """
        return str(self), ""

    def started(self, number: Number) -> str:
        """Return where training began, for the legend of a plot of what it moved."""
        return str(self)
