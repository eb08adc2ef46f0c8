"""Search locally as RF-Next does: a convolution at a smaller and a larger dilation, weighed, and again from their mean.

Gao et al., "RF-Next: Efficient Receptive Field Search for Convolutional Neural Networks", TPAMI 2022. Called:
`Conv2dRFSearchOp` of `mmcv.cnn.rfsearch` (Apache-2.0): branches of one kernel at (1 - r) d, with three at d, and at
(1 + r) d, shares |w_i| / sum |w| with w trained from 0.01, and the next d their mean by shares, rounded. Ours is that
the global search of the paper, which is not part of that package, is the set of starts.

Settings: those of its authors' configurations for segmentation (mmsegmentation, `configs/rfnext`: 80,000 iterations, a
round every 8,000 up to 64,000, three branches, rate 0.5 and dilations up to 24 for ConvNeXt, 0.15 and up to 64 for
DeepLab), where the branches of the last round stay, and "without any retraining" score higher than a single branch
retrained. And a shorter one, `rfnext`: two branches as for detection, six rounds in the first half of a training, then
a single branch at what was found.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rfsearch_peers.arms import LayerSweep, SearchThenTrain
from rfsearch_peers.needs import check_installed, even_padding

_NAME, _MODULES = "rfnext", ("mmcv", "mmengine")
ROUNDS = 6


@dataclass(frozen=True)
class Settings:
    """Say how a search goes.

    Attributes:
        branches: Number of branches.
        rate: How far apart they are, over the dilation that they lie around.
        rounds: Number of rounds.
        share: Of the training, until the last round ends.
        largest: Largest dilation, px; None for that of the space, whose smallest one is the least then.
        keeps_branches: Whether they stay after the last round.
    """

    branches: int
    rate: float
    rounds: int
    share: float
    largest: int | None
    keeps_branches: bool


# Rounds, as many as fit its authors' eleven of twelve epochs in shorter trainings, and the share that they take: what
# comes after is left for the dilation that was found.
SHORT = Settings(2, 0.5, ROUNDS, 0.5, None, keeps_branches=False)
CONVNEXT = Settings(3, 0.5, 8, 0.8, 24, keeps_branches=True)
DEEPLAB = Settings(3, 0.15, 8, 0.8, 64, keeps_branches=True)


class SearchingConvolution(nn.Module):
    """Wrap a convolution in mmcv's operator: B x C x H x W to what `conv` gives.

    It is estimated and expanded once a round in the first part of a training, then stays as the last round left it.
    From the start it is expanded: sum_i |w_i| / sum |w| conv(x; d_i).

    Args:
        conv: The convolution.
        bounds: Smallest and largest dilation, px.
        settings: How its search goes.

    Example:
        >>> SearchingConvolution(torch.nn.Conv2d(4, 4, 3, padding=1), (1, 8)).work
        2
    """

    def __init__(self, conv: nn.Conv2d, bounds: tuple[int, int], settings: Settings = SHORT) -> None:
        super().__init__()
        self._settings = settings
        make = importlib.import_module("mmcv.cnn.rfsearch").Conv2dRFSearchOp
        config = {"num_branches": settings.branches, "exp_rate": settings.rate, "init_alphas": 0.01}
        self.search = make(conv, config | {"mmin": bounds[0], "mmax": bounds[1]}, verbose=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x H x W to what the convolution gives."""
        output: Tensor = self.search(x)
        return output

    def advance(self, step: int, steps: int) -> None:
        """Take the mean of the branches at the end of each round, and branch out from there while they stay."""
        rounds, share = self._settings.rounds, self._settings.share
        ends = [max(1, round(share * steps * number / rounds)) for number in range(1, rounds + 1)]
        if step in ends:
            self.search.estimate_rates()
            if step < ends[-1] or self._settings.keeps_branches:
                self.search.expand_rates()

    @property
    def dilation(self) -> float:
        """Return what it would estimate now, px, not yet rounded; where branches stay, what its last round gave."""
        axis = 0 if self.search.op_layer.kernel_size[0] > 1 else 1
        if self._settings.keeps_branches:
            return float(self.search.op_layer.dilation[axis])
        rates = self.search.dilation_rates
        shares = self.search.normlize(self.search.branch_weights.detach()[: len(rates)]).tolist()
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
    return _searching(conv, dilations, SHORT)


def rfnext_convnext(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build RF-Next's operator around `conv` with its authors' settings for ConvNeXt; raises what `rfnext` does."""
    return _searching(conv, dilations, CONVNEXT)


def rfnext_deeplab(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """Build RF-Next's operator around `conv` with its authors' settings for DeepLab; raises what `rfnext` does."""
    return _searching(conv, dilations, DEEPLAB)


def _searching(conv: nn.Conv2d, dilations: Sequence[int], settings: Settings) -> nn.Module:
    check_installed(_NAME, _MODULES)
    even_padding(conv, _NAME)
    bounds = (min(dilations), max(dilations)) if settings.largest is None else (1, settings.largest)
    return SearchingConvolution(conv, bounds, settings)


class RFNext(SearchThenTrain):
    """Search locally from the hand default, from where that ended, then from the other dilations.

    After each search, what it found is trained plainly.

    Example:
        >>> RFNext(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:rfnext"
    searches_again = True


class RFNextSingle(SearchThenTrain):
    """Search as its authors do for ConvNeXt, and train the single branch of what was found plainly.

    Example:
        >>> RFNextSingle(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:rfnext_convnext"
    searches_again = True


class RFNextBranches(LayerSweep):
    """Search as its authors do for ConvNeXt, and answer with the branches of the last round, without retraining.

    Example:
        >>> RFNextBranches(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:rfnext_convnext"


class RFNextNarrow(LayerSweep):
    """Search as its authors do for DeepLab, and answer with the branches of the last round, without retraining.

    Example:
        >>> RFNextNarrow(space, seed=0).suggest([])
    """

    name, modules = _NAME, _MODULES
    layer = f"{__name__}:rfnext_deeplab"
