"""Show kernels of many small calls of torch as a single call to whoever watches these.

Metering watches the calls that are made from Python (`torch.overrides.TorchFunctionMode`). A kernel that cuts its maps
into pieces makes hundreds; its cost follows from its arguments.
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
    """State what a kernel's argument that is neither a tensor nor a plain value contributes to its cost.

    Example:
        >>> class Axis(Working):
        ...     @property
        ...     def work(self):
        ...         return self.size
    """

    @property
    @abstractmethod
    def work(self) -> Hashable:
        """Return what the kernel's cost depends on: equal if calls with tensors of equal shapes cost the same."""


def one_call(kernel: Kernel) -> Kernel:
    """Show every call of a kernel as one call of itself, and nothing of what it calls.

    Args:
        kernel: A function whose first argument is a tensor. Its arguments are tensors, plain values, `Working` objects,
            and lists and tuples of these. They alone decide what it costs.

    Returns:
        The kernel, which calls `__torch_function__` of an active mode once, with itself as the function.
    """

    @wraps(kernel)
    def shown(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function_unary(x):
            return handle_torch_function(shown, (x,), x, *args, **kwargs)
        return kernel(x, *args, **kwargs)

    return shown  # type: ignore[return-value]
