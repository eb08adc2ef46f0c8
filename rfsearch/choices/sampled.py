"""An LS-DFN block behind a convolution (Wu et al., ECCV 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from rfsearch.choices import values
from rfsearch.choices.base import Body, Choice, MeasuredSite, Number
from rfsearch.choices.rounding import Room, Rounded
from rfsearch.choices.whole import WholeDilation
from rfsearch.errors import SpaceError


@dataclass(frozen=True)
class Sampled(WholeDilation):
    """Put an LS-DFN block behind a site's convolution, concatenated to its output.

    Attributes:
        dilation: Distance between the convolution's taps, px of the map, at least 1.
        gamma: Sample stride: distance between sampled regions, px of the site's map, above 0.
        s: Regions per axis, odd; 1 is the plain dynamic filter network, for which gamma means nothing.
        learned: Whether training moves gamma.

    Example:
        >>> Sampled(1, gamma=2.0, s=3, learned=True).moves
        'gamma'
    """

    kind: ClassVar[str] = "sampled"
    installer: ClassVar[str] = "rfsearch.surgery.sampled:install"

    gamma: float
    s: int = 5
    learned: bool = False

    def __post_init__(self) -> None:
        gamma = values.real(self.gamma, "a sample stride gamma")
        s = values.whole(self.s, "s, regions an axis,")
        values.fix(self, dilation=values.dilation(self.dilation), gamma=gamma, s=s)
        if not 0 < self.gamma < float("inf"):
            raise SpaceError(f"a sample stride gamma is greater than 0 px. Got {self.gamma}.")
        if self.s < 1 or self.s % 2 == 0:
            raise SpaceError(
                f"an LS-DFN block samples s x s regions with s odd and at least 1. Got s={self.s}. "
                f"Nearest: {max(1, self.s + 1)}."
            )

    def __str__(self) -> str:
        return f"d={self.dilation}, LS-DFN s={self.s} gamma={'learned from ' * self.learned}{self.gamma:.3g}"

    def to_json(self) -> dict[str, object]:
        learned: dict[str, object] = {"gamma_learned": True} if self.learned else {}
        return {"dilation": self.dilation, "gamma": self.gamma, "s": self.s, **learned}

    @classmethod
    def from_json(cls, body: Body) -> Self:
        gamma, s = values.real(body["gamma"], "a sample stride gamma"), values.whole(body["s"], "s, regions an axis,")
        return cls(values.dilation(body["dilation"]), gamma, s, bool(body.get("gamma_learned", False)))

    @property
    def numbers(self) -> dict[str, float]:
        return {"dilation": self.dilation, "gamma": self.gamma, "s": self.s}

    @property
    def whole_dilation(self) -> None:
        return None  # no dilation of a sweep stands for the block

    def misfit(self, site: MeasuredSite, kernel: int, where: str) -> str:
        if too_far := super().misfit(site, kernel, where):
            return too_far
        room, span = min(site.map_size) - kernel, self.gamma * (self.s - 1)
        if span <= room:
            return ""
        size = " x ".join(map(str, site.map_size))
        return (
            f"{self.s} x {self.s} regions at sample stride {self.gamma:g} span {span + kernel:g} px, the map is {size} "
            f"px. Largest sample stride that fits: {room / (self.s - 1):.3g}."
        )

    @property
    def moves(self) -> str | None:
        return "gamma" if self.learned else None

    def ended(self, value: float) -> Sampled:
        return replace(self, gamma=value, learned=False)

    def within(self, bounds: Mapping[str, tuple[float, float]]) -> Sampled:
        return replace(self, gamma=values.clamped(self.gamma, bounds["gamma"]))

    def rounded(self, path: str, room: Room) -> Rounded | None:
        if self.s == 1 or self.gamma % 1 == 0:
            return None
        most = max(1, room.span // (self.s - 1))
        whole = replace(self, gamma=float(min(max(1, math.floor(self.gamma + 0.5)), most)))
        notice = f"{path}: sample stride {self.gamma:.4g} px. Rounded: {whole.gamma:g}."
        return Rounded(whole, whole, None, notice)

    def described(self, end: Choice | None, number: Number) -> tuple[str, str]:
        return f"dilation {self.dilation} and {self._block(self, (end or self).numbers['gamma'], number)}", ""

    def setting(self, start: Choice, number: Number) -> tuple[str, str]:
        return f"dilation {self.dilation}", self._block(start, self.gamma, number)

    def started(self, number: Number) -> str:
        return f"γ from {number(self.gamma)}"

    def _block(self, start: Choice, gamma: float, number: Number) -> str:
        """Describe the block by where it started and the sample stride that it ended with."""
        if self.s == 1:
            return "a dynamic filter behind it"
        learned = f" learned from {number(start.numbers['gamma'])}" if start.moves else ""
        return f"LS-DFN of {self.s} × {self.s} regions, γ = {number(gamma)}{learned}, behind it"
