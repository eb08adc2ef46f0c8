"""What a training's weights look like without the noise of its last steps, for a look while its rate is still high.

Two things shake a network in the middle of training: every step moves the weights about, and the running statistics of
batch normalisation lag behind them. Weights averaged over the last steps, normalised by the statistics of the batch at
hand, show what the training has learned so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from rfsearch.untouched import restored

# Of a training's steps, how many the average reaches back over.
_REACH = 0.04


class AveragedWeights:
    """The exponential average of a model's parameters over the last 4 % of a training of `steps` steps."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self._model, self._share = model, 1 / max(1.0, _REACH * steps)
        self._values = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self) -> float:
        """Take in the weights as they are; returns the FLOP of that."""
        for value, parameter in zip(self._values, self._model.parameters(), strict=True):
            value.lerp_(parameter, self._share)
        return 2.0 * sum(value.numel() for value in self._values)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within it the model holds the average, evaluates, and normalises by the batch; afterwards it is as before."""
        with restored(self._model):
            # What trains with its running statistics, as frozen ones do, goes on so.
            norms = [module for module in self._model.modules() if isinstance(module, _NormBase) and module.training]
            self._model.eval()
            for norm in norms:
                norm.momentum = 0.0
                norm.register_forward_pre_hook(_normalise_by_batch)
            with torch.no_grad():
                for parameter, value in zip(self._model.parameters(), self._values, strict=True):
                    parameter.copy_(value)
            yield

    def state(self) -> list[Tensor]:
        return self._values

    def load_state(self, values: Sequence[Tensor]) -> None:
        self._values = [value.clone() for value in values]


def _normalise_by_batch(norm: _NormBase, args: tuple[Any, ...]) -> None:
    """Let a layer normalise by the map at hand; by its running statistics where that has one value per channel, as a
    globally pooled map of one image has."""
    shape = args[0].shape
    values = math.prod(shape[2:]) * (shape[0] if isinstance(norm, _BatchNorm) else 1)
    norm.train(values > 1)
