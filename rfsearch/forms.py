"""Forms that a network may come in: compiled, scripted, or normalising across processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    """Make a new network one that a search can change and one process can train, in place where it can.

    What torch.compile had compiled is the module behind it again. Batch normalisation across processes becomes that of
    one process, with the same state dict: a trial is one process, and on a CPU the former does not train at all.

    Raises ModelError for a network of TorchScript.
    """
    places = list(model.named_modules(remove_duplicate=False))
    for path, module in places:
        if (plain := _before_compiling(module)) is not None:
            return made_plain(_replaced(model, path, plain))
        module._compiled_call_impl = None
    check_plain(model)
    lone: dict[nn.Module, nn.Module] = {}
    for path, module in places:
        if isinstance(module, nn.SyncBatchNorm) and type(module).forward is nn.SyncBatchNorm.forward:
            model = _replaced(model, path, lone.setdefault(module, BatchNorm.like(module)))
    return model


def _before_compiling(module: nn.Module) -> nn.Module | None:
    """The module behind what torch.compile returned, whose class takes long to import; None for any other."""
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _replaced(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    if not path:
        return module
    model.set_submodule(path, module)
    return model


class BatchNorm(_BatchNorm):
    """Batch normalisation of a map of any number of axes, B x C and more, in one process."""

    @classmethod
    def like(cls, other: _BatchNorm) -> BatchNorm:
        """Make one of another's settings, parameters and statistics, which are the other's own."""
        new = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        new._parameters, new._buffers = other._parameters, other._buffers
        return new.train(other.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
