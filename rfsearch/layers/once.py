"""Make differentiating a function twice an error, never a silent zero, if it has a first derivative only.

`torch.autograd.function.once_differentiable` raises only if the second derivative is requested of all leaves, and
through the gradient that came in: `torch.autograd.grad(penalty, weights)` bypasses it and leaves out terms silently.
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
    """Make differentiating what a `backward` returns raise a DerivativeError, by anything that it may depend on.

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
    """Return the output itself, whose gradient raises a DerivativeError when differentiated by any of the inputs."""
    if not output.requires_grad or torch.compiler.is_exporting():
        return output
    ties = [tie(tensor) for tensor in inputs if tensor is not None and tensor.requires_grad]
    sealed: Tensor = _SealedGradient.apply(output, *ties)
    return sealed


def tie(tensor: Tensor) -> Tensor:
    """Return an empty tensor that depends on another one and holds nothing of it, to be saved in its place."""
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
            "a layer of rfsearch was differentiated twice, as for a gradient penalty (create_graph=True). Resampling, "
            "real dilations and LS-DFN have a first derivative only. Compute the penalty on a part of the network "
            "without them, or by finite differences of first gradients."
        )
