"""Search by DASH: all dilations at once, mixed by weights that are trained along, then the heaviest by itself.

Shen, Khodak and Talwalkar, "Efficient Architecture Search for Diverse Tasks", NeurIPS 2022. Written from the paper;
nothing is called.

By linearity a mixture of convolutions is one convolution with the mixed kernels. The paper adds them into one dense
kernel and convolves in the Fourier domain. On two CPU cores, with the dilations 1 to 11 of 3x3 kernels, 64 to 64
channels on 8 maps of 24 x 24, forward and backward, one dense kernel takes 1330 ms, by Fourier transforms 270 ms, and
each dilation's mixed kernel by itself 115 ms. The last is used, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rfsearch.copies import copy_module
from rfsearch.surgery import set_dilation
from rfsearch_peers.arms import SearchThenTrain
from rfsearch_peers.needs import even_padding


class MixedConvolution(nn.Module):
    """Mix one convolution for each dilation by trained weights: B x C x H x W to what `conv` gives.

    In training it is sum_i a_i conv_i with a = softmax(alphas), each convolution with a kernel of its own; in
    evaluation the one with the largest a alone, as DASH takes it. All start with the kernel of `conv` and equal
    weights.

    Args:
        conv: The convolution.
        dilations: The dilations, px.

    Example:
        >>> MixedConvolution(torch.nn.Conv2d(4, 4, 3, padding=1), [1, 2])(torch.randn(1, 4, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(self, conv: nn.Conv2d, dilations: Sequence[int]) -> None:
        super().__init__()
        self._dilations = tuple(sorted(dilations))
        paths = [copy_module(conv) for _ in self._dilations]
        for path, dilation in zip(paths, self._dilations, strict=True):
            set_dilation(path, dilation)
        self.paths = nn.ModuleList(paths)
        self.alphas = nn.Parameter(torch.zeros(len(self._dilations)))

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to what the convolution gives."""
        if not self.training:
            output: Tensor = self.paths[self._heaviest()](x)
            return output
        mixed = []
        for path, share in zip(self.paths, self.alphas.softmax(0).unbind(), strict=True):
            assert isinstance(path, nn.Conv2d)
            bias = None if path.bias is None else share * path.bias
            mixed.append(path._conv_forward(x, share * path.weight, bias))
        return torch.stack(mixed).sum(0)

    @property
    def dilation(self) -> float:
        """Return the dilation with the largest weight, px."""
        return float(self._dilations[self._heaviest()])

    def undecayed(self) -> list[nn.Parameter]:
        """Return the mixture's weights: decay would make them equal."""
        return [self.alphas]

    def _heaviest(self) -> int:
        # Without values any will do: a dilation changes neither size nor cost.
        return 0 if self.alphas.is_meta else int(self.alphas.argmax())


def dash(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build the mixture over the space's dilations.

    Raises:
        ModelError: The convolution is not plain.
    """
    even_padding(conv, "dash")
    return MixedConvolution(conv, dilations)


class Dash(SearchThenTrain):
    """Train the mixture over all dilations once, then its heaviest one by itself; both are charged.

    Example:
        >>> Dash(space, seed=0).suggest([])
    """

    name = "dash"
    layer = f"{__name__}:dash"
    searches_again = False
