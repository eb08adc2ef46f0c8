"""What sizes a module gives, found without computing a value and without leaving a trace."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from rfsearch.errors import ModelError


def output_shape(module: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the tensor that a module gives in evaluation for one of `shape`.

    Runs a copy without hooks on torch's `meta` device, hidden from whatever meters or traces the caller. Raises
    ModelError for a module that does not map one tensor to one.
    """
    memo: dict[int, Any] = {}
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
        for part in module.modules():
            memo |= {id(value): OrderedDict() for name, value in vars(part).items() if name.endswith("_hooks")}
        for tensor in chain(module.parameters(), module.buffers()):
            if tensor.dim():  # sizes depend on scalars, such as f
                memo[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        twin = copy.deepcopy(module, memo).eval()
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        try:
            output = twin(torch.empty(tuple(shape), dtype=dtype, device="meta"))
        except Exception as error:
            raise ModelError(f"A {type(module).__name__} does not take a map of {tuple(shape)}: {error}") from error
    if not isinstance(output, Tensor):
        raise ModelError(f"A site maps one tensor to one. Got a {type(output).__name__} of a {type(module).__name__}.")
    return tuple(output.shape)
