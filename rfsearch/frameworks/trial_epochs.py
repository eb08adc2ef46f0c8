"""What takes the trainer of any framework through the epochs of a search's trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rfsearch.errors import RequestError
from rfsearch.own_loop.kept import Stateful
from rfsearch.own_loop.trial import Trial


class TrialEpochs:
    """Take a trainer through the epochs of a trial, and report a metric that it logs.

    Args:
        trial: What the training function was given.
        score: Name, as the trainer logs it, of the metric that the search goes by.
        look: As for `Trial.attach`, called without arguments.
    """

    def __init__(self, trial: Trial, score: str, *, look: Callable[[], float] | None = None) -> None:
        """Wait for the trainer."""
        super().__init__()
        self._trial, self._score, self._look = trial, score, look
        self._epochs: Iterator[int] = iter(())
        self._count = 0
        self._evaluation = ExitStack()
        self.epoch: int | None = None
        """The epoch that is trained, from 0. None: there is none, or no more."""

    def begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, kept: Mapping[str, Stateful]
    ) -> bool:
        """Attach what is trained, and go on from where an interrupted trial had stopped.

        Args:
            model: What `Trial.prepare` has returned, or what wraps it.
            optimizer: What moves it.
            epochs: Number of epochs of a full training.
            kept: What else a resumed trainer needs, by name.

        Returns:
            Whether there is an epoch to be trained.
        """
        self._trial.attach(model, optimizer, look=self._look)
        self._trial.keep(**kept)
        self._count, self._epochs = epochs, self._trial.epochs(epochs)
        return self.go_on()

    def go_on(self) -> bool:
        """End an epoch, and return whether there is another one to be trained."""
        self.epoch = next(self._epochs, None)
        return self.epoch is not None

    def end(self) -> None:
        """End with the last epoch, or with an earlier one after which the trainer stops by a rule of its own."""
        self.evaluated()
        if self.epoch is not None and self.epoch + 1 == self._count:
            self.go_on()
        self.epoch, self._epochs = None, iter(())

    def evaluate(self) -> None:
        """Charge as evaluation what runs from here on."""
        self._evaluation.enter_context(self._trial.evaluating())

    def evaluated(self) -> None:
        """Charge as training what runs from here on."""
        self._evaluation.close()

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Report the score at the end of an epoch.

        Raises:
            RequestError: The trainer has logged nothing by its name.
        """
        if self._score not in metrics:
            raise RequestError(
                f"no metric is called {self._score!r}, by which the search should go. Logged: "
                f"{', '.join(map(str, metrics)) or 'none'}."
            )
        self._trial.report(val=metrics[self._score])

    def check(self, processes: int) -> None:
        """Check that a trainer trains in the processes of its trial.

        Raises:
            RequestError: It has other processes or devices.
        """
        if processes != self._trial.world_size:
            raise RequestError(
                f"the trainer trains on {processes} devices, and its trial has {self._trial.world_size}. Let it train "
                f"on trial.world_size devices; processes_per_trial={processes} of the search starts their processes."
            )


@dataclass(frozen=True)
class Kept:
    """Let a trial keep what two functions return and take.

    Attributes:
        state_dict: Returns the state.
        load_state_dict: Goes on from it.
    """

    state_dict: Callable[[], Any]
    load_state_dict: Callable[[Any], object]
