"""Build the network that a planted answer is looked for with: the layout of what made the labels, and wider."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

FEATURES = 32


def planted_student(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build one 3 x 3 convolution, `conv`, a tanh and a mixture: B x in_channels x H x W to B x num_classes x H x W."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_channels, FEATURES, 3, padding=1),
        bend=nn.Tanh(),
        mixture=nn.Conv2d(FEATURES, num_classes, 1),
    )
    return nn.Sequential(layers)
