"""Search the dilations of a training's sites with weights that all dilations share, in a loop of its user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import distributed, nn

from rfsearch.errors import RequestError
from rfsearch.own_loop.sites import LearnedSite
from rfsearch.training.dilation_search import AveragedWeights, SharedDilations, decided_step

# The prelude of the built-in training comes on top of its steps; here both together are the training.
_WITH_PRELUDE = 1.25


class Sharing:
    """Dilate a model's sites differently at every step, look twice how good it is with each dilation, and decide.

    The method and its shares of a training are those of `rfsearch.training.dilation_search`.

    Args:
        model: The model.
        sites: Its sites, by path.
        dilations: What each may get, in order.
        steps: Of the whole training.
        look: How good the model is as it stands, higher is better.
        seed: Of the draws.

    Attributes:
        decided: Index of the step from which every site has what was found.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Mapping[str, LearnedSite],
        dilations: Sequence[int],
        steps: int,
        look: Callable[[], float],
        seed: int,
    ) -> None:
        """Begin with all dilations left."""
        self._model, self._sites, self._look = model, sites, look
        full = max(1, round(steps / _WITH_PRELUDE))
        self._shared = SharedDilations(list(sites), dilations, full, seed)
        self._average = AveragedWeights(model, full)
        self._looking = False
        self._merits: list[float] = []
        self.decided = decided_step(full)

    @property
    def best(self) -> dict[str, int]:
        """The best dilation of every site so far."""
        return self._shared.best

    def set_up(self, step: int) -> None:
        """Dilate the sites for a step, after a look where one is due."""
        if self._shared.sharing(step):
            self._average.update()
        if self._shared.due(step):
            self._looking = True
            try:
                with self._average.shown(), torch.no_grad():
                    self._merits = []
                    self._shared.look(step, self._merit)
                if not any(map(math.isfinite, self._merits)):
                    raise RequestError(f"look tells how good the model is, a finite number. Got {self._merits[-1]}.")
            finally:
                self._looking = False
        self._dilate(self._shared.at(step))

    def show(self, step: int, training: bool) -> None:
        """Dilate the sites for a pass: the best so far in evaluation, those of the step in training."""
        if not self._looking:
            self._dilate(self._shared.at(step) if training else self.best)

    def state(self) -> dict[str, Any]:
        """Return what to go on from."""
        return {"shared": self._shared.state(), "average": self._average.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._shared.load_state(state["shared"])
        self._average.load_state(state["average"])

    def _merit(self, dilations: Mapping[str, int]) -> float:
        """Return how good the model is at some dilations, in the mean over the processes of a distributed training."""
        self._dilate(dilations)
        self._model.eval()
        merit = float(self._look())
        if distributed.is_available() and distributed.is_initialized():
            total = torch.tensor(merit, device=next(self._model.parameters()).device)
            distributed.all_reduce(total)
            merit = total.item() / distributed.get_world_size()
        self._merits.append(merit)
        return merit if math.isfinite(merit) else -math.inf

    def _dilate(self, dilations: Mapping[str, int]) -> None:
        for path, dilation in dilations.items():
            self._sites[path].dilate(dilation)
