"""Install a user's layer in the place of a site's convolution: what makes it, and what it may tell.

The choice names it by a SPEC, `package.module:callable` or `path/to/file.py:callable`. The callable:
`(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module`, with `conv` the site's own convolution, its weights kept and
the choice's dilation set, and `dilations` those of the space. The layer maps B x C x H x W to what `conv` gives for it,
B x C' x H' x W', also where tensors have no values (torch's `meta` device), which is how its cost is forecast. Whatever
it learns lives in its state dict. It is metered and traced like everything else: if it runs operators that rfsearch
does not know, register them with `rfsearch.training.register_flop` and `rfsearch.receptive.register`.

What a layer may have besides, each by itself, stands in the protocols below.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from rfsearch import plugins
from rfsearch.choices import Guest
from rfsearch.errors import ModelError, RfsearchError
from rfsearch.surgery.installing import Installed, Place
from rfsearch.surgery.shapes import output_shape


@runtime_checkable
class Advancing(Protocol):
    """A layer that changes by itself while it is trained."""

    def advance(self, step: int, steps: int) -> None:
        """Called before every training step, without gradients. step: from 0. steps: of a full training."""


@runtime_checkable
class Finding(Protocol):
    """A layer that finds a dilation."""

    @property
    def dilation(self) -> float:
        """What training has found so far, px of the map between taps, > 0."""


@runtime_checkable
class Changing(Protocol):
    """A layer that costs more or less as training goes on."""

    @property
    def work(self) -> Hashable:
        """What the cost of a pass through it depends on: equal for passes of equal cost at the same sizes."""


@runtime_checkable
class Undecayed(Protocol):
    """A layer with parameters that weight decay would pull from where they should be, such as positions of taps."""

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Those parameters, trained at the recipe's rate without weight decay."""


def found_dilation(layer: nn.Module) -> float | None:
    """The dilation that a layer has found, px of the map; None for one that finds none."""
    found = layer.dilation if isinstance(layer, Finding) else None
    # the attribute of the same name of a convolution is a tuple
    return float(found) if isinstance(found, int | float) and 0 < found < math.inf else None


def install(choice: Guest, place: Place) -> Installed:
    """Put the user's layer in the place of the path's convolution."""
    place.dilations.set(choice.dilation)
    conv = place.conv_2d("a layer stands in the place of one 2-D convolution")
    layer = _made_layer(choice.layer, place.name, conv, place.settings.dilations or (choice.dilation,))
    return Installed(place.put(layer), layer=layer)


def _made_layer(spec: str, path: str, conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Make the layer of a SPEC from a path's convolution.

    Raises:
        ModelError: The SPEC is not available, fails, or gives another size than the convolution.
    """
    try:
        make = plugins.named(spec, "layer")
    except ModelError as error:
        raise ModelError(
            f"{path}: {error} This candidate needs that layer. Install the package that provides it, or copy its file "
            "here."
        ) from error
    longest = max(*dilations, *conv.dilation)
    size = [stride * ((k - 1) * longest + 2) + 1 for stride, k in zip(conv.stride, conv.kernel_size, strict=True)]
    shape = (1, conv.in_channels, *size)
    expected = output_shape(conv, shape)
    try:
        layer = make(conv, tuple(dilations))
    except RfsearchError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: layer {spec!r} fails when it is made: {type(error).__name__}: {error}") from error
    if not isinstance(layer, nn.Module):
        raise ModelError(f"{path}: layer {spec!r} gives a torch.nn.Module. Got {type(layer).__name__}.")
    if (got := output_shape(layer, shape)) != expected:
        raise ModelError(f"{path}: layer {spec!r} maps {shape} to {expected}, as the convolution does. Got {got}.")
    return layer
