"""What the callbacks of all frameworks share: the learner, made once the framework has the model, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from rfsearch.errors import RequestError
from rfsearch.own_loop import Learner, Report, learn


class Learned:
    """Hold what a callback learns.

    Args:
        sites: Paths of convolutions within the model, shell patterns for several; see `rfsearch.learn`.
        dilations: Legal ones, px of the site's map.
        settle: Whether the model gets plain convolutions after the training.
        options: As for `rfsearch.learn`. A `look` is called without arguments.
    """

    def __init__(
        self, sites: str | Sequence[str], dilations: Sequence[int], *, settle: bool = True, **options: Any
    ) -> None:
        super().__init__()
        self._sites, self._dilations, self._settle, self._options = sites, dilations, settle, options
        self._learner: Learner | None = None

    @property
    def learner(self) -> Learner:
        """What learns.

        Raises:
            RequestError: The framework has not handed over a model yet.
        """
        if self._learner is None:
            raise RequestError("nothing is learned yet: hand this callback to a trainer, and begin the training.")
        return self._learner

    def report(self) -> Report:
        """Return what was learned so far."""
        return self.learner.report()

    def begin(self, model: nn.Module) -> None:
        """Change the model, once."""
        if self._learner is None:
            self._learner = learn(model, self._sites, self._dilations, **self._options)

    def end(self) -> None:
        """Put plain convolutions into the model, if that was asked for."""
        if self._settle:
            self.learner.settle()
        else:
            self.learner.detach()
