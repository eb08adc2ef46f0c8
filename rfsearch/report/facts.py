"""What a manifest says, read gently: whatever is missing or odd there reads as unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfsearch.ledger.record import parsed
from rfsearch.report.wording import finite
from rfsearch.space.choice import Candidate, Choice

_F_BOUNDS = (0.25, 4.0)  # Wei et al.; also the default of a space file
_GAMMA_BOUNDS = (0.25, 16.0)


@dataclass(frozen=True)
class Facts:
    """The manifest's facts that a report leans on.

    metric: the name of the score that the search went by, its averaging in the name. notices: other than the data's.
    reference: the hand default, or None where unknown. reference_flop: of its one full training, what 1x means.
    full_training: its cost with its evaluations, by currency, empty where unknown.
    planned: the distinct candidates of the forecast. rendered: whether the images are drawings.
    """

    title: str
    metric: str
    arms: tuple[tuple[str, int], ...]
    data: str
    rendered: bool
    data_notice: str
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    dilations: tuple[int, ...]
    f_bounds: tuple[float, float]
    gamma_bounds: tuple[float, float]
    reference: str | None
    reference_flop: float | None
    full_training: Mapping[str, float]
    budget_text: str
    currency: str
    limit: float | None
    planned: frozenset[str]
    notices: tuple[str, ...]


def read_facts(manifest: Mapping[str, Any]) -> Facts:
    space, data, budget = (_table(manifest, key) for key in ("space", "data", "budget"))
    sites = tuple(str(site) for site in _many(space, "sites"))
    arms = [a for a in _many(manifest, "arms") if isinstance(a, Mapping)]
    currency = _text(budget, "currency")
    splits = {str(name): finite(count) for name, count in _table(data, "splits").items()}
    return Facts(
        title=_text(space, "title") or _text(space, "name") or "a search of the receptive field",
        metric=_text(space, "primary") or _text(space, "metric") or "score",
        arms=tuple((str(a.get("strategy", "")), int(finite(a.get("seed")) or 0)) for a in arms),
        data=_text(data, "name"),
        rendered=data.get("rendered") is True,
        data_notice=_text(data, "notice"),
        splits={name: int(count) for name, count in splits.items() if count is not None},
        classes=tuple(str(c) for c in _many(data, "classes")),
        sites=sites,
        dilations=tuple(sorted({int(d) for d in map(finite, _many(space, "dilations")) if d is not None})),
        f_bounds=_bounds(space, "f_bounds", _F_BOUNDS),
        gamma_bounds=_bounds(space, "gamma_bounds", _GAMMA_BOUNDS),
        reference=_reference(space.get("reference"), sites),
        reference_flop=finite(budget.get("reference_flop")) or None,
        full_training={k: v for k, x in _table(budget, "full_training").items() if (v := finite(x))},
        budget_text=_text(budget, "text"),
        currency=currency if currency in ("flop", "device_s", "epochs") else "flop",
        limit=finite(budget.get("limit")),
        planned=frozenset(
            canonical(p["candidate"])
            for p in _many(manifest, "forecast")
            if isinstance(p, Mapping) and isinstance(p.get("candidate"), str | Mapping)
        ),
        notices=tuple(str(n) for n in _many(manifest, "notices") if n and str(n).strip() != _text(data, "notice")),
    )


def canonical(candidate: str | Mapping[str, Any]) -> str:
    """A candidate's JSON in the one form under which equal candidates are equal texts."""
    text = candidate if isinstance(candidate, str) else json.dumps(candidate)
    known = parsed(text)
    return known.to_json() if known else text


def _reference(value: Any, sites: tuple[str, ...]) -> str | None:
    if isinstance(value, str | Mapping) and value:
        return canonical(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 and sites:
        return Candidate.of(dict.fromkeys(sites, Choice(value))).to_json()
    return None


def _bounds(space: Mapping[str, Any], key: str, default: tuple[float, float]) -> tuple[float, float]:
    found = [finite(b) for b in _many(space, key)]
    low, high = (found[0], found[1]) if len(found) == 2 else (None, None)
    return low or default[0], high or default[1]


def _table(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def _many(body: Mapping[str, Any], key: str) -> list[Any]:
    value = body.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    return str(value).strip() if value is not None else ""
