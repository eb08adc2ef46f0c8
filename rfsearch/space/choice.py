"""What one site gets, and a whole candidate: a frozen map from sites to choices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rfsearch.errors import SpaceError


@dataclass(frozen=True, order=True)
class Choice:
    """The receptive field of one site.

    dilation: integer dilation of the site's convolution, >= 1.
    f: inflation factor of the map in front of it (Wei eq. 1), dimensionless, > 0; 1 leaves the map alone.
    learned: whether training may move f away from that value.
    """

    dilation: int
    f: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        if self.dilation < 1:
            raise SpaceError(f"a dilation is an integer of at least 1. Got {self.dilation}.")
        if not self.f > 0:
            raise SpaceError(f"an inflation factor is greater than 0. Got {self.f}.")

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"dilation": self.dilation}
        if self.f != 1.0 or self.learned:
            body["f"] = self.f
        if self.learned:
            body["learned"] = True
        return body

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Choice:
        return Choice(int(body["dilation"]), float(body.get("f", 1.0)), bool(body.get("learned", False)))

    def __str__(self) -> str:
        if self.learned:
            return f"d={self.dilation}, f learned from {self.f:g}"
        return f"d={self.dilation}" if self.f == 1.0 else f"d={self.dilation}, f={self.f:.3g}"


@dataclass(frozen=True, order=True)
class Candidate:
    """A frozen, hashable map site -> choice, ordered by site, that survives JSON unchanged."""

    choices: tuple[tuple[str, Choice], ...]

    @staticmethod
    def of(choices: Mapping[str, Choice]) -> Candidate:
        return Candidate(tuple(sorted(choices.items())))

    @staticmethod
    def from_json(text: str) -> Candidate:
        return Candidate.of({site: Choice.from_json(body) for site, body in json.loads(text).items()})

    def to_json(self) -> str:
        return json.dumps({site: choice.to_json() for site, choice in self.choices}, sort_keys=True)

    def __iter__(self) -> Iterator[tuple[str, Choice]]:
        return iter(self.choices)

    @property
    def learned(self) -> bool:
        """Whether training may change this candidate's receptive field."""
        return any(choice.learned for _, choice in self.choices)

    def __str__(self) -> str:
        return "; ".join(f"{site}: {choice}" for site, choice in self.choices)
