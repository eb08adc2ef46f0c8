"""Kernels of many small calls of torch, shown as a single call to whoever watches them one by one.

Metering watches the calls that are made from Python (`torch.overrides.TorchFunctionMode`). A kernel that cuts its maps
into pieces makes hundreds; what it costs is known from its arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


class Working(ABC):
    """An argument of a kernel that is no tensor and no plain value."""

    @property
    @abstractmethod
    def work(self) -> Hashable:
        """What the cost of the kernel depends on in it: equal where calls with tensors of the same shapes cost the
        same."""


def one_call(kernel: Kernel) -> Kernel:
    """Show every call of a kernel as one of itself, and nothing of what it calls.

    Args:
        kernel: a function whose first argument is a tensor. Its arguments are tensors, plain values, `Working` objects,
            and lists and tuples of these; they alone decide what it costs.

    Returns:
        The kernel, which calls `__torch_function__` of an active mode once, with itself as the function.
    """

    @wraps(kernel)
    def shown(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function_unary(x):
            return handle_torch_function(shown, (x,), x, *args, **kwargs)
        return kernel(x, *args, **kwargs)

    return shown  # type: ignore[return-value]
