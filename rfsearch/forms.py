"""Forms that hide a network's layers: compiled by torch.compile, or scripted."""

from __future__ import annotations

import torch
from torch import nn

from rfsearch.errors import ModelError


def check_plain(model: nn.Module) -> None:
    """Raise ModelError for a model in which something is compiled or scripted: its layers are hidden or fixed."""
    for path, module in model.named_modules():
        where = f"{type(model).__name__}{f' at {path!r}' if path else ''}"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} is a TorchScript module ({type(module).__name__}), whose layers cannot be changed or "
                "followed. Give the module that it was made of, before torch.jit.script or torch.jit.trace."
            )
        if _before_compiling(module) or module._compiled_call_impl is not None:
            raise ModelError(
                f"{where} is compiled by torch.compile, which hides its layers. Give the module before it is compiled, "
                "and compile what you get."
            )


def made_plain(model: nn.Module) -> nn.Module:
    """Put the modules behind what torch.compile returned in its place, in a new network, which a search is to change.

    Raises ModelError for a network of TorchScript, and for one that was built in torch.inference_mode.
    """
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if (plain := _before_compiling(module)) is not None:
            return made_plain(_replaced(model, path, plain))
        module._compiled_call_impl = None
    check_plain(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ModelError(
                f"{type(model).__name__} was built in torch.inference_mode, so its {name} cannot be trained. Build it "
                "outside of it."
            )
    return model


def _before_compiling(module: nn.Module) -> nn.Module | None:
    """The module behind what torch.compile returned, whose class takes long to import; None for any other."""
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _replaced(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    if not path:
        return module
    model.set_submodule(path, module)
    return model
