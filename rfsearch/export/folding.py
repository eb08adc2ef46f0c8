"""Turn what a network computes of constants into constants, and what follows a convolution into that convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rfsearch.layers import LSDFN, FractionalConv2d, Inflation, Interpolation
from rfsearch.surgery.dilation import is_plain, owns_weight


class PlainConvolution(nn.Module):
    """Apply a convolution at a real dilation by plain ones; see `rfsearch.layers.plain_convolutions`.

    Args:
        layer: The convolution.
    """

    bias: Tensor | None

    def __init__(self, layer: FractionalConv2d) -> None:
        super().__init__()
        self.form = layer.plain_form()
        for number, part in enumerate(self.form.summed):
            self.register_buffer(f"weight{number}", part.weight.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve B x C x H x W."""
        parts = [
            replace(part, weight=self.get_buffer(f"weight{number}")) for number, part in enumerate(self.form.summed)
        ]
        return replace(self.form, summed=parts)(x, self.bias)


class _Constant(nn.Module):
    """Hold numbers in the place of a module with parameters of these names."""

    def __init__(self, **numbers: float) -> None:
        super().__init__()
        for name, number in numbers.items():
            setattr(self, name, number)


@torch.no_grad()
def fold(network: nn.Module, image: Tensor) -> None:
    """Fold a network in place: f, gamma and real dilations are numbers then, and most batch normalisations are gone.

    Args:
        network: In evaluation mode, in single precision.
        image: 1 x C x H x W, that it is run on.
    """
    for conv, norm in _followed(network, image):
        _fold_norm(network, conv, norm)
    for name, module in list(network.named_modules()):
        if isinstance(module, Inflation | Interpolation):
            module.factor = _Constant(f=float(module.factor.f))  # type: ignore[assignment]
        elif isinstance(module, LSDFN):
            module.stride = _Constant(gamma=float(module.stride.gamma))  # type: ignore[assignment]
        elif isinstance(module, FractionalConv2d) and name:
            network.set_submodule(name, PlainConvolution(module))


def _followed(network: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions and of the batch normalisations behind them, where nothing else sees between."""
    names = {module: name for name, module in network.named_modules()}
    uses, made, seen, runs = _Uses(), {}, {}, Counter[nn.Module]()

    def ran(module: nn.Module, given: Sequence[Any], output: Any) -> None:
        runs[module] += 1
        if isinstance(module, nn.BatchNorm2d):
            seen[module] = given[0]
        else:
            made[id(output)] = module
        uses.watched.append(output)  # so that no other tensor gets its id
        uses.counts[id(output)] = 0  # what has been done to it until here has made it

    hooks = [module.register_forward_hook(ran) for module in names if _folds(module)]
    try:
        with uses:
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (names[conv], names[norm])
        for norm, given in seen.items()
        if (conv := made.get(id(given))) is not None and uses.counts[id(given)] == runs[conv] == runs[norm] == 1
    ]


def _folds(module: nn.Module) -> bool:
    """Return whether a module is a convolution that takes in what follows, or a normalisation that can be taken in."""
    if isinstance(module, nn.BatchNorm2d):
        return type(module).forward is nn.BatchNorm2d.forward and module.running_mean is not None
    if module._forward_hooks or module._forward_pre_hooks or not owns_weight(module):
        return False
    return isinstance(module, FractionalConv2d) or (isinstance(module, nn.Conv2d) and is_plain(module))


def _fold_norm(network: nn.Module, conv: str, norm: str) -> None:
    taken, given = network.get_submodule(norm), network.get_submodule(conv)
    assert isinstance(taken, nn.BatchNorm2d)
    assert isinstance(given, nn.Conv2d | FractionalConv2d)
    assert taken.running_mean is not None
    assert taken.running_var is not None
    given.weight, given.bias = fuse_conv_bn_weights(
        given.weight, given.bias, taken.running_mean, taken.running_var, taken.eps, taken.weight, taken.bias
    )
    network.set_submodule(norm, nn.Identity())


class _Uses(TorchDispatchMode):
    """Count how often operators read each of some tensors, by id."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watched: list[Any] = []
        self.counts = Counter[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.update({id(leaf) for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))
