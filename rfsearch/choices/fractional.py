"""A real dilation: taps between the pixels of the map, read bilinearly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from rfsearch.choices import values
from rfsearch.choices.base import Body, Choice, Number
from rfsearch.choices.dilated import Dilated
from rfsearch.choices.rounding import Room, Rounded, rounded_taps
from rfsearch.errors import SpaceError

# A dilation that misses a whole number by this fraction is whole: a learned one is kept in single precision.
_WHOLE = 2.0**-20


@dataclass(frozen=True)
class Fractional(Choice):
    """Give a site's 2-D convolution a real dilation, as training found it or as given.

    Attributes:
        dilation: Distance between taps, px of the map, above 0.

    Example:
        >>> Fractional(3.56).nearest
        Dilated(dilation=4)
    """

    kind: ClassVar[str] = "fractional"
    installer: ClassVar[str] = "rfsearch.surgery.fractional:install"

    dilation: float

    def __post_init__(self) -> None:
        values.fix(self, dilation=values.real(self.dilation, "a real dilation"))
        if not 0 < self.dilation < float("inf"):
            raise SpaceError(f"a real dilation is greater than 0 px and finite. Got {self.dilation}.")

    def __str__(self) -> str:
        return f"d={self.dilation:.3g}"

    @classmethod
    def from_json(cls, body: Body) -> Self:
        """Read one back; before kinds had names, it was written as a whole dilation over a factor."""
        return cls(values.real(body["dilation"], "a real dilation") / values.real(body.get("f", 1.0), "a factor"))

    @property
    def numbers(self) -> dict[str, float]:
        return {"dilation": self.dilation}

    @property
    def whole_dilation(self) -> int:
        return max(1, round(self.dilation))

    @property
    def plain_dilation(self) -> int:
        return self.whole_dilation

    @property
    def undilated(self) -> Fractional:
        return Fractional(1.0)

    @property
    def nearest(self) -> Dilated:
        return Dilated(self.whole_dilation)

    @property
    def dilations(self) -> tuple[int, ...]:
        return (self.whole_dilation,)

    def rounded(self, path: str, room: Room) -> Rounded | None:
        return rounded_taps(f"{path}: dilation {self.dilation:.4g}", self.dilation, room)

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        return f"dilation {number(self.dilation)}", ""

    def cell(self, end: Choice, number: Number) -> str:
        return number(self.dilation)

    def setting(self, start: Choice, number: Number) -> tuple[str, str]:
        return f"dilation {number(self.dilation)}", ""

    def started(self, number: Number) -> str:
        return f"dilation {number(self.dilation)}"


def real_dilation(value: float) -> Dilated | Fractional:
    """Return a real dilation, a plain one where it is whole."""
    whole = max(1, round(value))
    return Dilated(whole) if abs(value - whole) <= _WHOLE * whole else Fractional(value)
