"""Search locally as RF-Next does: a convolution at a smaller and a larger dilation, weighed, and again from their mean.

Gao et al., "RF-Next: Efficient Receptive Field Search for Convolutional Neural Networks", TPAMI 2022. Called:
`Conv2dRFSearchOp` of `mmcv.cnn.rfsearch` (Apache-2.0), with the settings of its authors' configurations: two branches
of one kernel at (1 - 0.5) d and (1 + 0.5) d, shares |w_i| / sum |w| with w trained from 0.01, and the next d the mean
of the two by their shares, rounded. Ours: how often it is done, and that the global search of the paper, which is not
part of that package, is the set of starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from torch import Tensor, nn

from rfsearch_peers.arms import SearchThenTrain
from rfsearch_peers.needs import check_installed, even_padding

_NAME, _MODULES = "rfnext", ("mmcv", "mmengine")
# Rounds, as many as fit its authors' eleven of twelve epochs in shorter trainings, and the share that they take: what
# comes after is left for the dilation that was found.
ROUNDS = 6
SHARE = 0.5


class SearchingConvolution(nn.Module):
    """Wrap a convolution in mmcv's operator: B x C x H x W to what `conv` gives.

    It is estimated and expanded ROUNDS times in the first part of a training, then stays at what it estimated last.
    From the start it is expanded: sum_i |w_i| / sum |w| conv(x; d_i).

    Args:
        conv: The convolution.
        bounds: Smallest and largest dilation, px.

    Example:
        >>> SearchingConvolution(torch.nn.Conv2d(4, 4, 3, padding=1), (1, 8)).work
        2
    """

    def __init__(self, conv: nn.Conv2d, bounds: tuple[int, int]) -> None:
        super().__init__()
        make = importlib.import_module("mmcv.cnn.rfsearch").Conv2dRFSearchOp
        config = {"num_branches": 2, "exp_rate": 0.5, "init_alphas": 0.01, "mmin": bounds[0], "mmax": bounds[1]}
        self.search = make(conv, config, verbose=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to what the convolution gives."""
        output: Tensor = self.search(x)
        return output

    def advance(self, step: int, steps: int) -> None:
        """Take the mean of the branches at the end of each round, and branch out from there, except after the last."""
        ends = [max(1, round(SHARE * steps * number / ROUNDS)) for number in range(1, ROUNDS + 1)]
        if step in ends:
            self.search.estimate_rates()
            if step < ends[-1]:
                self.search.expand_rates()

    @property
    def dilation(self) -> float:
        """Return what it would estimate now, px, not yet rounded."""
        rates = self.search.dilation_rates
        shares = self.search.normlize(self.search.branch_weights.detach()[: len(rates)]).tolist()
        axis = 0 if self.search.op_layer.kernel_size[0] > 1 else 1
        return float(sum(share * rate[axis] for share, rate in zip(shares, rates, strict=True)))

    @property
    def work(self) -> int:
        """Return the number of branches."""
        return len(self.search.dilation_rates)

    def get_extra_state(self) -> dict[str, list[list[int]]]:
        """Return the dilations of the branches, and the one that they lie around, vertically and horizontally."""
        return {"rates": [[*rate] for rate in self.search.dilation_rates], "around": [[*self.search.op_layer.dilation]]}

    def set_extra_state(self, state: dict[str, list[list[int]]]) -> None:
        """Restore what `get_extra_state` returned."""
        self.search.dilation_rates = [(y, x) for y, x in state["rates"]]
        ((y, x),) = state["around"]
        self.search.op_layer.dilation = (y, x)


def rfnext(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build RF-Next's operator around `conv`, between the smallest and the largest dilation of the space.

    Raises:
        RequestError: mmcv is missing.
        ModelError: The convolution is not plain.
    """
    check_installed(_NAME, _MODULES)
    even_padding(conv, _NAME)
    return SearchingConvolution(conv, (min(dilations), max(dilations)))


class RFNext(SearchThenTrain):
    """Search locally from the hand default, from where that ended, then from the other dilations.

    After each search, what it found is trained plainly.

    Example:
        >>> RFNext(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:rfnext"
    searches_again = True
