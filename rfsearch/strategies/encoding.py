"""A space as named dimensions: what searches that draw fixed values look at, whatever the form of the space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rfsearch.choices import Candidate, Given, inflated
from rfsearch.space import LSDFN, SearchSpace
from rfsearch.strategies.kinds import choices_at_a_site


@dataclass(frozen=True)
class Ordered:
    """List the values of a dimension; a parameter is an index into them.

    Attributes:
        values: In ascending order.
    """

    values: tuple[int, ...]


@dataclass(frozen=True)
class Real:
    """Bound a dimension that is searched evenly in its logarithm.

    Attributes:
        low: Smallest value, above 0.
        high: Largest value.
    """

    low: float
    high: float


class Encoding:
    """Translate candidates of a space into parameters by dimension, and back.

    A path has a dilation and a fixed real f; paths that differ in their order only are one candidate. A site of a space
    that lists choices gets one of these or a dilation, and where cost is an objective one of every kind. An LS-DFN
    block has a sample stride and a number of regions.

    Attributes:
        dimensions: By name, in a fixed order.
    """

    def __init__(self, space: SearchSpace) -> None:
        """List the dimensions."""
        self._space = space
        self._choices = choices_at_a_site(space) if self._lists else []
        self.dimensions: dict[str, Ordered | Real] = {}
        sampling = space.sampling
        for site in space.sites:
            if self._lists:
                self.dimensions[f"{site}/choice"] = Ordered(tuple(range(len(self._choices))))
            elif space.form == LSDFN:
                self.dimensions[f"{site}/gamma"] = Real(min(sampling.gammas), max(sampling.gammas))
                self.dimensions[f"{site}/s"] = Ordered(tuple(sorted(sampling.regions)))
            else:
                for path in self._paths(site):
                    self.dimensions[f"{path}/dilation"] = Ordered(tuple(sorted(space.dilations)))
                    self.dimensions[f"{path}/f"] = Real(*space.f_search)

    @property
    def _lists(self) -> bool:
        """Whether a site gets one of a list of choices."""
        space = self._space
        return bool(space.costs) or (bool(space.choices) and space.path_set is None and space.form != LSDFN)

    @property
    def ranges(self) -> str:
        """The values that are drawn from, as the rest of a sentence."""
        if self._lists:
            return f"any of the {len(self._choices)} choices at every site"
        if self._space.form == LSDFN:
            gammas = self._space.sampling.gammas
            return f"any sample stride from {min(gammas):g} to {max(gammas):g}"
        low, high = self._space.f_search
        return (
            f"any of these dilations on every path behind a fixed f from {low:g} to {high:g}: what the dilation adds "
            "to the field is divided by f, and its cost multiplied by about f squared"
        )

    def candidate(self, parameters: Mapping[str, float]) -> Candidate:
        """Return the candidate that parameters stand for, real values rounded to four decimals within their range."""
        chosen: dict[str, Given] = {}
        for site in self._space.sites:
            if self._lists:
                chosen[site] = self._choices[self._value(parameters, f"{site}/choice")]
            elif self._space.form == LSDFN:
                regions = self._value(parameters, f"{site}/s")
                chosen[site] = self._space.sampled(self._rounded(parameters, f"{site}/gamma"), regions)
            else:
                taps = sorted(
                    (self._value(parameters, f"{path}/dilation"), self._rounded(parameters, f"{path}/f"))
                    for path in self._paths(site)
                )
                chosen[site] = [inflated(dilation, f) for dilation, f in taps]
        return Candidate(chosen)

    def parameters(self, candidate: Candidate) -> dict[str, float]:
        """Return the parameters of a candidate of this space."""
        if self._lists:
            return {f"{site}/choice": float(self._choices.index(paths)) for site, paths in candidate.sites}
        found: dict[str, float] = {}
        for name, path in candidate:
            numbers = dict(path.choice.numbers)
            numbers.setdefault("f", 1.0)
            for number, value in numbers.items():
                dimension = self.dimensions.get(f"{name}/{number}")
                if isinstance(dimension, Ordered):
                    found[f"{name}/{number}"] = _nearest(dimension, value)
                elif dimension is not None:
                    found[f"{name}/{number}"] = _within(dimension, value)
        return found

    def _paths(self, site: str) -> list[str]:
        """Return the names of a site's paths, as `Candidate` gives them."""
        paths = self._space.path_set
        return [f"{site}/{number}" for number in range(1, len(paths.manual) + 1)] if paths else [site]

    def _value(self, parameters: Mapping[str, float], name: str) -> int:
        dimension = self.dimensions[name]
        assert isinstance(dimension, Ordered)
        return dimension.values[int(parameters[name])]

    def _rounded(self, parameters: Mapping[str, float], name: str) -> float:
        dimension = self.dimensions[name]
        assert isinstance(dimension, Real)
        return _within(dimension, round(parameters[name], 4))


def _nearest(dimension: Ordered, value: float) -> int:
    """Return the index of a value, or for one that is no value of the search (a hand default) of the nearest."""
    return min(range(len(dimension.values)), key=lambda i: abs(dimension.values[i] - value))


def _within(dimension: Real, value: float) -> float:
    return min(max(value, dimension.low), dimension.high)
