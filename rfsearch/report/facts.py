"""What a manifest says about a run, read gently: whatever is missing or odd there counts as unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

from rfsearch.choices import Candidate, Dilated
from rfsearch.ledger.manifest import Manifest
from rfsearch.ledger.record import parsed
from rfsearch.ledger.typed_json import Damaged, Kept, known
from rfsearch.space.objectives import COSTS

_F_BOUNDS = (0.25, 4.0)  # Wei et al.; also the default of a space file
_GAMMA_BOUNDS = (0.25, 16.0)
_SCRATCH = re.compile(r"Backbone .*: trains from scratch\.")  # among the notices, though it is as it was asked for


@dataclass(frozen=True)
class Facts:
    """Hold what a report needs from a run's manifest.

    Attributes:
        title: Title of the space, or its name.
        metric: Name of the score that the search went by, its averaging in the name.
        arms: Strategy and seed of every arm, in the order of the run.
        data: Name of the data set; empty where unknown.
        rendered: Whether the images are drawings.
        data_notice: What must be said about the data; empty where there is nothing.
        splits: Number of images by split.
        classes: Names of the classes, by class id.
        sites: Names of the sites that were searched.
        dilations: The dilations that were searched, ascending.
        f_bounds: Lowest and highest learned inflation factor.
        gamma_bounds: Lowest and highest learned sample stride, px of its map.
        reference: The hand default as canonical JSON; None where unknown.
        reference_flop: Training FLOP of one full training of it, which is 1x; None where unknown.
        full_training: Cost of such a training with its evaluations, by currency; empty where unknown.
        budget_text: The budget of each arm as it was asked for.
        currency: The currency of that budget: flop, device_s or epochs.
        limit: The budget in that currency; None where unknown.
        planned: The distinct candidates of the forecast, as canonical JSON.
        objects: Receptive fields of the forecast, px, and the share of the training images' objects that are no longer;
            by rising receptive field, empty where that was not measured.
        noun: What is called an object in the data, in the singular.
        costs: What the search went by beside the score, fields of a record.
        replayed: Whether its trainings were looked up in another run.
        notices: What else must be said about the run.
        from_scratch: Whether its network was asked to start without trained weights.

    Example:
        >>> from pathlib import Path
        >>> from rfsearch.ledger.typed_json import read_parts
        >>> body = {"space": {"name": "helen", "dilations": [4, 2]}}
        >>> facts = read_facts(read_parts(Manifest, body, Path("manifest.json")))
        >>> facts.title, facts.dilations, facts.reference
        ('helen', (2, 4), None)
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
    objects: tuple[tuple[int, float], ...]
    noun: str
    costs: tuple[str, ...]
    replayed: bool
    notices: tuple[str, ...]
    from_scratch: bool


def read_facts(manifest: Manifest) -> Facts:
    """Read what a report needs from a manifest of any version; whatever is damaged there counts as unknown."""
    space, data, budget = manifest.space, manifest.data, manifest.budget
    sites = known(space.sites, ())
    full_training = known(budget.full_training, None)
    notice = known(data.notice, "").strip()
    notices = known(manifest.notices, ())
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
        reference=_reference(space.reference, sites),
        reference_flop=known(budget.reference_flop, None),
        full_training={k: v for k, v in asdict(full_training).items() if v} if full_training else {},
        budget_text=known(budget.text, "").strip(),
        currency=known(budget.currency, "flop"),
        limit=known(budget.limit, None),
        planned=frozenset(canonical(row.candidate) for row in known(manifest.forecast, ())),
        objects=tuple(
            sorted({(row.rf_px, row.objects) for row in known(manifest.forecast, ()) if row.objects is not None})
        ),
        noun=known(data.noun, "object"),
        costs=tuple(cost for cost in known(space.costs, ()) if cost in COSTS),
        replayed=(asked := known(manifest.request, None)) is not None and asked.replay is not None,
        notices=tuple(text for text in notices if text.strip() not in ("", notice) and not _SCRATCH.fullmatch(text)),
        from_scratch=any(map(_SCRATCH.fullmatch, notices)),
    )


def _reference(reference: Kept[str | int], sites: tuple[str, ...]) -> str | None:
    """Return the hand default as JSON, also where it is given as a plain dilation of all sites."""
    if isinstance(reference, str | Damaged):
        return canonical(reference) if isinstance(reference, str) and reference else None
    return Candidate(dict.fromkeys(sites, Dilated(reference))).to_json() if reference >= 1 and sites else None


@lru_cache(maxsize=2**16)
def canonical(candidate: str) -> str:
    """Return a candidate's JSON in the one form under which equal candidates are equal texts."""
    found = parsed(candidate)
    return found.to_json() if found else candidate
