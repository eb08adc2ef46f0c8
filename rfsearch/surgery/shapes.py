"""What sizes a module gives, found without computing a value and without leaving a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from rfsearch.errors import ModelError
from rfsearch.untouched import untouched


class OnShapes(TorchDispatchMode):
    """Let a network run on shapes alone (torch's `meta` device) although its code made tensors with values.

    Such tensors, a grid kept on it or shared, count by their shapes too, and only scalars keep their value.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(leaf.is_meta for leaf in tensors) and not all(leaf.is_meta for leaf in tensors):
            args, kwargs = tree_map_only(Tensor, without_values, (args, kwargs))
        return func(*args, **(kwargs or {}))


def output_shape(module: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the tensor that a module gives in evaluation for one of `shape`.

    Runs it without its hooks on torch's `meta` device, hidden from whatever meters or traces the caller. Raises
    ModelError for a module that does not map one tensor to one.
    """
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad(), untouched(module):
        module.eval()
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        for part in module.modules():
            for name, held in vars(part).items():
                if name.endswith("_hooks") and isinstance(held, dict):
                    held.clear()
            for tensors in (part._parameters, part._buffers):
                tensors.update({name: without_values(held) for name, held in tensors.items() if held is not None})
        try:
            with OnShapes():  # type: ignore[no-untyped-call]
                output = module(torch.empty(tuple(shape), dtype=dtype, device="meta"))
        except Exception as error:
            raise ModelError(f"A {type(module).__name__} does not take a map of {tuple(shape)}: {error}") from error
    if not isinstance(output, Tensor):
        raise ModelError(f"A site maps one tensor to one. Got a {type(output).__name__} of a {type(module).__name__}.")
    return tuple(output.shape)


def without_values(tensor: Tensor) -> Any:
    """A tensor of the same shape on the `meta` device; a scalar keeps its value, as sizes depend on some, such as f."""
    return torch.empty_like(tensor, device="meta") if tensor.dim() else tensor
