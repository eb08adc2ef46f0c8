"""Let what a candidate learns of its receptive field move along with an optimiser's steps, in a search.

The same `Learner` serves one training without a search; here the candidate says what moves, and from where.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from rfsearch.choices import Candidate, Choice
from rfsearch.layers.host import on_host
from rfsearch.own_loop.learner import Learner, Schedule
from rfsearch.own_loop.sites import LearnedSite, MovingSite, RealSite, WholeSite
from rfsearch.space import OwnSpace
from rfsearch.surgery import Learnable
from rfsearch.training.optimisation import Scalar, value_of


class ScalarSite(MovingSite):
    """Hold a learned inflation factor or sample stride, which moves where it was installed."""

    def __init__(self, path: str, scalar: Scalar) -> None:
        """Leave it as it is."""
        self.path, self._scalar = path, scalar
        self.start = self.whole = 1

    @property
    def parameter(self) -> nn.Parameter:
        return value_of(self._scalar)

    @property
    def dilation(self) -> float:
        """Its value: f, or gamma in px of its map."""
        return on_host(self.parameter)[0]

    @property
    def choice(self) -> Choice:
        raise NotImplementedError("the candidate says what its sites have become")

    def dilate(self, dilation: int) -> None:
        raise NotImplementedError("no factor is a dilation")

    def _set_whole(self, whole: int) -> None:
        pass

    def settle(self, model: nn.Module, keep: bool = False) -> None:
        pass

    def project(self) -> None:
        self._scalar.project_()


def learner_of(
    model: nn.Module,
    candidate: Candidate,
    learnable: Learnable,
    space: OwnSpace,
    steps: int,
    look: Callable[[], float],
    seed: int,
) -> Learner | None:
    """Return what moves the numbers of an installed candidate that training moves; None where there are none.

    Args:
        model: The model that the candidate is installed in.
        candidate: The candidate.
        learnable: What was installed.
        space: Says what dilations are legal, and how far steps go.
        steps: Of the whole training.
        look: How good the model is as it stands, for candidates whose dilations are to be found.
        seed: Of which dilations are tried when.
    """
    scalars: dict[str, Scalar] = {**learnable.factors, **learnable.strides}
    sites: dict[str, LearnedSite] = {
        path: ScalarSite(path, scalar) for path, scalar in scalars.items() if value_of(scalar).requires_grad
    }
    searched = set(candidate.searched)
    bounds = float(min(space.dilations)), float(max(space.dilations))
    starts = {name: path.choice.whole_dilation for name, path in candidate if name in learnable.dilations}
    for path, dilations in learnable.dilations.items():
        start = starts[path]
        assert start is not None
        within = min(bounds[0], start), max(bounds[1], start)
        layer = dilations.learned(within) if within[0] < within[1] else None
        module = learnable.modules[path]
        if layer is None:
            sites[path] = WholeSite(module, start, dilations)
        else:
            model.set_submodule(module, layer)
            sites[path] = RealSite(module, start, dilations, layer)
    if not sites:
        return None
    schedule = Schedule(space.f_delay, None, space.f_step)
    return Learner(model, sites, sorted(space.dilations), schedule, look if searched else None, seed, steps)
