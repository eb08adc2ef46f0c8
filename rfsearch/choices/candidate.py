"""A whole candidate: a frozen map from sites to the parallel paths that they get."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rfsearch.choices import values
from rfsearch.choices.base import Choice
from rfsearch.choices.reading import read_choice
from rfsearch.errors import SpaceError

_KEPT = 2**16  # candidates that were read: more than any run has trials


@dataclass(frozen=True)
class SitePath:
    """Describe one of the parallel branches of a site, or its only one.

    Attributes:
        choice: What it gets.
        labels: Names of the classes whose gradient guides it (Wei eq. 12).

    Example:
        >>> str(SitePath(Dilated(4), labels=("left eye", "right eye")))
        'd=4, guided by left eye +1'
    """

    choice: Choice
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values.fix(self, labels=values.names(self.labels))

    def to_json(self) -> dict[str, object]:
        """Return the path as JSON values: its choice, and its labels among them."""
        return self.choice.to_json() | ({"labels": list(self.labels)} if self.labels else {})

    @staticmethod
    def from_json(body: Mapping[str, object]) -> SitePath:
        """Read a path back."""
        labels = body.get("labels", ())
        return SitePath(
            read_choice({key: value for key, value in body.items() if key != "labels"}), values.names(labels)
        )

    def __str__(self) -> str:
        if not self.labels:
            return str(self.choice)
        more = f" +{len(self.labels) - 1}" if len(self.labels) > 1 else ""
        return f"{self.choice}, guided by {self.labels[0]}{more}"


Given = Choice | SitePath | Sequence[Choice | SitePath]
"""What a candidate is made of at one site: a path, or several; a choice is a path without labels."""


@dataclass(frozen=True, init=False)
class Candidate:
    """Map sites to their paths: frozen, hashable, ordered by site, and unchanged by a way through JSON.

    Attributes:
        sites: Each site with its paths, one or more.

    Raises:
        SpaceError: For anything else than sites with one choice or path, or a list of them.

    Example:
        >>> str(Candidate({"conv7": [Dilated(1), SitePath(Dilated(4), labels=("nose",))]}))
        'conv7/1: d=1; conv7/2: d=4, guided by nose'
    """

    sites: tuple[tuple[str, tuple[SitePath, ...]], ...]

    def __init__(self, sites: Mapping[str, Given] | Iterable[tuple[str, Given]]) -> None:
        found: dict[str, tuple[SitePath, ...]] = {}
        for site, given in _pairs(sites):
            if not isinstance(site, str):
                raise SpaceError(f"{_CANDIDATE} Got the site {site!r}.")
            if site in found:
                raise SpaceError(f"a candidate names each site once. Got {site!r} twice.")
            found[site] = _paths(site, given)
        values.fix(self, sites=tuple(sorted(found.items(), key=operator.itemgetter(0))))

    @staticmethod
    @lru_cache(maxsize=_KEPT)
    def from_json(text: str) -> Candidate:
        """Read a candidate back; a report asks for the same one many times. Raises SpaceError for anything else."""
        try:
            return Candidate({site: _read_paths(body) for site, body in json.loads(text).items()})
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            shown = text if len(text) <= 80 else f"{text[:80]}..."
            raise SpaceError(
                'a candidate is a JSON object of sites and choices, such as {"conv6": {"dilation": 4}}. '
                f"Got {shown!r} ({type(error).__name__}: {error})."
            ) from error

    def to_json(self) -> str:
        """Return the candidate as JSON: a site with one path has that, one with several a list of them."""
        several = {site: [path.to_json() for path in paths] for site, paths in self.sites}
        return json.dumps({site: p if len(p) > 1 else p[0] for site, p in several.items()}, sort_keys=True)

    def __iter__(self) -> Iterator[tuple[str, SitePath]]:
        """Yield every path by name: the site's where it has one path, `site/1`, `site/2` ... where it has several."""
        for site, paths in self.sites:
            yield from zip(path_names(site, len(paths)), paths, strict=True)

    @property
    def learned(self) -> bool:
        """Whether training may change this candidate's receptive field."""
        return any(path.choice.moves for _, path in self)

    @property
    def searched(self) -> list[str]:
        """The paths whose training begins with a search of all the space's dilations."""
        return [name for name, path in self if path.choice.searched]

    @property
    def undilated(self) -> Candidate:
        """This candidate with every dilation set to 1."""
        return self.changed(lambda _, choice: choice.undilated)

    @property
    def nearest(self) -> Candidate:
        """This candidate with the nearest whole dilations in place of real ones."""
        return self.changed(lambda _, choice: choice.nearest)

    def ended(self, moved: Mapping[str, float]) -> Candidate:
        """Put in what training has moved.

        Args:
            moved: By path, the number that its choice says training moves, as training left it.

        Returns:
            The outcome. A path without a value, or whose value is not a finite number above 0, stays as it started.
        """

        def end(path: str, choice: Choice) -> Choice:
            value = moved.get(path) if choice.moves else None
            return choice.ended(value) if values.is_end(value) else choice

        return self.changed(end)

    def changed(self, change: Callable[[str, Choice], Choice]) -> Candidate:
        """Return a candidate of the same sites and paths with other choices; `change` gets each path's name."""
        names = {site: path_names(site, len(paths)) for site, paths in self.sites}
        return Candidate(
            {
                site: [
                    replace(path, choice=change(name, path.choice))
                    for name, path in zip(names[site], paths, strict=True)
                ]
                for site, paths in self.sites
            }
        )

    def __str__(self) -> str:
        return "; ".join(f"{name}: {path}" for name, path in self)


def path_names(site: str, count: int) -> list[str]:
    """Return the names of a site's paths."""
    return [site] if count == 1 else [f"{site}/{number}" for number in range(1, count + 1)]


_CANDIDATE = "a candidate maps the name of each site to a choice, or to a list of them for parallel paths."


def _pairs(sites: object) -> list[tuple[object, object]]:
    """Return the sites of a candidate with what they get, or raise SpaceError."""
    if isinstance(sites, Mapping):
        return list(sites.items())
    pairs = list(sites) if isinstance(sites, Iterable) and not isinstance(sites, str) else None
    if pairs is None or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        hint = " Candidate.from_json reads JSON." if isinstance(sites, str) else ""
        raise SpaceError(f"{_CANDIDATE} Got {sites!r}.{hint}")
    return [(site, given) for site, given in pairs]


def _paths(site: str, given: object) -> tuple[SitePath, ...]:
    """Return what a site is given as paths, or raise SpaceError."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise SpaceError(f"site {site!r} has at least one path. Got none.")
    paths = [SitePath(one) if isinstance(one, Choice) else one for one in several]
    found = tuple(path for path in paths if isinstance(path, SitePath))
    if len(found) < len(paths):
        raise SpaceError(f"{_CANDIDATE} Got {given!r} at {site!r}.{_meant(given)}")
    return found


def _meant(given: object) -> str:
    """Return the end of a message about what is no choice: a bare dilation is the likely slip."""
    return f" Did you mean Dilated({given})?" if isinstance(given, int) and not isinstance(given, bool) else ""


def _read_paths(body: object) -> list[SitePath]:
    found = []
    for path in body if isinstance(body, list) else [body]:
        if not isinstance(path, Mapping):
            raise TypeError(f"a choice is a JSON object, not {path!r}")
        found.append(SitePath.from_json(path))
    return found
