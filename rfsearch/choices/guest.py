"""A user's layer in place of a convolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from rfsearch.choices import values
from rfsearch.choices.base import Body, Choice, Number
from rfsearch.choices.whole import WholeDilation
from rfsearch.errors import SpaceError


@dataclass(frozen=True)
class Guest(WholeDilation):
    """Put a user's layer in the place of a site's 2-D convolution; see `rfsearch.surgery.guest`.

    Attributes:
        dilation: The whole dilation that it starts from, px of the map between taps.
        layer: SPEC of what makes it, `package.module:callable` or `path/to/file.py:callable`.
        found: The dilation that it had found when training ended, px; None where it found none, or has not been
            trained.

    Example:
        >>> Guest(2, "my_layers:adaptive").name
        'adaptive'
    """

    kind: ClassVar[str] = "guest"
    installer: ClassVar[str] = "rfsearch.surgery.guest:install"

    layer: str
    found: float | None = None

    def __post_init__(self) -> None:
        values.fix(self, dilation=values.dilation(self.dilation))
        if not isinstance(self.layer, str):
            raise SpaceError(f"a layer is named by its SPEC, a text. Got {self.layer!r}.")
        if not all(self.layer.rpartition(":")):
            raise SpaceError(
                f"a layer is a SPEC, package.module:callable or path/to/file.py:callable. Got {self.layer!r}."
            )
        if self.found is not None:
            values.fix(self, found=values.real(self.found, "a dilation that a layer has found"))
            if not values.is_end(self.found):
                raise SpaceError(f"a dilation that a layer has found is greater than 0 px. Got {self.found}.")

    def __str__(self) -> str:
        return f"d={self.whole_dilation}, layer {self.name}"

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {} if self.found is None else {"found": self.found}
        return {"dilation": self.dilation, "layer": self.layer, **found}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        found = body.get("found")
        ended = None if found is None else values.real(found, "a dilation that a layer has found")
        return cls(values.dilation(body["dilation"]), str(body["layer"]), ended)

    @property
    def name(self) -> str:
        """The name of the layer's callable."""
        return self.layer.rpartition(":")[2]

    @property
    def numbers(self) -> dict[str, float]:
        return {"dilation": self.whole_dilation}

    @property
    def whole_dilation(self) -> int:
        return self.dilation if self.found is None else max(1, round(self.found))

    @property
    def nearest(self) -> Guest:
        return Guest(self.whole_dilation, self.layer)

    @property
    def specs(self) -> tuple[str, ...]:
        return (self.layer,)

    @property
    def tells_when_installed(self) -> bool:
        return True

    @property
    def cost_changes(self) -> bool:
        return True

    @property
    def moves(self) -> str | None:
        return "dilation" if self.found is None else None

    def ended(self, value: float) -> Guest:
        return replace(self, found=value)

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        said = f"dilation {number((end or self).numbers['dilation'])} with layer {self.name}"
        return said, f"found in training from {self.dilation}" if end and not end.moves else ""

    def cell(self, end: Choice, number: Number) -> str:
        found = "" if end.moves else f" → {end.whole_dilation}"
        return f"{number(self.dilation)}{found} ({self.name})"

    def setting(self, start: Choice, number: Number) -> tuple[str, str]:
        return f"dilation {self.whole_dilation}, with the layer {self.layer}", ""
