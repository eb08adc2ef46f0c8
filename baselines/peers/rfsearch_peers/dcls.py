"""Convolve with learnable spacings: each tap of each kernel learns its place.

Khalfaoui-Hassani et al., "Dilated convolution with learnable spacings", ICLR 2023, and "Dilated convolution with
learnable spacings: beyond bilinear interpolation", 2023. Called: `Dcls2d` of the package `dcls` (MIT by its licence
file; the package's metadata names the GPL).

`dcls` is bilinear and starts at a dilation's grid. `dcls_gauss` is as in the package's examples: Gaussian, with a
learned sigma for each tap, dense kernels of 17 x 17 places, and taps that start near the centre, N(0, 0.5).

Its kernels are dense, as large as the places that a tap may take, and are assembled in every pass: on a CPU 4, 9, 30
and 200 times a plain 3x3 convolution at 5, 7, 13 and 23 taps per axis, 64 to 64 channels on 8 maps of 24 x 24.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfsearch.receptive import Call, Field, register
from rfsearch.receptive.field import hull
from rfsearch_peers.arms import LayerSweep
from rfsearch_peers.needs import check_installed, even_padding

_NAME, _MODULES = "dcls", ("DCLS",)
# Root mean square of the places' gradient as it reaches the optimiser. The authors train places by AdamW at five times
# a rate of 0.004, 0.02 px a step whatever the gradient's size; under stochastic gradient descent at a rate of 0.1 with
# a momentum of 0.9 this is as fast, and the gradient as it comes moves none of them by a hundredth of a px.
PLACE_GRADIENT = 0.02
# What the authors train Gaussians with (`ConvNeXt-dcls`): AdamW with its usual betas at five times a rate of 0.004, no
# decay of places, a cosine after a linear growth over 20 of 300 epochs. Sigmas move like places.
PLACE_RATE, WARMUP, BETAS, EPSILON = 5 * 0.004, 20 / 300, (0.9, 0.999), 1e-8
EXAMPLES_REACH = 8  # of a 3 x 3 kernel with 17 x 17 places


class SpacedConvolution(nn.Module):
    """Convolve with taps at learned places, bilinear between pixels: B x C x H x W to what `conv` gives.

    They start at the grid of `conv`, where it is `conv`.

    Args:
        conv: The convolution.
        padding: Zeros on either side, px, vertically and horizontally.
        reach: The dilation to whose grid taps may spread, so that the dense kernel has (k - 1) reach + 1 taps per axis.

    Example:
        >>> SpacedConvolution(torch.nn.Conv2d(4, 4, 3, padding=1), (1, 1), reach=2).dilation
        1.0
    """

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int], reach: int) -> None:
        super().__init__()
        # The paper's own version; its gradient does not vanish at whole places.
        self.spaced = _dense(conv, padding, reach, "v0")
        unit = _unit_grid(conv)
        self._unit: Tensor
        self.register_buffer("_unit", unit, persistent=False)  # axis (y, x) x taps: the grid at a dilation of 1
        with torch.no_grad():
            self.spaced.weight.copy_(conv.weight.flatten(2))
            self.spaced.P.copy_((unit * torch.tensor(conv.dilation)[:, None])[:, None, None])
            if conv.bias is not None:
                self.spaced.bias.copy_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to what the convolution gives."""
        # It keeps index tensors of its first pass, which are no buffers: after a move to another device, or a pass on
        # shapes alone, they would be the wrong ones.
        self.spaced.DCK.IDX = self.spaced.DCK.lim = None
        spaced = self.spaced
        places = spaced.P.view_as(spaced.P)
        if places.requires_grad:
            places.register_hook(_scaled)
        output: Tensor = spaced._conv_forward(x, spaced.weight, spaced.bias, places, spaced.SIG)
        return output

    def advance(self, step: int, steps: int) -> None:
        """Move taps that have left the kernel back to its edge, as the package asks for after every step."""
        self.spaced.clamp_parameters()

    @property
    def dilation(self) -> float:
        """Return the dilation of the regular grid whose taps are as far from the centre, px (root mean square).

        Taps part from their grid in all directions, so that their mean place hardly moves while they spread.
        """
        return _spread(self.spaced.P, self._unit)

    def undecayed(self) -> list[nn.Parameter]:
        """Return the places: decay would draw them together."""
        return [self.spaced.P]


def _scaled(gradient: Tensor) -> Tensor:
    return gradient * (PLACE_GRADIENT / (gradient.square().mean().sqrt() + torch.finfo(gradient.dtype).tiny))


class AdamSteps(nn.Module):
    """Move a parameter as the authors do, whatever the network's optimiser, which is shown no gradient of it.

    Args:
        parameter: What moves.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.gradient: Tensor
        self.mean: Tensor
        self.square: Tensor
        for name in ("gradient", "mean", "square"):
            self.register_buffer(name, torch.zeros_like(parameter.detach()))

    def watched(self, parameter: Tensor) -> Tensor:
        """Return a parameter whose gradient of this pass is kept for `move`."""
        shown = parameter.view_as(parameter)
        if shown.requires_grad:
            shown.register_hook(self._keep)
        return shown

    def _keep(self, gradient: Tensor) -> Tensor:
        self.gradient.copy_(gradient)
        return torch.zeros_like(gradient)

    def move(self, parameter: Tensor, step: int, steps: int) -> None:
        """Take the step that the gradient of training step `step` - 1 asks for.

        Args:
            parameter: What moves.
            step: Number of gradients so far, at least 1.
            steps: Of a full training.
        """
        self.mean.lerp_(self.gradient, 1 - BETAS[0])
        self.square.lerp_(self.gradient.square(), 1 - BETAS[1])
        mean, square = self.mean / (1 - BETAS[0] ** step), self.square / (1 - BETAS[1] ** step)
        rate = PLACE_RATE * min(1.0, step / (WARMUP * steps)) * (1 + math.cos(math.pi * step / steps)) / 2
        parameter.sub_(rate * mean / (square.sqrt() + EPSILON))


class GaussianSpacings(nn.Module):
    """Convolve with Gaussian taps of learned places and widths: B x C x H x W to what `conv` gives.

    Args:
        conv: The convolution; it gives the weights of the taps.
        padding: Zeros on either side, px, vertically and horizontally.

    Example:
        >>> GaussianSpacings(torch.nn.Conv2d(4, 4, 3, padding=1), (1, 1)).spaced.dilated_kernel_size
        (17, 17)
    """

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int]) -> None:
        super().__init__()
        self.spaced = _dense(conv, padding, EXAMPLES_REACH, "gauss")
        with torch.no_grad():
            self.spaced.weight.copy_(conv.weight.flatten(2))
            if conv.bias is not None:
                self.spaced.bias.copy_(conv.bias)
        self.places, self.sigmas = AdamSteps(self.spaced.P), AdamSteps(self.spaced.SIG)
        self._unit: Tensor
        self.register_buffer("_unit", _unit_grid(conv), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to what the convolution gives."""
        spaced = self.spaced
        spaced.DCK.IDX = spaced.DCK.lim = None  # as for `SpacedConvolution`
        places, sigmas = self.places.watched(spaced.P), self.sigmas.watched(spaced.SIG)
        output: Tensor = spaced._conv_forward(x, spaced.weight, spaced.bias, places, sigmas)
        return output

    def advance(self, step: int, steps: int) -> None:
        """Move places and widths by the last step's gradient, and taps that have left the kernel back to its edge."""
        if step:
            self.places.move(self.spaced.P, step, steps)
            self.sigmas.move(self.spaced.SIG, step, steps)
        self.spaced.clamp_parameters()

    @property
    def dilation(self) -> float:
        """Return the dilation of the regular grid whose taps are as far from the centre, px (root mean square)."""
        return _spread(self.spaced.P, self._unit)

    def undecayed(self) -> list[nn.Parameter]:
        """Return places and widths, which the network's optimiser is to leave alone."""
        return [self.spaced.P, self.spaced.SIG]


def _dense(conv: nn.Conv2d, padding: tuple[int, int], reach: int, version: str) -> Any:
    """Return the package's layer in the place of a convolution, its taps within the grid of dilation `reach`."""
    kernel, dilation = conv.kernel_size, conv.dilation
    more = [(k - 1) * (reach - d) // 2 for k, d in zip(kernel, dilation, strict=True)]
    make = importlib.import_module("DCLS.construct.modules").Dcls2d
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of a faster kernel for depthwise convolutions, which is not asked for
    try:
        return make(
            conv.in_channels,
            conv.out_channels,
            kernel_count=kernel[0] * kernel[1],
            stride=conv.stride,
            padding=tuple(p + m for p, m in zip(padding, more, strict=True)),
            dilated_kernel_size=tuple((k - 1) * reach + 1 for k in kernel),
            groups=conv.groups,
            bias=conv.bias is not None,
            version=version,
            use_implicit_gemm=False,
        )
    finally:
        logging.disable(before)


def _unit_grid(conv: nn.Conv2d) -> Tensor:
    """Return the places of a convolution's taps at a dilation of 1, axis (y, x) x taps."""
    axes = [torch.arange(k) - (k - 1) // 2 for k in conv.kernel_size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).float()


def _spread(places: Tensor, unit: Tensor) -> float:
    return float((places.detach().square().mean() / unit.square().mean()).sqrt())


def dcls(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build learnable spacings that start at the grid of `conv` and may spread to the space's next larger dilation.

    Raises:
        RequestError: The package is missing.
        ModelError: The convolution is not plain.
    """
    check_installed(_NAME, _MODULES)
    own = max(conv.dilation)
    return SpacedConvolution(conv, even_padding(conv, _NAME), min((d for d in dilations if d > own), default=own))


def dcls_gauss(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build learnable Gaussian spacings as in the package's examples.

    Raises:
        RequestError: The package is missing.
        ModelError: The convolution is not plain.
    """
    check_installed(_NAME, _MODULES)
    return GaussianSpacings(conv, even_padding(conv, _NAME))


def _field(call: Call) -> Field:
    """Follow the outermost taps of all kernels, wherever between pixels they are."""
    spaced, field = call.module.spaced, call.field
    for i in range(2):
        places = spaced.P[i].detach()
        centre = spaced.dilated_kernel_size[i] // 2 - spaced.padding[i]
        units = np.arange(call.output[2 + i], dtype=np.float64) * spaced.stride[i] + centre
        ends = [field.sampled(2 + i, units + float(end), spaced.stride[i]) for end in (places.min(), places.max())]
        field = hull(ends, ends[0].shape)
    return field.mixed([1]).spread(call.output)


register(SpacedConvolution, _field)
register(GaussianSpacings, _field)


class LearnedSpacings(LayerSweep):
    """Train dilated convolutions with learnable spacings, from the grid of each dilation of the space.

    Example:
        >>> LearnedSpacings(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:dcls"


class LearnedGaussians(LayerSweep):
    """Train dilated convolutions with learnable Gaussian spacings, which have one start: near the centre.

    Example:
        >>> LearnedGaussians(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:dcls_gauss"
    starts_anywhere = False
