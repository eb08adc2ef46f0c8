"""A dilation that one training finds by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rfsearch.choices.base import Choice, Number
from rfsearch.choices.fractional import real_dilation
from rfsearch.choices.whole import WholeDilation


@dataclass(frozen=True)
class Searched(WholeDilation):
    """Let training find the dilation of a site's convolution, at the cost of one convolution.

    Attributes:
        dilation: The whole dilation that the network is built with, px of the map between taps. The search, which tries
            all the space's dilations, does not depend on it.

    Example:
        >>> Searched(2).ended(3.5)
        Fractional(dilation=3.5)
    """

    kind: ClassVar[str] = "searched"
    installer: ClassVar[str] = "rfsearch.surgery.searched:install"

    def __str__(self) -> str:
        return "d to be found"

    def to_json(self) -> dict[str, object]:
        return {"dilation": self.dilation, "fractional": True}

    @property
    def plain_dilation(self) -> int:
        return self.dilation

    @property
    def moves(self) -> str | None:
        return "dilation"

    @property
    def searched(self) -> bool:
        return True

    def ended(self, value: float) -> Choice:
        return real_dilation(value)

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        start = "" if end else " to start from"
        return f"dilation {number((end or self).numbers['dilation'])}{start}", "found in training"

    def cell(self, end: Choice, number: Number) -> str:
        return f"found {number(end.numbers['dilation'])}"
