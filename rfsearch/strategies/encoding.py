"""A space as named dimensions: what searches that draw fixed values look at, whatever the form of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rfsearch.space import LSDFN, Candidate, Choice, Space


@dataclass(frozen=True)
class Ordered:
    """A dimension with the values `values`, in ascending order; a parameter is an index into it."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Real:
    """A dimension from `low` to `high`, searched evenly in its logarithm."""

    low: float
    high: float


class Encoding:
    """Candidates of a space as parameters by dimension, and back.

    Single path and parallel paths: a dilation and a fixed real f a path; paths that differ in their order only are one
    candidate. LS-DFN: a sample stride and the number of regions.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.dimensions: dict[str, Ordered | Real] = {}
        sampling = space.sampling
        for site in space.sites:
            if space.form == LSDFN:
                self.dimensions[f"{site}/gamma"] = Real(min(sampling.gammas), max(sampling.gammas))
                self.dimensions[f"{site}/s"] = Ordered(tuple(sorted(sampling.regions)))
                continue
            for path in self._paths(site):
                self.dimensions[f"{path}/dilation"] = Ordered(tuple(sorted(space.dilations)))
                self.dimensions[f"{path}/f"] = Real(*space.f_search)

    def candidate(self, parameters: Mapping[str, float]) -> Candidate:
        """The candidate that parameters stand for, real values rounded to four decimals within their range."""
        chosen: dict[str, Choice | Sequence[Choice]] = {}
        for site in self._space.sites:
            if self._space.form == LSDFN:
                regions = self._value(parameters, f"{site}/s")
                chosen[site] = self._space.sampled(self._rounded(parameters, f"{site}/gamma"), regions)
            else:
                chosen[site] = sorted(
                    Choice(self._value(parameters, f"{path}/dilation"), f=self._rounded(parameters, f"{path}/f"))
                    for path in self._paths(site)
                )
        return Candidate.of(chosen)

    def parameters(self, candidate: Candidate) -> dict[str, float]:
        """The parameters of a candidate of this space."""
        found: dict[str, float] = {}
        for path, choice in candidate:
            if choice.sampling:
                found[f"{path}/gamma"] = self._within(f"{path}/gamma", choice.sampling.gamma)
                found[f"{path}/s"] = self._index(f"{path}/s", choice.sampling.s)
            else:
                found[f"{path}/dilation"] = self._index(f"{path}/dilation", choice.dilation)
                found[f"{path}/f"] = self._within(f"{path}/f", choice.f)
        return found

    def _paths(self, site: str) -> list[str]:
        """The names of a site's paths, as `Candidate` gives them."""
        paths = self._space.path_set
        return [f"{site}/{number}" for number in range(1, len(paths.manual) + 1)] if paths else [site]

    def _value(self, parameters: Mapping[str, float], name: str) -> int:
        dimension = self.dimensions[name]
        assert isinstance(dimension, Ordered)
        return dimension.values[int(parameters[name])]

    def _rounded(self, parameters: Mapping[str, float], name: str) -> float:
        return self._within(name, round(parameters[name], 4))

    def _index(self, name: str, value: int) -> int:
        """Where a value stands, or for one that is no value of the search (a hand default) the nearest."""
        dimension = self.dimensions[name]
        assert isinstance(dimension, Ordered)
        return min(range(len(dimension.values)), key=lambda i: abs(dimension.values[i] - value))

    def _within(self, name: str, value: float) -> float:
        dimension = self.dimensions[name]
        assert isinstance(dimension, Real)
        return min(max(value, dimension.low), dimension.high)
