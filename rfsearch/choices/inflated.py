"""An inflation factor in front of a dilated convolution, fixed or learned (Wei et al., eq. 1-11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from rfsearch.choices import values
from rfsearch.choices.base import Body, Choice, Number
from rfsearch.choices.dilated import Dilated
from rfsearch.choices.rounding import Room, Rounded, rounded_taps
from rfsearch.choices.whole import WholeDilation
from rfsearch.errors import SpaceError


@dataclass(frozen=True)
class Inflated(WholeDilation):
    """Inflate the input map of a site's dilated convolution by f, and bring its output map back.

    A fixed f is not 1, which is a plain dilation; `inflated` makes the one or the other.

    Attributes:
        dilation: Distance between taps, px of the inflated map, at least 1.
        f: Inflation factor (Wei eq. 1), dimensionless, above 0; taps are dilation / f px of the map apart.
        learned: Whether training moves f away from that value.

    Example:
        >>> Inflated(4, learned=True).ended(0.8).spacing
        5.0
    """

    kind: ClassVar[str] = "inflated"
    installer: ClassVar[str] = "rfsearch.surgery.inflated:install"

    f: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        values.fix(self, dilation=values.dilation(self.dilation), f=values.real(self.f, "an inflation factor"))
        if not 0 < self.f < float("inf"):
            raise SpaceError(f"an inflation factor is greater than 0 and finite. Got {self.f}.")
        if self.f == 1.0 and not self.learned:
            raise SpaceError(
                "a fixed inflation factor of 1 leaves the map as it is, which is a plain dilation. "
                f"Nearest: Dilated({self.dilation})."
            )

    def __str__(self) -> str:
        return f"d={self.dilation}, " + (f"f learned from {self.f:g}" if self.learned else f"f={self.f:.3g}")

    def to_json(self) -> dict[str, object]:
        learned: dict[str, object] = {"learned": True} if self.learned else {}
        return {"dilation": self.dilation, "f": self.f, **learned}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        f = values.real(body.get("f", 1.0), "an inflation factor")
        return cls(values.dilation(body["dilation"]), f, bool(body.get("learned", False)))

    @property
    def numbers(self) -> dict[str, float]:
        return {"dilation": self.dilation, "f": self.f}

    @property
    def spacing(self) -> float:
        """Distance between taps, px of the map as it is."""
        return self.dilation / self.f

    @property
    def plain_dilation(self) -> int:
        return max(1, round(self.spacing))

    @property
    def moves(self) -> str | None:
        return "f" if self.learned else None

    def ended(self, value: float) -> Choice:
        return inflated(self.dilation, value)

    def within(self, bounds: Mapping[str, tuple[float, float]]) -> Choice:
        return inflated(self.dilation, values.clamped(self.f, bounds["f"]))

    def rounded(self, path: str, room: Room) -> Rounded | None:
        if self.f == 1.0:
            return None
        said = f"{path}: dilation {self.dilation} behind f = {self.f:.4g} is {self.spacing:.4g} px between taps"
        return rounded_taps(said, self.spacing, room)

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        f = (end or self).numbers.get("f", 1.0)
        learned = f" learned from {number(self.f)}" if self.learned else ""
        return f"dilation {self.dilation} with f = {number(f)}{learned}", ""

    def setting(self, start: Choice, number: Number) -> tuple[str, str]:
        if self.f == 1.0:
            return f"dilation {self.dilation}", ""
        return (
            f"dilation {self.dilation} behind a map inflated by f = {number(self.f)}; nearest plain dilation "
            f"{self.plain_dilation} ({self.dilation} / {number(self.f)} = {number(self.spacing)})"
        ), ""

    def started(self, number: Number) -> str:
        return f"dilation {self.dilation}" + (f", f from {number(self.f)}" if self.f != 1.0 else "")


def inflated(dilation: int, f: float) -> Choice:
    """Return a dilation behind a fixed inflation factor, a plain one where that is 1."""
    return Inflated(dilation, f) if f != 1.0 else Dilated(dilation)
