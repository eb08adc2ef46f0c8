"""A dilation that training moves from a start, as a real number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rfsearch.choices.base import Choice, Number
from rfsearch.choices.fractional import real_dilation
from rfsearch.choices.whole import WholeDilation


@dataclass(frozen=True)
class Moved(WholeDilation):
    """Let the gradient move the dilation of a site's convolution, at the cost of one convolution.

    It stands still for the recipe's `f_delay`. Where it is not that of one 2-D convolution whose output keeps its
    size, it stays.

    Attributes:
        dilation: The whole dilation that it starts from, px of the map between taps.

    Example:
        >>> Moved(8).ended(5.3)
        Fractional(dilation=5.3)
    """

    kind: ClassVar[str] = "moved"
    installer: ClassVar[str] = "rfsearch.surgery.searched:install"

    def __str__(self) -> str:
        return f"d learned from {self.dilation}"

    @property
    def plain_dilation(self) -> int:
        return self.dilation

    @property
    def moves(self) -> str | None:
        return "dilation"

    def ended(self, value: float) -> Choice:
        return real_dilation(value)

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        start = "" if end else " to start from"
        return f"dilation {number((end or self).numbers['dilation'])}{start}", f"learned from {self.dilation}"

    def cell(self, end: Choice, number: Number) -> str:
        return f"{self.dilation} → {number(end.numbers['dilation'])}"
