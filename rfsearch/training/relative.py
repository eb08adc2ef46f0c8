"""Steps of the numbers that a training learns of a receptive field: inflation factors, sample strides, dilations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_MEMORY = 0.9


class RelativeSteps(torch.optim.Optimizer):
    """Move positive numbers p along dL/dlog p by steps that do not depend on the size of that gradient.

    log p -= lr g / sqrt(v), with v the running mean of g^2, g = p dL/dp, corrected for its start. A loss that is summed
    instead of averaged moves p as far.

    The mean is over some ten steps: gradients fall by orders of magnitude on the way to an answer, and a longer memory
    makes steps too small there. Without momentum, so that steps go to and fro: the loss is wavy in f, with a wave for
    each row that a map gains at its border, and a smooth path ends in the first trough. How near this comes to known
    answers is measured by `baselines/benchmarks/planted.py`.

    Args:
        params: The numbers, each above 0, or groups of them; those of a group with `logarithms` are the log p.
        lr: Root mean square of the relative steps.
    """

    def __init__(self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(params, {"lr": lr, "logarithms": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with each number that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and group["logarithms"]:
                    p.sub_(group["lr"] * self._normalised(p, p.grad))
                elif p.grad is not None:
                    p.mul_(torch.exp(-group["lr"] * self._normalised(p, p.grad * p)))

    def _normalised(self, p: nn.Parameter, g: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state.update(step=0, square=torch.zeros_like(g))
        state["step"] += 1
        state["square"].lerp_(g.square(), 1 - _MEMORY)
        size: Tensor = (state["square"] / (1 - _MEMORY ** state["step"])).sqrt()
        return g / size.clamp(min=torch.finfo(size.dtype).tiny)
