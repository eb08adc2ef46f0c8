"""The parsing path of Wei et al. (CVPR 2017, Fig. 2): features, then one convolution whose receptive field is set."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rfsearch.layers import Inflation, InflationFactor, Interpolation


class ParsingPath(nn.Module):
    """features -> bn -> inflation -> conv6 -> conv7 -> output -> interpolation, B x C x H x W to B x classes x H x W.

    features: from the image to `channels` maps, one unit every `stride` px. kernel: taps of conv6 an axis. hidden:
    channels of conv6 and conv7. dropout: probability behind each of the two. The inflation and the interpolation
    share one factor, f = 1 and not learned.
    """

    def __init__(
        self,
        features: nn.Module,
        channels: int,
        stride: int,
        num_classes: int,
        kernel: int,
        hidden: int,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        factor = InflationFactor()
        self.dropout = dropout
        self.features = features
        self.bn = nn.BatchNorm2d(channels)
        self.inflation = Inflation(factor)
        self.conv6 = nn.Conv2d(channels, hidden, kernel, padding="same")
        self.conv7 = nn.Conv2d(hidden, hidden, 1)
        self.output = nn.Conv2d(hidden, num_classes, 1)
        self.interpolation = Interpolation(factor, stride)
        _initialise(self)
        # Small logits: the first steps see a nearly uniform prediction, whatever the number of classes.
        nn.init.normal_(self.output.weight, std=0.01)

    def forward(self, image: Tensor) -> Tensor:
        x = self.inflation(self.bn(self.features(image)))
        x = F.dropout(F.relu(self.conv6(x)), self.dropout, self.training)
        x = F.dropout(F.relu(self.conv7(x)), self.dropout, self.training)
        return self.interpolation(self.output(x), image.shape[-2:])


def _initialise(model: nn.Module) -> None:
    """He's initialisation: without it, thirteen convolutions with no normalisation between them do not start."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
