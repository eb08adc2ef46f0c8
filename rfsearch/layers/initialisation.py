"""Initialise kernels with less weight at their centre, so that a unit sees farther.

Luo: Luo, Li, Urtasun, Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
NeurIPS 2016.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError


@torch.no_grad()
def low_centre_(module: nn.Module, ratio: float = 0.25) -> None:
    """Scale the weights of every convolution in a module down towards the kernel's centre, in place (Luo sec. 4).

    For use after any initialisation. A tap is multiplied by ratio + (1 - ratio) r, where r is its distance from the
    kernel's centre divided by that of the corners: `ratio` at the centre of an odd kernel, 1 at its corners. Each
    kernel, the k x k taps between one input and one output channel, is then scaled back to its former sum of squares,
    so that the variance of activations and gradients at the start is the initialisation's own. Random 3x3 kernels get a
    variance of position of 0.80 px^2 per axis at ratio 0.25, against 0.67 before, and the effective field starts 1.10
    times as wide. The limit, weight at the four corners only, is 1.22 times, and learns slowly (Luo).

    Covers nn.Conv1d, Conv2d and Conv3d. Kernels of one tap and biases stay as they are, and so does a kernel that is
    nothing but its centre tap.

    Args:
        module: The module.
        ratio: Factor at the centre, dimensionless, in (0, 1]. 1 changes nothing. The paper gives no number; 0.25 is
            ours.

    Raises:
        ModelError: The ratio is outside (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ModelError(f"The scale at a kernel's centre is above 0 and at most 1, that of its corners. Got {ratio}.")
    for convolution in module.modules():
        if isinstance(convolution, nn.Conv1d | nn.Conv2d | nn.Conv3d) and math.prod(convolution.kernel_size) > 1:
            weight, taps = convolution.weight, tuple(range(2, convolution.weight.dim()))
            scaled = weight * (ratio + (1 - ratio) * _distance(weight))
            before, after = weight.square().sum(taps, keepdim=True), scaled.square().sum(taps, keepdim=True)
            # A kernel of zeros has no norm to keep.
            weight.copy_(scaled * (before / after.clamp(min=torch.finfo(weight.dtype).tiny)).sqrt())


def _distance(weight: Tensor) -> Tensor:
    """Return the distance of every tap from the kernel's centre, k x k, 1 at the corners."""
    size = weight.shape[2:]
    squares = torch.zeros(size, dtype=weight.dtype, device=weight.device)
    for axis, taps in enumerate(size):
        offsets = torch.arange(taps, dtype=weight.dtype, device=weight.device) - (taps - 1) / 2
        squares = squares + offsets.square().reshape([-1 if a == axis else 1 for a in range(len(size))])
    corner = sum(((taps - 1) / 2) ** 2 for taps in size)
    return (squares / corner).sqrt()
