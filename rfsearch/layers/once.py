"""Functions that have a first derivative of their own and no second: differentiating twice is an error, never a zero.

`torch.autograd.function.once_differentiable` raises only where the second derivative is asked of all leaves, and
through the gradient that came in: `torch.autograd.grad(penalty, weights)` goes past it and leaves out terms silently.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from rfsearch.errors import DerivativeError

Backward = Callable[..., tuple[Tensor | None, ...]]


def differentiable_once(backward: Backward) -> Backward:
    """Make differentiating what a `backward` gives, by anything that it may depend on, raise a DerivativeError.

    It may depend on the gradient that comes in and on the inputs that were saved for it.
    """

    @wraps(backward)
    def sealed(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        return tuple(None if grad is None else _sealed(grad, *grads, *ctx.saved_tensors) for grad in found)

    return sealed


def sealed_gradient(output: Tensor, *inputs: Tensor | None) -> Tensor:
    """The output itself, whose gradient raises a DerivativeError when it is differentiated by any of the inputs."""
    if not output.requires_grad or torch.compiler.is_exporting():
        return output
    ties = [tie(tensor) for tensor in inputs if tensor is not None and tensor.requires_grad]
    sealed: Tensor = _SealedGradient.apply(output, *ties)
    return sealed


def tie(tensor: Tensor) -> Tensor:
    """An empty tensor that depends on another one and holds nothing of it: to be saved where that is not."""
    return tensor.reshape(1)[:0].clone() if tensor.dim() == 0 else tensor.narrow(0, 0, 0).clone()


def _sealed(grad: Tensor, *sources: Any) -> Tensor:
    tensors = [source for source in sources if isinstance(source, Tensor) and source.requires_grad]
    if not tensors:
        return grad
    sealed: Tensor = _Sealed.apply(grad.detach(), *tensors)
    return sealed


class _SealedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return output.view_as(output)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, *(None for _ in ctx.saved_tensors)


class _Sealed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, *sources: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise DerivativeError(
            "a layer of rfsearch is differentiated twice, as for a gradient penalty (create_graph=True). Resampling, "
            "real dilations and LS-DFN have a first derivative only. Take the penalty of a part of the network without "
            "them, or from finite differences of first gradients."
        )
