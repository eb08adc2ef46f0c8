"""The receptive field learned by gradient: the inflation factor of Wei et al., one path or several, many starts."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.choices import Candidate, Inflated, SitePath
from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, SearchSpace
from rfsearch.strategies.base import Description, Exhausted, Sweep


class LearnedInflation:
    """Train from each of the space's starts with f = 1 free to move (Wei, section 5.1), then repeat the leaders.

    How f moves (its rate, delay, clipping and bounds) is the recipe's. Repeats are those of `Sweep`.

    Parallel paths start alike, all from one dilation, and loss guidance tells them apart (Wei eq. 12). Without label
    sets nothing would: then they start from neighbouring dilations instead.

    Raises:
        SpaceError: The space is of LS-DFN blocks, or has fewer dilations than a site has unguided paths.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """List the starts."""
        if space.form == LSDFN:
            raise SpaceError("inflation learns f, which an LS-DFN block does not have; lsdfn learns its sample stride.")
        self._starts = [space.uniform(paths) for paths in _starting_paths(space)]
        self._sweep = Sweep(self._starts, seed, direction=space.direction)

    def describe(self) -> Description:
        """Return the starts."""
        return Description(tuple(self._starts))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        """Return the start tried least often."""
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        """Count a finished trial."""
        self._sweep.observe(record)


def _starting_paths(space: SearchSpace) -> list[tuple[SitePath, ...]]:
    """Return the paths of a site that each training starts from."""
    if space.path_set is None:
        return [(SitePath(Inflated(d, learned=True)),) for d in space.starts]
    if space.path_set.labels:
        return [
            tuple(SitePath(Inflated(d, learned=True), labels) for labels in space.path_set.labels) for d in space.starts
        ]
    count, dilations = len(space.path_set.manual), sorted(space.starts)
    if count > len(dilations):
        raise SpaceError(
            f"inflation: {count} paths without label sets start from different dilations; the space has "
            f"{len(dilations)}. Give label sets in [paths.{space.form}], or more dilations."
        )
    rows = [dilations[i : i + count] for i in range(len(dilations) - count + 1)]
    return [tuple(SitePath(Inflated(d, learned=True)) for d in row) for row in rows]
