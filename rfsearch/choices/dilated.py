"""A whole dilation, set by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rfsearch.choices.base import Choice, Number
from rfsearch.choices.whole import WholeDilation


@dataclass(frozen=True)
class Dilated(WholeDilation):
    """Dilate a site's convolution by a whole number, or multiply the dilations in its container or span.

    Attributes:
        dilation: Distance between taps, px of the map, at least 1.

    Example:
        >>> str(Dilated(4))
        'd=4'
    """

    kind: ClassVar[str] = "dilated"
    installer: ClassVar[str] = "rfsearch.surgery.dilated:install"

    def __str__(self) -> str:
        return f"d={self.dilation}"

    def to_json(self) -> dict[str, object]:
        return {"dilation": self.dilation}

    @property
    def plain_dilation(self) -> int:
        return self.dilation

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        return f"dilation {number(self.dilation)}", ""
