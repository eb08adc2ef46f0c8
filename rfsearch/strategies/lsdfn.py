"""The sample stride of LS-DFN blocks learned by gradient, from several starts."""

from __future__ import annotations

from collections.abc import Sequence

from rfsearch.errors import SpaceError
from rfsearch.ledger.record import Record
from rfsearch.space import LSDFN, Candidate, Space
from rfsearch.strategies.base import Exhausted, Sweep


class LearnedStride:
    """One training from each sample stride of the space with gamma free to move, then repeats of the leaders (see
    `Sweep`). Wu et al. set gamma by hand."""

    form = LSDFN

    def __init__(self, space: Space, seed: int) -> None:
        if space.form != LSDFN:
            raise SpaceError(f"lsdfn learns the sample stride of LS-DFN blocks. Got the form {space.form!r}.")
        starts = [(gamma, s) for s in space.sampling.regions if s > 1 for gamma in space.sampling.gammas]
        if not starts:
            raise SpaceError("lsdfn: regions = [1] samples no neighbour, so there is no sample stride. Nearest: 3.")
        self.candidates = [space.uniform(space.sampled(gamma, s, learned=True)) for gamma, s in starts]
        self._sweep = Sweep(self.candidates, seed)

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        return self._sweep.suggest(pending)

    def observe(self, record: Record) -> None:
        self._sweep.observe(record)
