"""What one site may get in a search of fixed values: of its space's form, or of every kind where a cost counts too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rfsearch.choices import Candidate, Dilated, Given, SitePath, inflated
from rfsearch.errors import SpaceError
from rfsearch.space import LSDFN, SearchSpace

MOST = 10_000
Fitting = TypeVar("Fitting", bound=SearchSpace)
Paths = tuple[SitePath, ...]
"""What a site gets, as a candidate holds it."""


def choices_at_a_site(space: SearchSpace) -> list[Paths]:
    """Return what one site may get in a sweep of fixed values.

    Plain dilations cost alike. So where a cost is an objective, these are choices of every kind that the space knows:
    dilations, those that it lists, dilations behind the least and the largest fixed f, parallel paths as they are set
    by hand, and LS-DFN blocks; of these, those that fit into the network once that is known.

    Raises:
        SpaceError: There are too many sets of dilations.
    """
    if space.kinds:
        return [Candidate.from_json(text).sites[0][1] for text in space.kinds]
    if space.costs:
        behind = [inflated(dilation, f) for f in space.f_search for dilation in space.dilations]
        by_hand = [tuple(Dilated(d) for d in sorted(paths.manual)) for paths in space.paths.values()]
        return _distinct([*space.options, *behind, *by_hand, *_blocks(space)])
    if space.form == LSDFN:
        return _distinct(_blocks(space))
    if space.path_set is None:
        return _distinct(space.options)
    count = len(space.path_set.manual)
    if math.comb(len(space.dilations), count) > MOST:
        raise SpaceError(f"exhaustive: {count} of {len(space.dilations)} dilations are more than {MOST} candidates.")
    swept = itertools.combinations(sorted(space.dilations), count)
    return _distinct(tuple(Dilated(d) for d in row) for row in [tuple(sorted(space.path_set.manual)), *swept])


def with_fitting_kinds(space: Fitting, check: Callable[[Sequence[Candidate]], None]) -> tuple[Fitting, list[str]]:
    """Leave out of a space whose objectives are several what does not fit at all of its sites.

    Args:
        space: The space, its sites known.
        check: Raises SpaceError for candidates that do not fit.

    Returns:
        The space, and a sentence that says what was left out, if anything was.
    """
    if not space.costs:
        return space, []
    kept, out = [], []
    for paths in choices_at_a_site(space):
        try:
            check([space.uniform(paths)])
        except SpaceError:
            several = f"{len(paths)} parallel paths, " if len(paths) > 1 else ""
            out.append(several + " beside ".join(map(str, paths)))
        else:
            kept.append(Candidate({"site": paths}).to_json())
    said = f"Left out of what a site may get, since the network has no room for it: {'; '.join(out)}." if out else ""
    return space.with_(kinds=tuple(kept)), [said] if said else []


def _blocks(space: SearchSpace) -> list[Given]:
    return [space.sampled(gamma, s) for s in space.sampling.regions for gamma in space.sampling.gammas]


def _distinct(given: Iterable[Given]) -> list[Paths]:
    """Return what a candidate makes of each, without repeats."""
    return list(dict.fromkeys(Candidate({"site": one}).sites[0][1] for one in given))
