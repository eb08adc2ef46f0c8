"""What kinds of choice share whose convolution has a whole dilation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from rfsearch.choices import values
from rfsearch.choices.base import Body, Choice, Number


@dataclass(frozen=True)
class WholeDilation(Choice):
    """Say what follows from the whole dilation of a site's convolution. A kind adds what is its own.

    Attributes:
        dilation: Distance between taps, px of the map that the convolution reads, at least 1.
    """

    dilation: int

    def __post_init__(self) -> None:
        values.fix(self, dilation=values.dilation(self.dilation))

    @classmethod
    def from_json(cls, body: Body) -> Self:
        return cls(values.dilation(body["dilation"]))

    @property
    def numbers(self) -> dict[str, float]:
        return {"dilation": self.dilation}

    @property
    def whole_dilation(self) -> int | None:
        return self.dilation

    @property
    def undilated(self) -> Self:
        return replace(self, dilation=1)

    @property
    def dilations(self) -> tuple[int, ...]:
        return (self.dilation,)

    def cell(self, end: Choice, number: Number) -> str:
        return number(self.dilation)

    def setting(self, start: Choice, number: Number) -> tuple[str, str]:
        return f"dilation {self.dilation}", ""

    def started(self, number: Number) -> str:
        return f"dilation {self.dilation}"
