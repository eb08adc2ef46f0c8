"""Recognise networks whose layers are hidden: compiled by torch.compile, or scripted."""

from __future__ import annotations

import torch
from torch import nn

from rfsearch.errors import ModelError

# Name of the module inside what torch.compile returns.
_WRAPPED = "_orig_mod"


def check_not_compiled(model: nn.Module) -> None:
    """Check that nothing in a model is compiled or scripted, which would hide or fix its layers.

    Raises:
        ModelError: Something is.
    """
    for path, module in model.named_modules():
        where = f"{type(model).__name__}{f' at {path!r}' if path else ''}"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} is a TorchScript module ({type(module).__name__}), whose layers cannot be changed or "
                "followed. Pass the module that it was made from, before torch.jit.script or torch.jit.trace."
            )
        if _before_compiling(module) or module._compiled_call_impl is not None:
            raise ModelError(
                f"{where} is compiled by torch.compile, which hides its layers. Pass the module before it is compiled, "
                "and compile the result."
            )


def is_compiled(model: nn.Module) -> bool:
    """Return whether torch.compile has compiled a model or anything in it."""
    return any(_before_compiling(m) is not None or m._compiled_call_impl is not None for m in model.modules())


def strip_compilation(model: nn.Module) -> nn.Module:
    """Undo torch.compile in a new network that a search is to change.

    Raises:
        ModelError: The network is TorchScript, or was built in torch.inference_mode.
    """
    model = put_back_compiled(model)
    check_not_compiled(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ModelError(
                f"{type(model).__name__} was built in torch.inference_mode, so its {name} cannot be trained. Build it "
                "outside of that."
            )
    return model


def name_as_written(name: str) -> str:
    """Return the name of a module or parameter as it was before torch.compile wrapped what it is in."""
    return ".".join(part for part in name.split(".") if part != _WRAPPED)


def behind_compilation(module: nn.Module) -> nn.Module:
    """Return the module behind what torch.compile returned; any other is returned itself."""
    written = _before_compiling(module)
    return module if written is None else behind_compilation(written)


def put_back_compiled(model: nn.Module) -> nn.Module:
    """Replace what torch.compile returned by the modules behind it, in place, so that all have the names they had."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if (plain := _before_compiling(module)) is not None:
            return put_back_compiled(_replaced(model, path, plain))
        module._compiled_call_impl = None
    return model


def _before_compiling(module: nn.Module) -> nn.Module | None:
    """Return the module behind what torch.compile returned, whose class takes long to import; None for any other."""
    return module._modules.get(_WRAPPED) if type(module).__name__ == "OptimizedModule" else None


def _replaced(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    if not path:
        return module
    model.set_submodule(path, module)
    return model
