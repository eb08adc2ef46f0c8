"""What one site gets, and a whole candidate: a frozen map from sites to choices."""

from __future__ import annotations

import json
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeGuard

from rfsearch.errors import SpaceError

# A dilation that misses a whole number by this fraction is whole: a learned one is kept in single precision.
_WHOLE = 2.0**-20
_KEPT = 2**16  # candidates that were read: more than any run has trials


@dataclass(frozen=True, order=True)
class Sampling:
    """An LS-DFN block behind a site's convolution, concatenated to its output (Wu et al., ECCV 2018).

    gamma: sample stride, px of the site's map between sampled regions, > 0. s: regions an axis, odd; 1 is the plain
    dynamic filter network, for which gamma means nothing. learned: whether training may move gamma.
    """

    gamma: float
    s: int = 5
    learned: bool = False

    def __post_init__(self) -> None:
        _set(self, gamma=_real(self.gamma, "a sample stride gamma"), s=_whole(self.s, "s, regions an axis,"))
        if not 0 < self.gamma < float("inf"):
            raise SpaceError(f"a sample stride gamma is greater than 0 px. Got {self.gamma}.")
        if self.s < 1 or self.s % 2 == 0:
            raise SpaceError(
                f"an LS-DFN block samples s x s regions with s odd and at least 1. Got s={self.s}. "
                f"Nearest: {max(1, self.s + 1)}."
            )


@dataclass(frozen=True, order=True)
class Choice:
    """The receptive field of one site, or of one of its parallel paths.

    dilation: integer dilation of the site's convolution, >= 1.
    f: inflation factor of the map in front of it (Wei eq. 1), dimensionless, > 0; 1 leaves the map alone.
    learned: whether training may move f away from that value.
    labels: names of the classes whose gradient this path is guided by (Wei eq. 12).
    sampling: an LS-DFN block behind the convolution, or None.
    fractional: whether training itself finds the dilation, at the cost of one convolution; `dilation` is where it
    starts. With an f that is not 1, what it found: the real dilation `dilation` / f, px, on the map as it is.
    layer: SPEC of a layer in the convolution's place, `package.module:callable` or `path/to/file.py:callable`; see
    `rfsearch.surgery.stand_in`. `dilation` is where it starts. Empty: the convolution itself.
    """

    dilation: int
    f: float = 1.0
    learned: bool = False
    labels: tuple[str, ...] = ()
    sampling: Sampling | None = None
    fractional: bool = False
    layer: str = ""

    def __post_init__(self) -> None:
        _set(self, dilation=_whole(self.dilation, "a dilation"), f=_real(self.f, "an inflation factor"))
        _set(self, labels=_names(self.labels))
        if not isinstance(self.sampling, Sampling | None):
            raise SpaceError(f"sampling is a Sampling or None. Got {self.sampling!r}.")
        if not isinstance(self.layer, str):
            raise SpaceError(f"a layer is named by its SPEC, a text. Got {self.layer!r}.")
        if self.dilation < 1:
            raise SpaceError(f"a dilation is an integer of at least 1. Got {self.dilation}.")
        if not 0 < self.f < float("inf"):
            raise SpaceError(f"an inflation factor is greater than 0 and finite. Got {self.f}.")
        if self.sampling and (self.learned or self.f != 1.0):
            raise SpaceError("a site gets an inflation factor or an LS-DFN block, not both.")
        if self.fractional and (self.sampling or self.learned):
            raise SpaceError(
                "a site whose dilation is found in training gets neither a learned inflation nor an LS-DFN block."
            )
        if self.layer and (self.fractional or self.sampling or self.learned or self.f != 1.0):
            raise SpaceError(
                "a site with a layer in its convolution's place gets no inflation, no LS-DFN block and no other search "
                f"of its dilation. Got {self.layer!r} with one of them."
            )
        if self.layer and not all(self.layer.rpartition(":")):
            raise SpaceError(
                f"a layer is a SPEC, package.module:callable or path/to/file.py:callable. Got {self.layer!r}."
            )

    @property
    def to_find(self) -> bool:
        """Whether training itself finds the dilation of this convolution."""
        return self.fractional and self.f == 1.0

    @property
    def searched(self) -> bool:
        """Whether training itself may find the dilation."""
        return self.to_find or bool(self.layer)

    @property
    def spacing(self) -> float:
        """Of the convolution's taps, px of the map that it gets: its dilation, real where training found it so."""
        return self.dilation / self.f if self.fractional else self.dilation

    @property
    def layer_name(self) -> str:
        """The name of the layer's callable, empty without a layer."""
        return self.layer.rpartition(":")[2]

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"dilation": self.dilation}
        if self.f != 1.0 or self.learned:
            body["f"] = self.f
        if self.learned:
            body["learned"] = True
        if self.fractional:
            body["fractional"] = True
        if self.layer:
            body["layer"] = self.layer
        if self.labels:
            body["labels"] = list(self.labels)
        if self.sampling:
            body |= {"gamma": self.sampling.gamma, "s": self.sampling.s}
            if self.sampling.learned:
                body["gamma_learned"] = True
        return body

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Choice:
        sampling = None
        if "gamma" in body:
            sampling = Sampling(float(body["gamma"]), int(body["s"]), bool(body.get("gamma_learned", False)))
        return Choice(
            int(body["dilation"]),
            float(body.get("f", 1.0)),
            bool(body.get("learned", False)),
            tuple(map(str, body.get("labels", ()))),
            sampling,
            bool(body.get("fractional", False)),
            str(body.get("layer", "")),
        )

    def __str__(self) -> str:
        said = "d to be found" if self.to_find else f"d={self.spacing:.3g}"
        if self.learned:
            said += f", f learned from {self.f:g}"
        elif self.f != 1.0 and not self.fractional:
            said += f", f={self.f:.3g}"
        if self.layer:
            said += f", layer {self.layer_name}"
        if self.labels:
            more = f" +{len(self.labels) - 1}" if len(self.labels) > 1 else ""
            said += f", guided by {self.labels[0]}{more}"
        if self.sampling:
            how = "learned from " if self.sampling.learned else ""
            said += f", LS-DFN s={self.sampling.s} gamma={how}{self.sampling.gamma:.3g}"
        return said


Paths = tuple[Choice, ...]
"""What a site gets whose convolution stands in several parallel paths: one choice a path, two or more."""


@dataclass(frozen=True, order=True, init=False)
class Candidate:
    """A frozen, hashable map site -> choice or parallel paths, ordered by site, that survives JSON unchanged.

        Candidate({"conv6": Choice(2), "conv7": [Choice(1), Choice(4)]})

    choices: as given, or its pairs; a single path is the choice itself. Raises SpaceError for anything else.
    """

    choices: tuple[tuple[str, Choice | Paths], ...]

    def __init__(
        self, choices: Mapping[str, Choice | Sequence[Choice]] | Iterable[tuple[str, Choice | Sequence[Choice]]]
    ) -> None:
        found: dict[str, Choice | Paths] = {}
        for site, given in _pairs(choices):
            if not isinstance(site, str):
                raise SpaceError(f"{_CANDIDATE} Got the site {site!r}.")
            if site in found:
                raise SpaceError(f"a candidate names each site once. Got {site!r} twice.")
            paths = (given,) if isinstance(given, Choice) else tuple(given) if isinstance(given, list | tuple) else ()
            if not paths and isinstance(given, list | tuple):
                raise SpaceError(f"site {site!r} has at least one path. Got none.")
            if not paths or not all(isinstance(path, Choice) for path in paths):
                raise SpaceError(f"{_CANDIDATE} Got {given!r} at {site!r}.{_meant(given)}")
            found[site] = paths[0] if len(paths) == 1 else paths
        _set(self, choices=tuple(sorted(found.items(), key=operator.itemgetter(0))))

    @staticmethod
    def of(choices: Mapping[str, Choice | Sequence[Choice]]) -> Candidate:
        """Make a candidate from a choice for each site, or several for parallel paths."""
        return Candidate(choices)

    @staticmethod
    @lru_cache(maxsize=_KEPT)
    def from_json(text: str) -> Candidate:
        """Read a candidate back; a report asks for the same one many times. Raises SpaceError for anything else."""
        try:
            return Candidate.of({site: _choice_of(body) for site, body in json.loads(text).items()})
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            shown = text if len(text) <= 80 else f"{text[:80]}..."
            raise SpaceError(
                'a candidate is a JSON object of sites and choices, such as {"conv6": {"dilation": 4}}. '
                f"Got {shown!r} ({type(error).__name__}: {error})."
            ) from error

    def to_json(self) -> str:
        body = {
            site: choice.to_json() if isinstance(choice, Choice) else [path.to_json() for path in choice]
            for site, choice in self.choices
        }
        return json.dumps(body, sort_keys=True)

    def __iter__(self) -> Iterator[tuple[str, Choice]]:
        """Every path by name: the site's where it has one path, `site/1`, `site/2` ... where it has several."""
        for site, choice in self.choices:
            if isinstance(choice, Choice):
                yield site, choice
            else:
                yield from ((f"{site}/{number}", path) for number, path in enumerate(choice, start=1))

    @property
    def learned(self) -> bool:
        """Whether training may change this candidate's receptive field."""
        return any(
            choice.learned or choice.searched or (choice.sampling and choice.sampling.learned) for _, choice in self
        )

    @property
    def undilated(self) -> Candidate:
        """This candidate with every dilation set to 1."""
        return self.changed(lambda _, choice: replace(choice, dilation=1))

    @property
    def nearest(self) -> Candidate:
        """This candidate with the nearest whole dilations in place of real ones."""
        return self.changed(lambda _, choice: _nearest(choice))

    def ended(
        self,
        dilation: Mapping[str, float] = MappingProxyType({}),
        f: Mapping[str, float] = MappingProxyType({}),
        gamma: Mapping[str, float] = MappingProxyType({}),
    ) -> Candidate:
        """Put in what training has moved, so that nothing is left to be found or learned.

        Args:
            dilation: Dilations that training found, px, by path. A layer in a convolution's place stays, because it was
                trained; its dilation is the nearest whole one.
            f: Inflation factors at the end, by path; only those that were learned are put in.
            gamma: Sample strides at the end, px, by path; likewise.

        Returns:
            The outcome. A path without a value, or whose value is not a finite number above 0, stays as it started.
        """

        def end(path: str, choice: Choice) -> Choice:
            if choice.searched and _sound(real := dilation.get(path)):
                return _found(choice, real)
            if choice.learned and _sound(factor := f.get(path)):
                return replace(choice, f=factor, learned=False)
            sampling = choice.sampling
            if sampling and sampling.learned and _sound(stride := gamma.get(path)):
                return replace(choice, sampling=replace(sampling, gamma=stride, learned=False))
            return choice

        return self.changed(end)

    def changed(self, change: Callable[[str, Choice], Choice]) -> Candidate:
        """Return a candidate of the same sites and paths with other choices; `change` gets each path's name."""
        paths = iter([change(path, choice) for path, choice in self])
        counts = [(site, 1 if isinstance(choice, Choice) else len(choice)) for site, choice in self.choices]
        return Candidate({site: [next(paths) for _ in range(count)] for site, count in counts})

    def __str__(self) -> str:
        return "; ".join(f"{path}: {choice}" for path, choice in self)


_CANDIDATE = "a candidate maps the name of each site to a Choice, or to a list of them for parallel paths."


def _pairs(choices: Any) -> list[tuple[Any, Any]]:
    """Return the sites of a candidate with what they get, or raise SpaceError."""
    if isinstance(choices, Mapping):
        return list(choices.items())
    pairs = list(choices) if isinstance(choices, Iterable) and not isinstance(choices, str) else None
    if pairs is None or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        hint = " Candidate.from_json reads JSON." if isinstance(choices, str) else ""
        raise SpaceError(f"{_CANDIDATE} Got {choices!r}.{hint}")
    return [(site, given) for site, given in pairs]


def _meant(given: Any) -> str:
    """Return the end of a message about what is no choice: a bare dilation is the likely slip."""
    return f" Did you mean Choice({given})?" if isinstance(given, int) and not isinstance(given, bool) else ""


def _set(frozen: Any, **values: Any) -> None:
    """Set fields of a frozen object that is being made."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def _whole(value: Any, what: str) -> int:
    """Return a whole number, NumPy's too, as int, or raise SpaceError."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    near = f" Nearest: {round(value)}." if isinstance(value, float) and math.isfinite(value) else ""
    raise SpaceError(f"{what} is an integer. Got {value!r}.{near}")


def _real(value: Any, what: str) -> float:
    """Return a real number, NumPy's too, as float, or raise SpaceError."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise SpaceError(f"{what} is a number. Got {value!r}.")


def _names(labels: Any) -> tuple[str, ...]:
    """Return labels as a tuple, or raise SpaceError."""
    if isinstance(labels, list | tuple) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    raise SpaceError(f"labels are the names of classes, a list of texts. Got {labels!r}.")


def _nearest(choice: Choice) -> Choice:
    return replace(choice, f=1.0, fractional=False) if choice.fractional and not choice.to_find else choice


def _sound(value: float | None) -> TypeGuard[float]:
    """Return whether training gave a number that a choice can hold: a value that diverged is none."""
    return value is not None and 0 < value < math.inf


def _found(choice: Choice, real: float) -> Choice:
    """Return a choice at the dilation that training found, px."""
    whole = max(1, round(real))
    if choice.layer or abs(real - whole) <= _WHOLE * whole:
        return replace(choice, dilation=whole, fractional=False)
    return replace(choice, dilation=whole, f=whole / real)


def _choice_of(body: Any) -> Choice | Paths:
    return tuple(Choice.from_json(path) for path in body) if isinstance(body, list) else Choice.from_json(body)
