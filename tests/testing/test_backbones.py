"""The suite for backbones: what ships passes it, and each kind of broken network fails just the check that is meant."""

import copy
import random
from functools import partial

import pytest
import torch
from torch import nn

from rfsearch import plugins
from rfsearch.backbones.small import wei_small
from rfsearch.testing import backbones


def failures(make) -> dict[str, str]:
    """Which checks a backbone fails, and what they say."""
    found = {}
    for check in backbones.BACKBONE_CHECKS:
        try:
            check(make)
        except AssertionError as error:
            found[check.__name__] = str(error)
    return found


DETECTORS = ("rfcn", "couplenet")  # have a suite of their own
QUICK = {"flownet-s-small", "flownet-c-lsdfn-small"}  # of FlowNets, which are one class


def small_backbones():
    for name in plugins.names("backbones"):
        if name.endswith("small") and not name.startswith(DETECTORS):
            slow = name.startswith("flownet") and name not in QUICK
            yield pytest.param(name, marks=pytest.mark.slow) if slow else name


@pytest.mark.parametrize("check", backbones.BACKBONE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", small_backbones())
def test_every_small_backbone_passes(check, name):
    torch.manual_seed(0)
    make = plugins.backbone(name)
    check(partial(_Paired, make) if "flownet-c" in name else make)


class _Paired(nn.Module):
    """A network of two images, given one of any channels and its mirror image."""

    def __init__(self, make, num_classes, in_channels=3):
        super().__init__()
        self.net = make(num_classes, 2 * in_channels)

    def forward(self, image):
        return self.net(torch.cat([image, image.flip(-1)], dim=1))


class _Net(nn.Module):
    """A small sound network, to be broken in one place."""

    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.output = nn.Conv2d(8, num_classes, 1)

    def forward(self, image):
        return self.output(torch.relu(self.bn(self.conv(image))))


class _ThreeChannels(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, 3)


class _NoDefault(_Net):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)


class _TwentyOne(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(21, in_channels)


class _Tuple(_Net):
    def forward(self, image):
        return len(image), super().forward(image)


class _EvenSides(_Net):
    def forward(self, image):
        assert image.shape[-1] % 2 == 0
        return super().forward(image)


class _Enlarges(_Net):
    def forward(self, image):
        return nn.functional.interpolate(super().forward(image), scale_factor=4)


class _Infinite(_Net):
    def forward(self, image):
        return super().forward(image) / 0


class _DropoutAlways(_Net):
    def forward(self, image):
        return nn.functional.dropout(super().forward(image), 0.5, training=True)


class _CountsInEvaluation(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, in_channels)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, image):
        self.seen += 1
        return super().forward(image)


class _BatchStatistics(_Net):
    def forward(self, image):
        logits = super().forward(image)
        return logits - logits.mean(dim=(0, 2, 3), keepdim=True)


class _Detached(_Net):
    def forward(self, image):
        return self.output(torch.relu(self.bn(self.conv(image))).detach())


class _NanGradient(_Net):
    def forward(self, image):
        return super().forward(image) + torch.sqrt(0 * self.output.bias.sum())


class _HidesAWeight(_Net):
    """Holds a weight that its state dict does not."""

    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, in_channels)
        self.hidden = [torch.randn(1, num_classes, 1, 1)]

    def forward(self, image):
        return super().forward(image) + self.hidden[0]


class _SharedWhenCopied(_Net):
    def __deepcopy__(self, memo):
        return self


class _OwnGenerator(_Net):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(num_classes, in_channels)
        nn.init.constant_(self.output.bias, random.SystemRandom().random())


class _BranchesOnAValue(_Net):
    def forward(self, image):
        logits = super().forward(image)
        return logits if logits.mean().item() < 1e9 else 2 * logits


ANY_SIZE = "backbone_takes_images_of_any_size"
COPIED = "backbone_can_be_copied_and_restored"
BROKEN_BACKBONES = [
    (_ThreeChannels, "backbone_builds_for_any_classes_and_channels", r"takes images of \(2, 1, 96, 128\)"),
    (_NoDefault, "backbone_builds_for_any_classes_and_channels", r"builds for \(num_classes, in_channels=3\)"),
    (_TwentyOne, "backbone_builds_for_any_classes_and_channels", "2 x 2 x h x w. Got Tensor of shape 2 x 21"),
    (_Tuple, ANY_SIZE, "Got a tuple of 2"),
    (_EvenSides, ANY_SIZE, r"takes images of \(1, 3, 97, 131\)"),
    (_Enlarges, ANY_SIZE, "no larger than the image, 96 x 128 px. Got 192 x 256"),
    (_Infinite, ANY_SIZE, "are finite"),
    (_OwnGenerator, "backbone_is_the_same_for_the_same_seed", "does not decide output.bias"),
    (_DropoutAlways, "backbone_is_deterministic_in_evaluation", "Got two answers"),
    (_CountsInEvaluation, "backbone_is_deterministic_in_evaluation", r"changed \['seen'\]"),
    (_BatchStatistics, "backbone_takes_each_image_for_itself", "do not depend on the others"),
    (_Detached, "backbone_lets_gradients_reach_every_parameter", r"None reaches \['conv.weight', 'conv.bias', 'bn"),
    (_NanGradient, "backbone_lets_gradients_reach_every_parameter", r"Those of \['output.bias'\] are not"),
    (_BranchesOnAValue, "backbone_can_be_forecast", "sizes depend on no value.*item"),
    (_HidesAWeight, COPIED, "restored from its state dict gives the logits of the original"),
    (_SharedWhenCopied, COPIED, "copied with copy.deepcopy has parameters of its own"),
]


def test_a_sound_backbone_passes_all():
    assert failures(_Net) == {}


@pytest.mark.parametrize(("backbone", "check", "message"), BROKEN_BACKBONES, ids=lambda value: str(value)[:60])
def test_a_broken_backbone_fails(backbone, check, message):
    with pytest.raises(AssertionError, match=message):
        getattr(backbones, check)(backbone)


def test_a_copy_of_a_shipped_backbone_is_sound():
    assert failures(lambda *a: copy.deepcopy(wei_small(*a))) == {}
