"""What a user asks for, the space and strategies it means, and what is wrong with it without looking at any data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rfsearch import plugins
from rfsearch.data.image_set import require_folder
from rfsearch.errors import SpaceError
from rfsearch.ledger import Budget
from rfsearch.sources import absolute
from rfsearch.space import LSDFN, Candidate, Space, read_space
from rfsearch.strategies import Formed, guard
from rfsearch.strategies.listed import Listed

FORM_MARK = "@"
SEEDS_MOST = 1000


@dataclass(frozen=True)
class Request:
    """What a user asks of `run` and `plan`; None leaves the space's own.

    strategies: names or SPECs, package.module:Class or path/to/file.py:Class, each with @ and a form of the space where
    it is not to search the run's own form, such as inflation@bi; none: those that suit the form. paths: number of
    parallel paths a site gets. candidates: JSON of candidates to train once each, with no strategy at all.
    """

    space: str
    preset: str | None = None
    data: str | None = None
    backbone: str | None = None
    sites: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    paths: int | None = None
    candidates: tuple[str, ...] = ()
    budget: str | None = None
    seeds: int = 1
    address: str | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None


def resolve_space(request: Request) -> Space:
    """Return the space that a request means, its overrides in place."""
    space = read_space(plugins.space_file(request.space), request.preset)
    backbone = absolute(request.backbone or space.backbone)  # workers and resumed runs have other working directories
    # A preset's trained weights belong to its own backbone.
    weights = "none" if backbone != absolute(space.backbone) else None
    space = space.with_(backbone=backbone, weights=weights, sites=request.sites or None, budget=request.budget)
    return space if request.paths is None else space.with_path_count(request.paths)


def check_request(request: Request) -> Space:
    """Check everything in a request that can be checked without its data, and return the space it means."""
    space = resolve_space(request)
    if request.data is not None:
        require_folder(Path(request.data))
    if not 1 <= request.seeds <= SEEDS_MOST:
        raise SpaceError(
            f"--seeds is the number of seeds per strategy, at least 1 and at most {SEEDS_MOST}. Got {request.seeds}."
        )
    entrants(request, space)
    plugins.backbone(space.backbone)
    Budget.parse(space.budget, reference_flop=1.0)
    for option, amount in (
        ("--cpus-per-trial", request.cpus_per_trial),
        ("--gpus-per-trial", request.gpus_per_trial),
    ):
        if amount is not None and not (0 < amount < math.inf or (amount == 0 and "gpus" in option)):
            raise SpaceError(f"{option} is a positive number. Got {amount:g}.")
        if amount is not None and amount > 1 and amount != int(amount):
            raise SpaceError(f"{option} is a whole number, or a share below 1. Got {amount:g}. Nearest: {int(amount)}.")
    return space


def entrants(request: Request, space: Space) -> dict[str, Callable[[int], Any]]:
    """Return the strategies of a request by the name of their arms: each builds its strategy from a seed."""
    if request.candidates:
        given = [Candidate.from_json(text) for text in request.candidates]
        return {"listed": lambda seed: Listed(given)}
    found: dict[str, Callable[[int], Any]] = {}
    learned = ("lsdfn",) if space.form == LSDFN else ("inflation", "fractional")
    suited = ("exhaustive", "random", "optuna", *learned)
    seen: set[tuple[str, str]] = set()
    for asked in request.strategies or suited:
        spec, form = split_strategy(asked)
        strategy = plugins.strategy(spec)
        own = strategy.form if isinstance(strategy, Formed) else space.form
        if isinstance(strategy, Formed) and form not in ("", own):
            raise SpaceError(f"{spec} searches the form {own} only. Got {asked!r}. Nearest legal: {spec!r}.")
        if (spec, form or own) in seen:
            raise SpaceError(f"--strategies names each strategy once. Got {','.join(request.strategies)!r}.")
        seen.add((spec, form or own))
        name = spec.rpartition(":")[2]
        label = _unused(name if form in ("", own) else f"{name}{FORM_MARK}{form}", found)
        found[label] = partial(strategy, space.with_form(form or own))
    return found


def split_strategy(asked: str) -> tuple[str, str]:
    """Split what --strategies names into the strategy, a file by its absolute path, and its form, empty for the run's
    own. The folders of a path may hold the mark too."""
    path, colon, name = asked.rpartition(":")
    name, _, form = name.partition(FORM_MARK)
    return absolute(path + colon + name), form


def _unused(label: str, taken: Collection[str]) -> str:
    """Return a label as it is, or numbered where another strategy's class has the same name. Trials and their folders
    are called by it, so names that differ in case alone count as the same."""
    known = {other.casefold() for other in taken}
    name, mark, form = label.partition(FORM_MARK)
    numbered = (f"{name}-{number}{mark}{form}" for number in itertools.count(2))
    return next(other for other in itertools.chain([label], numbered) if other.casefold() not in known)


def searched_forms(request: Request, space: Space) -> list[str]:
    """Return the form that each arm of a request searches."""
    return [label.partition(FORM_MARK)[2] or space.form for label in entrants(request, space)]


def listed(request: Request, space: Space) -> list[Candidate]:
    """Return the candidates that the request's strategies name beforehand, or else the hand default alone."""
    found: dict[Candidate, None] = {}
    for label, enter in entrants(request, space).items():
        found.update(dict.fromkeys(guard.listed(label, guard.made(label, enter, 0))))
    return list(found) or [space.default_candidate]
