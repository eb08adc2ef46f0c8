"""One operator of a running model, as the rules of receptive fields see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rfsearch.errors import ModelError
from rfsearch.receptive.field import Field, Shape


@dataclass(frozen=True)
class Call:
    """One operator of a running model, as a rule sees it.

    name: of the operator, as in `aten::NAME` without its namespace, or a module's class. module: with its own rule,
    else None. path: of the innermost module at work. args, kwargs: as called, with a `Field` in the place of every
    tensor that depends on the image. outputs: shapes of the tensors that came out. dilation: what a convolution is to
    be taken for instead of its own, or None.
    """

    name: str
    module: Any
    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Shape, ...]
    dilation: int | None = None

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by place or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def fields(self) -> list[Field]:
        """Every argument that depends on the image, those in lists included."""
        found: list[Field] = []
        for value in (*self.args, *self.kwargs.values()):
            found += [
                part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, Field)
            ]
        return found

    @property
    def field(self) -> Field:
        """The first argument that depends on the image."""
        return self.fields[0]

    @property
    def output(self) -> Shape:
        """The shape of the first tensor that came out."""
        return self.outputs[0]

    def lost(self, why: str) -> ModelError:
        return ModelError(
            f"{self.name}{f' in {self.path!r}' if self.path else ''} {why}: its receptive field cannot be followed. "
            f"{how_to_register(self.module)}"
        )


Rule = Callable[[Call], Field | Sequence[Field]]
Operator = type[nn.Module] | str


def how_to_register(module: nn.Module | None = None, name: str = "OPERATOR") -> str:
    what = repr(name) if module is None else type(module).__name__
    return f"Add its rule with rfsearch.receptive.register({what}, rule)."


def other_precision(model: nn.Module, cause: Exception) -> str:
    """What to do about weights of another precision than images, where that may be why a model failed; else empty."""
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
