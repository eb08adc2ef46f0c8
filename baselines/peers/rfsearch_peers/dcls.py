"""Convolve with learnable spacings: each tap of each kernel learns its place.

Khalfaoui-Hassani et al., "Dilated convolution with learnable spacings", ICLR 2023. Called: `Dcls2d` of the package
`dcls` (MIT by its licence file; the package's metadata names the GPL).

Its kernels are dense, as large as the places that a tap may take, and are assembled in every pass: on a CPU 4, 9, 30
and 200 times a plain 3x3 convolution at 5, 7, 13 and 23 taps per axis, 64 to 64 channels on 8 maps of 24 x 24.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence

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
        kernel, dilation = conv.kernel_size, conv.dilation
        size = [(k - 1) * reach + 1 for k in kernel]
        more = [(k - 1) * (reach - d) // 2 for k, d in zip(kernel, dilation, strict=True)]
        make = importlib.import_module("DCLS.construct.modules").Dcls2d
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # of a faster kernel for depthwise convolutions, which is not asked for
        try:
            self.spaced = make(
                conv.in_channels,
                conv.out_channels,
                kernel_count=kernel[0] * kernel[1],
                stride=conv.stride,
                padding=tuple(p + m for p, m in zip(padding, more, strict=True)),
                dilated_kernel_size=tuple(size),
                groups=conv.groups,
                bias=conv.bias is not None,
                version="v0",  # the paper's own; its gradient does not vanish at whole places
                use_implicit_gemm=False,
            )
        finally:
            logging.disable(before)
        axes = [torch.arange(k) - (k - 1) // 2 for k in kernel]
        unit = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).float()
        self._unit: Tensor
        self.register_buffer("_unit", unit, persistent=False)  # axis (y, x) x taps: the grid at a dilation of 1
        with torch.no_grad():
            self.spaced.weight.copy_(conv.weight.flatten(2))
            self.spaced.P.copy_((unit * torch.tensor(dilation)[:, None])[:, None, None])
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
        spread = self.spaced.P.detach().square().mean() / self._unit.square().mean()
        return float(spread.sqrt())

    def undecayed(self) -> list[nn.Parameter]:
        """Return the places: decay would draw them together."""
        return [self.spaced.P]


def _scaled(gradient: Tensor) -> Tensor:
    return gradient * (PLACE_GRADIENT / (gradient.square().mean().sqrt() + torch.finfo(gradient.dtype).tiny))


def dcls(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build learnable spacings that start at the grid of `conv` and may spread to the space's next larger dilation.

    Raises:
        RequestError: The package is missing.
        ModelError: The convolution is not plain.
    """
    check_installed(_NAME, _MODULES)
    own = max(conv.dilation)
    return SpacedConvolution(conv, even_padding(conv, _NAME), min((d for d in dilations if d > own), default=own))


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


class LearnedSpacings(LayerSweep):
    """Train dilated convolutions with learnable spacings, from the grid of each dilation of the space.

    Example:
        >>> LearnedSpacings(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:dcls"
