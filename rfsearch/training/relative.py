"""Steps of the positive numbers that a training learns of a receptive field: inflation factors and sample strides."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_MEMORY = 0.99


class RelativeSteps(torch.optim.Optimizer):
    """Move positive numbers p along dL/dlog p by steps that do not depend on the size of that gradient.

    log p -= lr g / sqrt(v), with v the running mean of g^2, g = p dL/dp, corrected for its start. A loss that is summed
    instead of averaged moves p as far.

    Without momentum, so that steps go to and fro: where f is whole, no pixel is blurred, and the loss has a cusp with a
    false minimum beside it, in which smooth paths end. With 4 px planted (`baselines/benchmarks/planted.py`, weights
    known, rough maps, 200 steps of 0.05 and less) starts 2, 8 and 12 end so at 4.1, 4.0, 4.0; Adam's first moment of
    0.9 leads to 3.8, 8.2, 6.1, one of 0.98 to 3.8, 8.3, 6.1, and signs alone to 3.9, 8.2, 4.0.

    Args:
        params: The numbers, each a tensor of one value above 0.
        lr: Root mean square of the relative steps.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step with each number that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(torch.exp(-group["lr"] * self._normalised(p, p.grad * p)))

    def _normalised(self, p: nn.Parameter, g: Tensor) -> Tensor:
        state = self.state[p]
        if not state:
            state.update(step=0, square=torch.zeros_like(g))
        state["step"] += 1
        state["square"].lerp_(g.square(), 1 - _MEMORY)
        size: Tensor = (state["square"] / (1 - _MEMORY ** state["step"])).sqrt()
        return g / size.clamp(min=torch.finfo(size.dtype).tiny)
