"""Keep the gradients of some parameters from an optimiser, which leaves alone what has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class HiddenGradients:
    """Set gradients aside before each step of an optimiser, or once its closure has found them, and put them back.

    Args:
        parameters: Whose gradients.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Hide nothing yet."""
        self._parameters = parameters
        self._grads: list[Tensor | None] = [None] * len(parameters)

    def hooks(self, optimizer: torch.optim.Optimizer) -> list[RemovableHandle]:
        """Hide them from every step of an optimiser, until these handles are removed."""
        return [optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)]

    def _before(
        self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._hide()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            return args, kwargs

        def hiding() -> Any:
            loss = closure()
            self._hide()
            return loss

        return args[:1], {**kwargs, "closure": hiding}

    def _hide(self) -> None:
        self._grads = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None

    def _after(self, *_: object) -> None:
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            parameter.grad = grad
