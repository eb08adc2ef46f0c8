"""Build a parsing path that is small enough to train on one CPU core."""

from __future__ import annotations

from torch import nn

from rfsearch.backbones.parsing_path import ParsingPath

STRIDE = 4
OFFSET = 0.0  # centre of the first unit behind the features, px
HIDDEN = 64

# Channels and stride of the 3x3 convolutions: 15 px of receptive field, so that the dilation of conv6 matters.
_LAYERS = ((16, 2), (48, 2), (64, 1))
CHANNELS = _LAYERS[-1][0]


def wei_small(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build Wei's layout at a stride of 4 px: B x in_channels x H x W to B x num_classes x H x W."""
    return ParsingPath(small_features(in_channels), CHANNELS, STRIDE, num_classes, kernel=3, hidden=(HIDDEN, HIDDEN))


def small_features(in_channels: int) -> nn.Sequential:
    """Build the features: B x in_channels x H x W to B x CHANNELS x ceil(H / STRIDE) x ceil(W / STRIDE)."""
    layers: list[nn.Module] = []
    channels = in_channels
    for width, stride in _LAYERS:
        layers += [
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*layers)
