"""The strategies of a run: which a request names, what their arms are called, and what each says of itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rfsearch import plugins
from rfsearch.choices import Candidate
from rfsearch.errors import SpaceError
from rfsearch.ledger import Request
from rfsearch.ledger.record import check_trial_name
from rfsearch.sources import absolute
from rfsearch.space import SearchSpace
from rfsearch.strategies import Description, Formed
from rfsearch.strategies.defaults import default_strategies
from rfsearch.strategies.guard import Guarded
from rfsearch.strategies.listed import Listed

FORM_MARK = "@"


@dataclass(frozen=True)
class Entrant:
    """Enter a strategy into a run.

    Attributes:
        label: Name of its arms, unique in a run.
        form: Form of the space that it searches.
        make: Builds the strategy from the space, in that form, and a seed.
    """

    label: str
    form: str
    make: Callable[[SearchSpace, int], object]

    def enter(self, space: SearchSpace, seed: int) -> Guarded:
        """Build the strategy of one arm."""
        return Guarded.built(self.label, partial(self.make, space.with_form(self.form), seed))


def find_entrants(request: Request, space: SearchSpace) -> tuple[Entrant, ...]:
    """Find the strategies that a request names, else those that the space does, else those that suit its form.

    Raises:
        SpaceError: A strategy is unknown, named twice, called as no folder can be, or does not search the form that it
            is named with.
        ModelError: There is nothing behind a strategy's SPEC.
    """
    if request.candidates:
        given = [Candidate.from_json(text) for text in request.candidates]
        return (Entrant("listed", space.form, lambda space, seed: Listed(given)),)
    entrants: dict[str, Entrant] = {}
    taken: set[tuple[str, str]] = set()
    asked = request.strategies or space.strategies
    for named in asked or default_strategies(space.form):
        spec, form = split_strategy(named)
        strategy = plugins.strategy(spec)
        own = strategy.form if isinstance(strategy, Formed) else space.form
        if isinstance(strategy, Formed) and form not in ("", own):
            raise SpaceError(f"{spec} searches the form {own} only. Got {named!r}. Nearest legal: {spec!r}.")
        if (spec, form or own) in taken:
            where = "--strategies" if request.strategies else f"space {space.name!r}"
            raise SpaceError(f"{where} names each strategy once. Got {','.join(asked)!r}.")
        taken.add((spec, form or own))
        space.with_form(form or own)  # an unknown form is reported here
        name = spec.rpartition(":")[2]
        try:
            check_trial_name(name)
        except ValueError as error:
            raise SpaceError(f"strategy {name!r}: trials are called by it, and {error}.") from error
        label = _unused(name if form in ("", own) else f"{name}{FORM_MARK}{form}", entrants)
        entrants[label] = Entrant(label, form or own, strategy)
    return tuple(entrants.values())


def split_strategy(named: str) -> tuple[str, str]:
    """Split what --strategies names into the strategy and its form.

    The folders of a path may hold the mark of a form too.

    Returns:
        The strategy, a file by its absolute path, and the form, empty for the run's own.
    """
    path, colon, name = named.rpartition(":")
    name, _, form = name.partition(FORM_MARK)
    return absolute(path + colon + name), form


def _unused(label: str, taken: Collection[str]) -> str:
    """Return a label as it is, or numbered where another strategy's class has the same name.

    Trials and their folders are called by it, so names that differ in case alone count as the same.
    """
    known = {other.casefold() for other in taken}
    name, mark, form = label.partition(FORM_MARK)
    numbered = (f"{name}-{number}{mark}{form}" for number in itertools.count(2))
    return next(other for other in itertools.chain([label], numbered) if other.casefold() not in known)


def describe_entrants(entrants: Sequence[Entrant], space: SearchSpace) -> dict[str, Description]:
    """Build each strategy once and return what it says of itself, by label.

    Raises:
        StrategyError: A strategy fails.
    """
    return {entrant.label: entrant.enter(space, seed=0).describe() for entrant in entrants}


def known_candidates(descriptions: Mapping[str, Description], space: SearchSpace) -> tuple[Candidate, ...]:
    """Return what strategies may try, as far as they know it, each candidate once; else the hand default."""
    candidates = dict.fromkeys(candidate for one in descriptions.values() for candidate in one.candidates)
    return tuple(candidates) or (space.default_candidate,)
