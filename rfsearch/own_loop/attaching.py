"""Check that a loop trains what `Trial.prepare` has made: its weights, by the optimisers that are attached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from rfsearch.errors import RequestError


def refuse_loading(model: nn.Module, sites: Iterable[str]) -> list[RemovableHandle]:
    """Refuse to load weights into a model, or into a part of it that holds a site, until the handles are removed.

    A candidate has other layers there: weights by the names of the plain model fail, or are passed over in silence.

    Args:
        model: The model with a candidate installed. Its copies load what they are given.
        sites: Module paths of what was installed.
    """
    parts = {"", *(path[:end] for path in sites for end, letter in enumerate(path) if letter == ".")}
    return [model.get_submodule(part).register_load_state_dict_pre_hook(_Refusal(True)) for part in sorted(parts)]


class _Refusal:
    """Be a hook that refuses, and in copies of its model one that does nothing."""

    def __init__(self, refusing: bool = False) -> None:
        self._refusing = refusing

    def __call__(self, *_: Any) -> None:
        if self._refusing:
            raise RequestError(
                "load trained weights before trial.prepare: a candidate has layers and names of its own there."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _Refusal, ()


def innermost(optimizer: Any) -> Any:
    """Return what takes the steps, behind what Accelerate, Fabric or mmengine put around it."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer


def check_moved(
    model: nn.Module, made: Iterable[str], own: Iterable[nn.Parameter], optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Check that optimisers move a model, and all in it that a candidate brought.

    Args:
        model: The model.
        made: Names of the parameters that `Trial.prepare` has made.
        own: Those that a search moves itself.
        optimizers: All that are attached.

    Raises:
        RequestError: They hold nothing of the model, or not all that was made.
    """
    moved, parameters = _moved_by(optimizers), dict(model.named_parameters())
    if not any(id(parameter) in moved for parameter in parameters.values()):
        raise RequestError(
            "the optimiser holds no parameter of the model that trial.prepare returned. Make it after trial.prepare, "
            "of that model's."
        )
    known, new = moved | {id(parameter) for parameter in own}, set(made)
    for name, parameter in parameters.items():
        if name in new and parameter.requires_grad and id(parameter) not in known:
            raise RequestError(
                f"the optimiser was made before trial.prepare, or leaves out what it has made: {name} would never "
                "train. Make it after trial.prepare, such as of trial.parameter_groups(model, lr)."
            )


class Strangers:
    """Find an optimiser that moves a trial's model and was not attached, by its second step in a row.

    An optimiser may be wrapped in another one or wrap several, and either may be attached: one step of a stranger
    between two of an attached one, and any inside of one, is nothing to object to.

    Args:
        model: The model.
        optimizers: All that are attached.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Look at every step in this process from here on."""
        self._model, self._known = model, optimizers
        self._inside, self._steps = False, 0
        self._handles = [one.register_step_pre_hook(self._begin) for one in optimizers]
        self._handles.append(register_optimizer_step_post_hook(self._end))

    def release(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, *_: Any) -> None:
        self._inside = True

    def _end(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if any(optimizer is known for known in self._known):
            self._inside, self._steps = False, 0
        elif not self._inside and _moved_by([optimizer]) & {id(p) for p in self._model.parameters()}:
            self._steps += 1
            if self._steps > 1:
                raise RequestError(
                    f"the {type(optimizer).__name__} that moves the model was not attached. Make every optimiser "
                    "once, before trial.epochs, and attach it: a new one in a later epoch is neither followed nor "
                    "kept, and the pilot has seen the first epoch only. Set lr in its param_groups instead."
                )


def _moved_by(optimizers: Iterable[torch.optim.Optimizer]) -> set[int]:
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
