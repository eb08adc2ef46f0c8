"""torchvision's detectors behind the contract lose and find what torchvision does when it is called directly."""

import pytest
import torch
from torchvision.models import get_model

from rfsearch import plugins
from rfsearch.backbones.torchvision_detectors import DETECTORS
from rfsearch.data.batches import MEAN, STD
from rfsearch.detector import Objects
from rfsearch.errors import ModelError
from rfsearch.testing import DETECTOR_CHECKS

SIZE = (96, 128)
WITHOUT_BACKGROUND = ("retinanet_resnet50_fpn", "fcos_resnet50_fpn")
EVERY = [pytest.param(name, marks=() if name.startswith("ssdlite") else pytest.mark.slow) for name in sorted(DETECTORS)]


def pair(name):
    """The network behind the contract, and torchvision's own with its weights, on images that it does not resize."""
    torch.manual_seed(0)
    net = plugins.backbone(f"torchvision:{name}")(3)
    extra = 0 if name in WITHOUT_BACKGROUND else 1
    own = get_model(name, weights=None, weights_backbone=None, num_classes=3 + extra)
    own.load_state_dict(net.net.state_dict())
    own.transform._skip_resize = True
    own.transform.min_size, own.transform.fixed_size = (min(SIZE),), None
    return net, own, extra


def batch():
    pixels = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[10.0, 12.0, 50.0, 44.0], [60.0, 30.0, 110.0, 90.0]])
    normalised = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    none = torch.zeros(0, 4)
    return pixels, normalised, [Objects(boxes, torch.tensor([0, 2]), none), Objects(none, torch.zeros(0).long(), none)]


@pytest.mark.parametrize("name", EVERY)
def test_losses_and_detections_are_torchvisions_own(name):
    net, own, extra = pair(name)
    pixels, normalised, objects = batch()
    torch.manual_seed(1)
    loss = net.train()(normalised).loss(objects)
    torch.manual_seed(1)
    losses = own.train()(list(pixels), [{"boxes": o.boxes, "labels": o.labels + extra} for o in objects])
    torch.testing.assert_close(loss, sum(losses.values()), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        net, own, _ = pair(name)  # whose running statistics are new
        for mine, theirs in zip(net.eval()(normalised).detections(), own.eval()(list(pixels)), strict=True):
            torch.testing.assert_close(mine.scores, theirs["scores"], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(mine.boxes, theirs["boxes"], atol=1e-2, rtol=1e-3)
            torch.testing.assert_close(mine.labels, theirs["labels"] - extra)


@pytest.mark.slow
@pytest.mark.parametrize("check", DETECTOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DETECTORS)
def test_they_pass_the_suite_of_detectors(check, name):
    check(plugins.backbone(f"torchvision:{name}"))


def test_images_may_have_other_channels():
    net = plugins.backbone("torchvision:ssdlite320_mobilenet_v3_large")(2, 1).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 64, 64)).out.shape[0] == 1


def test_an_unknown_network_is_told_which_ones_detect():
    with pytest.raises(ModelError, match="detects objects with .*fcos_resnet50_fpn"):
        plugins.backbone("torchvision:fcos_resnet5_fpn")
