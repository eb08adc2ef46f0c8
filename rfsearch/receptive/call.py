"""Describe one operator of a running model, as the rules of receptive fields see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rfsearch.errors import ModelError
from rfsearch.receptive.axis import Shape
from rfsearch.receptive.field import Field


@dataclass(frozen=True)
class Call:
    """Describe one operator of a running model, as a rule sees it.

    Attributes:
        name: Name of the operator, as in `aten::NAME` without its namespace, or of a module's class.
        module: The module, where it has a rule of its own, else None.
        module_name: Name of the innermost module that is running, "" for the model itself.
        args: Positional arguments, with a `Field` in place of every tensor that depends on the image.
        kwargs: Keyword arguments, likewise.
        outputs: Shapes of the resulting tensors.
        dilation: Dilation that replaces a convolution's own, or None.

    Example:
        A rule for a module that reads 5 x 5 units at stride 2:

        >>> register(MyPooling, lambda call: call.field.windowed(5, stride=2))
    """

    name: str
    module: Any
    module_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Shape, ...]
    dilation: int | None = None

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or, if it was not given there, by its name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def fields(self) -> list[Field]:
        """Return every argument that depends on the image, including those in lists."""
        found: list[Field] = []
        for value in (*self.args, *self.kwargs.values()):
            found += [
                part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, Field)
            ]
        return found

    @property
    def field(self) -> Field:
        """Return the first argument that depends on the image."""
        return self.fields[0]

    @property
    def output(self) -> Shape:
        """Return shape of the first resulting tensor."""
        return self.outputs[0]

    def cannot_follow(self, why: str) -> ModelError:
        """Return the error of an operator whose receptive field cannot be followed, with what helps.

        Args:
            why: What the operator does, as the rest of a sentence that begins with its name.
        """
        where = f" in {self.module_name!r}" if self.module_name else ""
        return ModelError(
            f"{self.name}{where} {why}: its receptive field cannot be followed. {how_to_register(self.module)}"
        )


Rule = Callable[[Call], Field | Sequence[Field]]
Operator = type[nn.Module] | str


def operator_table(*groups: tuple[Rule, str]) -> dict[Operator, Rule]:
    """Return the rule of each operator.

    Args:
        groups: Rules, each with the names of its operators, separated by spaces.
    """
    return {name: rule for rule, names in groups for name in names.split()}


def how_to_register(module: nn.Module | None = None, name: str = "OPERATOR") -> str:
    """Say how to add the rule of a module's class or, without a module, of the operator `name`."""
    what = repr(name) if module is None else type(module).__name__
    return f"Add its rule with rfsearch.receptive.register({what}, rule)."


def explain_precision(model: nn.Module, cause: Exception) -> str:
    """Explain a model's failure by weights that have another precision than images.

    Args:
        model: The model that failed.
        cause: What it raised.

    Returns:
        What to do, or "" where that cannot be the reason.
    """
    if not isinstance(cause, RuntimeError) or "type" not in str(cause):  # as "Input type (float) and bias type"
        return ""
    found = {p.dtype: name for name, p in reversed(list(model.named_parameters())) if p.is_floating_point()}
    found.pop(torch.float32, None)
    if not found:
        return ""
    held = ", ".join(f"{name} is {str(dtype).removeprefix('torch.')}" for dtype, name in found.items())
    return (
        f"images are float32, and weights are not: {held}. Build the network in single precision, as by .float(), or "
        "let its forward convert the images and its output."
    )
