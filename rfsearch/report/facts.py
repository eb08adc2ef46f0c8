"""What a manifest says, read gently: whatever is missing or odd there reads as unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rfsearch.ledger.manifest import Manifest
from rfsearch.ledger.record import parsed
from rfsearch.ledger.typed_json import Damaged, known
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


def read_facts(manifest: Manifest) -> Facts:
    """Read what a report leans on; whatever is damaged is unknown."""
    space, data, budget = manifest.space, manifest.data, manifest.budget
    sites = known(space.sites, ())
    reference: str | int = "" if isinstance(space.reference, Damaged) else space.reference
    full_training = known(budget.full_training, None)
    notice = known(data.notice, "").strip()
    name, metric = known(space.name, ""), known(space.metric, "")
    return Facts(
        title=known(space.title, "").strip() or name or "a search of the receptive field",
        metric=known(space.primary, "") or metric or "score",
        arms=tuple((arm.strategy, arm.seed) for arm in known(manifest.arms, ())),
        data=known(data.name, ""),
        rendered=known(data.rendered, False),
        data_notice=notice,
        splits=known(data.splits, {}),
        classes=known(data.classes, ()),
        sites=sites,
        dilations=tuple(sorted(set(known(space.dilations, ())))),
        f_bounds=known(space.f_bounds, _F_BOUNDS),
        gamma_bounds=known(space.gamma_bounds, _GAMMA_BOUNDS),
        reference=_reference(reference, sites),
        reference_flop=known(budget.reference_flop, None),
        full_training={k: v for k, v in asdict(full_training).items() if v} if full_training else {},
        budget_text=known(budget.text, "").strip(),
        currency=known(budget.currency, "flop"),
        limit=known(budget.limit, None),
        planned=frozenset(canonical(row.candidate) for row in known(manifest.forecast, ())),
        notices=tuple(text for text in known(manifest.notices, ()) if text and text.strip() != notice),
    )


def _reference(reference: str | int, sites: tuple[str, ...]) -> str | None:
    """Return the hand default as JSON, also where it is given as a plain dilation of all sites."""
    if isinstance(reference, str):
        return canonical(reference) if reference else None
    return Candidate.of(dict.fromkeys(sites, Choice(reference))).to_json() if reference >= 1 and sites else None


def canonical(candidate: str) -> str:
    """Return a candidate's JSON in the one form under which equal candidates are equal texts."""
    found = parsed(candidate)
    return found.to_json() if found else candidate
