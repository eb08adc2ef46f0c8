"""Give sizes to networks with lazy modules, whose layers take their sizes from their first input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rfsearch.errors import ModelError
from rfsearch.untouched import untouched


def is_unsized(module: nn.Module) -> bool:
    """Check whether a module itself still waits for its first input."""
    held = (*module._parameters.values(), *module._buffers.values())
    return any(tensor is not None and is_lazy(tensor) for tensor in held)


def give_sizes(model: nn.Module, input_shape: Sequence[int]) -> None:
    """Send an empty image through a network that has lazy modules, which are plain ones from then on.

    What is drawn at their initialisation follows from torch's seed. Nothing else of the network changes, and one
    without lazy modules is not run. What runs in training only, such as an auxiliary head, is sized by an image in
    training mode.

    Args:
        model: The network.
        input_shape: B x C x its axes, of an image.

    Raises:
        ModelError: The network does not take such an image, or a lazy module never runs on it.
    """
    for training in (False, True):
        unsized = [module for module in model.modules() if is_unsized(module)]
        if unsized:
            with untouched(model, but=unsized), torch.no_grad():
                model.train(training)
                _run(model, (1 + training, *input_shape[1:]))  # a batch of one has no variance to normalise by
    for path, module in model.named_modules():
        if is_unsized(module):
            raise ModelError(
                f"{path}: this {type(module).__name__} never runs on an image of {_by(input_shape[1:])}, so its size "
                "is unknown. Give it a size, or remove it from the network."
            )


def _run(model: nn.Module, shape: Sequence[int]) -> None:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    try:
        model(torch.zeros(tuple(shape), device=device, dtype=kind))
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} has lazy modules, which take their sizes from a first image, and does not take "
            f"one of {_by(shape[1:])} (channels x axes): {type(error).__name__}: {error}"
        ) from error


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
