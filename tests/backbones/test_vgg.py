"""Wei's networks: Table 1, the printed receptive field, torchvision's weight layout, where their weights come from."""

from __future__ import annotations

import io
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from rfsearch.backbones.vgg import (
    load_imagenet_vgg16,
    wei_table1_helen,
    wei_table1_voc,
    wei_vgg16_helen,
    wei_vgg16_voc,
)
from rfsearch.errors import ModelError
from rfsearch.receptive import receptive_fields
from rfsearch.surgery import set_dilation

LAYERS = ["features", "bn", "inflation", "conv6", "conv7", "output", "interpolation", "guidance", "parallel"]


@pytest.fixture(scope="module")
def helen() -> nn.Module:
    return wei_vgg16_helen(11).eval()


@pytest.fixture(scope="module")
def torchvision_features() -> nn.Sequential:
    torch.manual_seed(0)
    return make_layers(cfgs["D"], batch_norm=False)


@pytest.fixture(scope="module")
def imagenet(torchvision_features: nn.Sequential) -> dict[str, Tensor]:
    """A state dict as torchvision writes it, the classifier shortened."""
    state = {f"features.{name}": value for name, value in torchvision_features.state_dict().items()}
    return state | {"classifier.0.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("build", "conv6"),
    [
        (wei_table1_helen, 212 + 8 * 3),
        (wei_table1_voc, 212 + 8 * 2),
        (wei_vgg16_helen, 212 + 8 * 3),
        (wei_vgg16_voc, 212 + 8 * 2),
    ],
)
def test_the_printed_receptive_field(build: type, conv6: int) -> None:
    """212 px at pool5 (Wei sec. 3.3) with a stride of 8 px, and the plain arithmetic behind conv6."""
    with torch.device("meta"):
        model = build(11)
        model.inflation.factor.to_empty(device="cpu").f.data.fill_(1.0)
    fields = receptive_fields(model, (1, 3, 250, 333))
    assert (fields["features"].height_px, fields["features"].width_px) == (212, 212)
    assert (fields["features"].jump_h, fields["features"].jump_w) == (8, 8)
    assert fields["conv6"].px == fields[""].px == conv6


# Table 1, row by row: output channels, kernel, stride, padding, dilation; of a pool without channels.
TABLE_1 = [
    *[(64, 3, 1, 1, 1)] * 2,
    (0, 2, 2, 1, 1),
    *[(128, 3, 1, 1, 1)] * 2,
    (0, 2, 2, 1, 1),
    *[(256, 3, 1, 1, 1)] * 3,
    (0, 2, 2, 1, 1),
    *[(512, 3, 1, 1, 1)] * 3,
    (0, 2, 1, 1, 1),
    *[(512, 3, 1, 2, 2)] * 3,
    (0, 3, 1, 1, 1),
]


@pytest.mark.parametrize(
    ("build", "kernel", "conv7", "classes"), [(wei_table1_helen, 4, 512, 11), (wei_table1_voc, 3, 1024, 21)]
)
def test_the_networks_of_table_1(build: type, kernel: int, conv7: int, classes: int) -> None:
    with torch.device("meta"):
        model = build(classes)
    layers = [layer for layer in model.features if not isinstance(layer, nn.ReLU)]
    found = []
    for layer in layers:
        values = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        height, width = zip(*(v if isinstance(v, tuple) else (v, v) for v in values), strict=True)
        assert height == width
        found.append((layer.out_channels if isinstance(layer, nn.Conv2d) else 0, *height))
    assert found == TABLE_1
    assert isinstance(layers[-1], nn.MaxPool2d)
    assert sum(isinstance(layer, nn.ReLU) for layer in model.features) == 13
    assert (model.conv6.in_channels, model.conv6.out_channels, model.conv6.kernel_size) == (512, 1024, (kernel, kernel))
    assert (model.conv7.in_channels, model.conv7.out_channels, model.conv7.kernel_size) == (1024, conv7, (1, 1))
    assert (model.output.in_channels, model.output.out_channels) == (conv7, classes)
    # The default batch normalisation of Caffe: no scale, no shift.
    assert (model.bn.weight, model.bn.bias, model.bn.eps) == (None, None, 1e-5)


@torch.no_grad()
def test_the_networks_of_table_1_have_no_dropout_and_the_others_have() -> None:
    features = torch.randn(2, 512, 6, 6)
    for build, same in ((wei_table1_helen, True), (wei_table1_voc, True), (wei_vgg16_voc, False)):
        model = build(3).train()
        once, again = (model.parse(features, (41, 41)) for _ in range(2))
        assert torch.equal(once, again) == same


def test_pools_of_table_1_are_as_large_as_caffes() -> None:
    """Caffe rounds up, and drops a last window that begins in the padding behind the map."""
    with torch.device("meta"):
        model = wei_table1_helen(11)
    pools = [layer for layer in model.features if isinstance(layer, nn.MaxPool2d)]
    for pool in pools:
        for side in range(1, 40):
            size = -(-(side + 2 - pool.kernel_size) // pool.stride) + 1
            size -= (size - 1) * pool.stride >= side + 1
            assert pool(torch.zeros(1, 1, side, side, device="meta")).shape[2:] == (size, size)
    sides = [500]
    for pool in pools:
        sides.append(pool(torch.zeros(1, 1, sides[-1], 1)).shape[2])
    assert sides == [500, 251, 126, 64, 65, 65]


def test_the_map_of_table_1_is_resized_to_the_label_map() -> None:
    """F of eq. 8 is "determined by the desired output size": (500 - 1) / (65 - 1), not the 8.11 that is printed."""
    with torch.device("meta"):
        model = wei_table1_helen(11)
    assert model.interpolation.stride_between((500, 500), (65, 65)) == 499 / 64
    with torch.device("cpu"):
        assert wei_vgg16_voc(21).interpolation.stride_between((500, 500), (62, 62)) == 8


@pytest.mark.parametrize("build", [wei_table1_helen, wei_table1_voc])
@torch.no_grad()
def test_images_of_any_size_go_through_table_1(build: type) -> None:
    model = build(11).eval()
    for height, width in ((64, 80), (43, 57)):
        assert model(torch.randn(2, 3, height, width)).shape == (2, 11, height, width)


def test_the_layers_have_the_names_that_sites_use(helen: nn.Module) -> None:
    assert [name for name, _ in helen.named_children()] == LAYERS
    assert helen.inflation.factor is helen.interpolation.factor
    assert (helen.inflation.factor.f.item(), helen.inflation.factor.f.requires_grad) == (1.0, False)
    assert (helen.conv6.kernel_size, helen.conv6.out_channels, helen.conv6.padding) == ((4, 4), 1024, "same")
    assert (helen.conv7.kernel_size, helen.conv7.out_channels) == ((1, 1), 1024)
    assert (helen.output.kernel_size, helen.output.out_channels) == ((1, 1), 11)
    with torch.device("meta"):
        assert wei_vgg16_voc(21, in_channels=1).conv6.kernel_size == (3, 3)


@torch.no_grad()
def test_logits_at_the_size_of_the_image(helen: nn.Module) -> None:
    for height, width in ((64, 80), (43, 57)):
        image = torch.randn(2, 3, height, width)
        assert helen.features(image).shape == (2, 512, height // 8, width // 8)
        assert helen(image).shape == (2, 11, height, width)


@torch.no_grad()
def test_conv6_keeps_its_map_at_every_dilation(helen: nn.Module) -> None:
    x = torch.randn(1, 512, 7, 9)
    for dilation in (2, 5, 12, 1):
        set_dilation(helen.conv6, dilation)
        assert helen.conv6(x).shape == (1, 1024, 7, 9)


@torch.no_grad()
def test_pool4_ignores_its_padding(helen: nn.Module) -> None:
    """Its zero padding in front, behind a ReLU, equals a pool that looks at the map alone."""
    x = torch.rand(1, 2, 6, 7)
    expected = torch.stack([x[:, :, max(0, y - 1) : y + 1].amax(2) for y in range(6)], 2)
    expected = torch.stack([expected[..., max(0, c - 1) : c + 1].amax(3) for c in range(7)], 3)
    assert torch.equal(helen.features[23](x), expected)


@torch.no_grad()
def test_weights_from_a_file(tmp_path: Path, imagenet: dict[str, Tensor], torchvision_features: nn.Sequential) -> None:
    """Loaded by position, and up to conv4_3 the network is then VGG-16 itself."""
    torch.save(imagenet, path := tmp_path / "vgg16.pth")
    model = wei_vgg16_voc(21).eval()
    loaded, sentence = load_imagenet_vgg16(model, str(path))
    assert loaded
    assert sentence == f"ImageNet weights from {path}."
    image = torch.randn(1, 3, 32, 40)
    assert torch.equal(model.features[:23](image), torchvision_features[:23](image))
    assert torch.equal(model.features[28].weight, torchvision_features[28].weight)


def test_weights_from_the_hub(helen: nn.Module, imagenet: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VGG16_Weights, "get_state_dict", lambda *_, **__: imagenet)
    said = "ImageNet weights from torchvision's VGG16_Weights.IMAGENET1K_V1."
    assert load_imagenet_vgg16(helen, "hub") == (True, said)
    assert torch.equal(helen.features[0].weight, imagenet["features.0.weight"])


def test_an_unreachable_hub_is_reported_and_changes_nothing(helen: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", unreachable)
    before = helen.features[0].weight.clone()
    loaded, sentence = load_imagenet_vgg16(helen, "hub")
    assert not loaded
    assert sentence.startswith("The model trains from scratch: ")
    assert "no route" in sentence
    assert torch.equal(helen.features[0].weight, before)


def test_source_none_loads_no_weights(helen: nn.Module) -> None:
    assert load_imagenet_vgg16(helen, "none").said.startswith("The model trains from scratch: no")


@pytest.mark.parametrize("source", ["hub", "missing.pth"])
def test_another_number_of_channels_trains_from_scratch(source: str) -> None:
    with torch.device("meta"):
        model = wei_vgg16_voc(2, in_channels=4)
    assert "reads 4" in load_imagenet_vgg16(model, source).said


def test_a_missing_file_is_refused(helen: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'none', 'hub' or an existing file. Got '.*absent.pth'"):
        load_imagenet_vgg16(helen, str(tmp_path / "absent.pth"))


@pytest.mark.parametrize("content", [b"", b"not a state dict", None], ids=["empty", "text", "a list"])
def test_a_file_that_is_no_state_dict_is_refused(helen: nn.Module, tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        torch.save([1, 2], buffer := io.BytesIO())
        content = buffer.getvalue()
    (path := tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ModelError, match="state dict"):
        load_imagenet_vgg16(helen, str(path))


def test_weights_that_do_not_fit_are_named_and_none_is_copied(
    helen: nn.Module, imagenet: dict[str, Tensor], tmp_path: Path
) -> None:
    wrong = {name: value for name, value in imagenet.items() if name != "features.28.bias"}
    wrong |= {"features.2.weight": torch.zeros(64, 64, 1, 1), "features.30.weight": torch.zeros(1)}
    torch.save({name: value + 1 for name, value in wrong.items()}, path := tmp_path / "weights.pth")
    before = helen.features[0].weight.clone()
    with pytest.raises(ModelError) as refusal:
        load_imagenet_vgg16(helen, str(path))
    for fault in (
        "features.28.bias is missing",
        "is (64, 64, 1, 1), the model's is",
        "features.30.weight is not in the model",
    ):
        assert fault in str(refusal.value)
    assert torch.equal(helen.features[0].weight, before)
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="the model has no features"):
        load_imagenet_vgg16(nn.Conv2d(3, 1, 1), str(path))
