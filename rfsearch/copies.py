"""Copy modules, and say what cannot be copied."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from types import FunctionType
from typing import Any, TypeVar

from torch import Tensor, nn

from rfsearch.errors import ModelError

_Module = TypeVar("_Module", bound=nn.Module)


def copy_module(module: _Module) -> _Module:
    """Return a copy of a module that shares nothing with it.

    A tensor that follows from parameters, such as the weight that `torch.nn.utils.weight_norm` computes before every
    forward pass, is copied as its values.

    Raises:
        ModelError: Something in it cannot be copied, or would go on working on the original: a hook or another function
            that closes over the module or a part of it.
    """
    parts = dict(module.named_modules())
    own = {id(value) for part in parts.values() for value in (part, *vars(part).values()) if _is_own(value)}
    for name, part in parts.items():
        for attribute, function in _functions(part):
            if any(id(value) in own for value in _closed_over(function)):
                where = f"{type(module).__name__}{f' (its {name})' if name else ''}"
                raise ModelError(
                    f"{where} cannot be copied: {attribute} holds {function.__qualname__}, which closes over a part of "
                    "it, and in a copy would go on working on the original."
                )
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in parts.values()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot be copied: {type(error).__name__}: {error}") from error


def _is_own(value: Any) -> bool:
    """Check whether a copy has one of its own."""
    return isinstance(value, nn.Module | Tensor | dict | list | set)


def _functions(part: nn.Module) -> Iterator[tuple[str, FunctionType]]:
    """Yield hooks and other plain functions that a module holds, with the attribute that holds them."""
    for name, value in vars(part).items():
        for held in value.values() if isinstance(value, dict) else (value,):
            while isinstance(held, partial):
                held = held.func
            if isinstance(held, FunctionType):
                yield name, held


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # the cell of a name without a value yet
            continue
