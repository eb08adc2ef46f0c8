"""Build the parsing path of Wei et al.: features, then one convolution whose receptive field is set.

Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", Computational Visual
Media 4(3), 2018: Fig. 1 and Table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rfsearch.copies import copy_module
from rfsearch.layers import Inflation, InflationFactor, Interpolation, WeightedGradient


class ParsingPath(nn.Module):
    """Parse an image: features -> bn -> inflation -> conv6 -> conv7 -> output -> interpolation.

    Maps B x C x H x W to B x classes x H x W. `fork` makes several parallel paths of what follows the features; their
    outputs are summed. Behind the interpolation of each is its loss guidance, which does nothing until it is given
    labels. The inflation and the interpolation share one factor, f = 1 and not learned.

    Args:
        features: Maps the image to `channels` maps, with one unit every `stride` px.
        channels: Channels of the features.
        stride: Stride of the features, px: a unit lies on every `stride`-th pixel, from the first on. None: on whatever
            image, their outermost units lie on its outermost pixels (F of Wei eq. 8).
        num_classes: Channels of the output.
        kernel: Taps of conv6 per axis.
        hidden: Channels of conv6 and of conv7.
        dropout: Probability behind each of the two.
        affine: Whether bn scales and shifts what it has normalised.

    Example:
        >>> net = wei_small(num_classes=5)
        >>> net(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 5, 32, 32])
    """

    def __init__(
        self,
        features: nn.Module,
        channels: int,
        stride: int | None,
        num_classes: int,
        kernel: int,
        hidden: tuple[int, int],
        dropout: float = 0.0,
        affine: bool = True,
    ) -> None:
        super().__init__()
        factor = InflationFactor()
        self.dropout = dropout
        self.features = features
        self.bn = nn.BatchNorm2d(channels, affine=affine)
        self.inflation = Inflation(factor)
        self.conv6 = nn.Conv2d(channels, hidden[0], kernel, padding="same")
        self.conv7 = nn.Conv2d(*hidden, 1)
        self.output = nn.Conv2d(hidden[1], num_classes, 1)
        self.interpolation = Interpolation(factor, stride)
        self.guidance = WeightedGradient()
        self.parallel = nn.ModuleList()
        initialise_he(self)
        # Small logits: the first steps see a nearly uniform prediction, whatever the number of classes.
        nn.init.normal_(self.output.weight, std=0.01)

    def forward(self, image: Tensor) -> Tensor:
        """Map B x C x H x W to B x classes x H x W: the sum over all paths."""
        features, size = self.features(image), image.shape[-2:]
        logits = self.parse(features, size)
        for path in self.parallel:
            assert isinstance(path, ParsingPath)
            logits = logits + path.parse(features, size)
        return logits

    def parse(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Run one path: B x C x H x W of the features to B x classes x h x w, (h, w) being `size` in px."""
        x = self.inflation(self.bn(features))
        x = F.dropout(F.relu(self.conv6(x)), self.dropout, self.training)
        x = F.dropout(F.relu(self.conv7(x)), self.dropout, self.training)
        parsed: Tensor = self.guidance(self.interpolation(self.output(x), size, features.shape[-2:]))
        return parsed

    def fork(self, site: str, count: int) -> list[str] | None:
        """Put `site` in `count` parallel paths, initialised alike.

        Returns:
            Its module name in each path, or None for a site among the features, which all paths share.
        """
        if site.startswith("features.") or self.parallel:
            return None
        features, self.features = self.features, nn.Identity()
        copies = [copy_module(self) for _ in range(count - 1)]
        self.features = features
        self.parallel.extend(copies)
        return [site, *(f"parallel.{i}.{site}" for i in range(count - 1))]


def initialise_he(model: nn.Module) -> None:
    """Initialise convolutions as He et al. do.

    Without it, thirteen of them with no normalisation in between do not start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
