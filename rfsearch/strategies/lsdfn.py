"""The sample stride of LS-DFN blocks learned by gradient, from several starts."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.choices import Candidate
from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, SearchSpace
from rfsearch.strategies.base import Description, Exhausted, Sweep


class LearnedStride:
    """Train from each sample stride of the space with gamma free to move, then repeat the leaders (see `Sweep`).

    Wu et al. set gamma by hand.

    Raises:
        SpaceError: The space has no sample stride.
    """

    form = LSDFN

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """List the starts."""
        if space.form != LSDFN:
            raise SpaceError(f"lsdfn learns the sample stride of LS-DFN blocks. Got the form {space.form!r}.")
        strides = [(gamma, s) for s in space.sampling.regions if s > 1 for gamma in space.sampling.gammas]
        if not strides:
            raise SpaceError("lsdfn: regions = [1] samples no neighbour, so there is no sample stride. Nearest: 3.")
        self._starts = [space.uniform(space.sampled(gamma, s, learned=True)) for gamma, s in strides]
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
