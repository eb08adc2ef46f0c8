"""Networks of torchvision, timm and segmentation-models-pytorch by their SPEC; nothing is downloaded."""

import copy
import sys

import pytest
import torch
from torch import nn

from rfsearch import plugins, testing
from rfsearch.backbones import zoos
from rfsearch.choices import Candidate, Dilated
from rfsearch.errors import ModelError
from rfsearch.outputs import require_maps
from rfsearch.surgery import build, match_sites

timm = pytest.importorskip("timm")
smp = pytest.importorskip("segmentation_models_pytorch")

# Small ones of each kind: segmentation networks, classifiers, and maps of both layouts.
SOUND = (
    "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1",
    "timm:test_resnet",
    "timm:test_mambaout",
    "timm:test_vit",
    "smp:unet/tu-test_resnet",
    "smp:fpn/mobilenet_v2",
)
# Stride of the last map of a classifier, px, at sides that are multiples of 32 px; 1 of a segmentation network.
STRIDES = {
    "torchvision:fcn_resnet50": 1,
    "torchvision:lraspp_mobilenet_v3_large": 1,
    "torchvision:resnet18": 32,
    "torchvision:mobilenet_v2": 32,
    "torchvision:densenet121": 32,
    "torchvision:regnet_x_400mf": 32,
    "torchvision:swin_t": 32,
    "timm:test_resnet": 32,
    "timm:test_convnext": 32,
    "timm:test_mambaout": 32,
    "timm:test_vit": 16,
    "timm:swin_tiny_patch4_window7_224": 32,
    "smp:unet/mobilenet_v2": 1,
    "smp:deeplabv3plus/mobilenet_v2": 1,
    "smp:dpt/tu-vit_tiny_patch16_224": 1,
}
# Their kinds are among the others.
SLOW = {
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:densenet121",
    "torchvision:regnet_x_400mf",
    "timm:swin_tiny_patch4_window7_224",
    "smp:fpn/mobilenet_v2",
    "smp:deeplabv3plus/mobilenet_v2",
}


def each(specs):
    return [pytest.param(spec, marks=pytest.mark.slow if spec in SLOW else ()) for spec in specs]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whoever asks for weights fails."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"asked for weights: {args}")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    torch.manual_seed(0)


@pytest.mark.parametrize("check", testing.BACKBONE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("spec", each(SOUND))
def test_networks_of_other_packages_are_sound_backbones(check, spec):
    check(plugins.backbone(spec))


@pytest.mark.parametrize("spec", each(STRIDES))
def test_logits_are_enlarged_from_the_stride_of_the_last_map(spec):
    net, image, stride = plugins.make_backbone(spec, 5).eval(), torch.zeros(1, 3, 64, 96), STRIDES[spec]
    with torch.no_grad():
        logits = require_maps(net(image), 1, 5, spec)
        assert logits.shape[-2:] == (64, 96)
        if stride > 1:
            classifier = getattr(net, "net", net)
            assert classifier.grid.jump == stride
            classifier.grid = None
            coarse = require_maps(net(image), 1, 5, spec)
            assert coarse.shape[-2:] == (64 // stride, 96 // stride)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v2", "googlenet"])
def test_a_classifier_of_torchvision_is_cut_behind_its_last_map(name):
    """What it pools globally is what the head reads: both see the same map, of a network whose weights are the same."""
    net = plugins.make_backbone(f"torchvision:{name}", 5).eval()
    from torchvision.models import get_model

    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    whole = get_model(name, weights=None, **extra).eval()
    whole.load_state_dict(net.features.state_dict(), strict=False)
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        features = net.features(image)
        if name == "squeezenet1_1":
            pooled = whole.classifier(features).flatten(1)
        elif name in ("resnet18", "googlenet"):
            pooled = whole.fc(features.mean((2, 3)))
        else:
            last = whole.classifier if name == "mobilenet_v2" else whole.fc
            pooled = last(features.mean((2, 3)))
        assert torch.allclose(whole(image), pooled, atol=1e-5)


def test_images_of_odd_sides_are_padded_and_the_logits_cropped():
    class Position(nn.Module):
        """Gives each pixel's value back, and notes what it saw; at half the resolution if asked to."""

        def __init__(self, stride):
            super().__init__()
            self.stride = stride

        def forward(self, image):
            self.saw = image
            return image[..., :: self.stride, :: self.stride]

    image = torch.arange(1.0, 1 + 5 * 7).reshape(1, 1, 5, 7)
    net = zoos.Padded(Position(1), 4, "x")
    assert torch.equal(net(image), image)
    assert net.net.saw.shape == (1, 1, 8, 8)
    assert net.net.saw[..., 5:, :].abs().sum() == net.net.saw[..., 7:].abs().sum() == 0
    coarse = zoos.Padded(Position(2), 4, "x")
    assert coarse(image).shape == image.shape
    assert coarse(torch.ones(1, 1, 8, 4)).shape == (1, 1, 4, 2)
    assert coarse.net.saw.shape == (1, 1, 8, 4)


def test_padding_keeps_logits_where_the_image_has_them():
    """A coarse map of a network stands over the padded image, so that it must not be squeezed into the image."""

    class Left(nn.Module):
        def forward(self, image):
            return nn.functional.avg_pool2d(image, 4)

    image = torch.zeros(1, 1, 4, 9)
    image[..., :4] = 1
    logits = zoos.Padded(Left(), 4, "x")(image)
    assert logits.shape == image.shape
    assert (logits[0, 0, 0, :4] > 0.5).all()
    assert (logits[0, 0, 0, 4:] < 0.5).all()


def test_a_network_of_one_image_size_refuses_others():
    net = plugins.make_backbone("timm:visformer_tiny", 5).eval()
    rule = r"timm:visformer_tiny takes images of one size, 224 x 224 px .*Got 96 x 128. Set image_size = \[224, 224\]"
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 5, 224, 224)
        with pytest.raises(ModelError, match=rule):
            net(torch.zeros(1, 3, 96, 128))


def test_a_fixed_image_size_that_the_stride_does_not_divide_is_not_padded():
    """LeViT: 224 px at a stride of 64, whose attention knows 14 x 14 places and no others."""
    net = plugins.make_backbone("timm:levit_128s", 5).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 5, 4, 4)
        with pytest.raises(ModelError, match=r"one size, 224 x 224 px .*Got 128 x 128. .*--input 3x224x224 of rf"):
            net(torch.zeros(1, 3, 128, 128))


@pytest.mark.parametrize(
    ("spec", "site"),
    [
        ("torchvision:fcn_resnet50", "backbone.layer4.0.conv2"),
        ("torchvision:resnet18", "features.layer4.0.conv2"),
        ("timm:test_resnet", "net.features.layer4.0.conv2"),
        ("smp:unet/resnet18", "net.encoder.layer4.0.conv2"),
    ],
)
def test_sites_have_the_names_in_the_docstring_and_accept_a_dilation(spec, site):
    net = plugins.make_backbone(spec, 5)
    assert match_sites(net, [site]) == (site,)
    built = build(net, Candidate({site: Dilated(2)}))
    assert built.get_submodule(site).dilation == (2, 2)
    image = torch.zeros(2, 3, 64, 64)
    require_maps(built.eval()(image), 2, 5, spec)


def test_a_network_that_hooks_its_features_can_be_copied():
    """One timm family notes its maps with forward hooks, which a copy must not share."""
    net = plugins.make_backbone("timm:legacy_xception", 3).eval()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        before = net(torch.ones(1, 3, 64, 64))
        for parameter in net.parameters():
            parameter.zero_()
        assert torch.equal(twin(torch.ones(1, 3, 64, 64)), before)
        assert not net(torch.ones(1, 3, 64, 64)).any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:fcn_resnet5", "Closest: fcn_resnet50, .* labels pixels with deeplabv3_.*80 classifiers"),
        ("torchvision:vit_b_32", "no map of features .* labels pixels with deeplabv3_"),
        ("timm:resnet49", r"timm has no such network. Closest: resnet34, .*list_models\('\*resn\*'\)"),
        ("timm:hf_hub:someone/model", "timm has no such network"),
        ("smp:unett/resnet18", "with one of unet, .* for ARCH. Closest: unet"),
        ("smp:unet/resnet19", "no encoder 'resnet19'. Closest: .*resnet18.*tu-NAME"),
        ("smp:unet", "no encoder ''"),
        ("smp:unet/tu-resnet19", "fails when it is built"),
    ],
)  # fmt: skip
def test_an_unknown_network_is_refused_with_the_closest_names(spec, message):
    with pytest.raises(ModelError, match=message) as caught:
        plugins.make_backbone(spec, 5)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "module", "package"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("smp:unet/resnet18", "segmentation_models_pytorch", "segmentation-models-pytorch"),
    ],
)
def test_a_missing_package_is_refused_with_the_install_command(spec, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=rf"package {module} cannot be imported .*`pip install {package}`"):
        plugins.backbone(spec)


def test_the_prefixes_of_a_spec_are_those_of_the_zoos():
    assert set(plugins.ZOOS) == set(zoos.ZOOS)
