"""Networks that return their logits in an object, a tuple or under another name, from the plan to the exported file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rfsearch import plugins
from rfsearch.choices import Dilated
from rfsearch.export import export
from rfsearch.receptive import effective_receptive_field, receptive_field
from tests import test_export


@dataclass
class Labelled:
    """As transformers' segmentation models answer."""

    loss: Tensor | None
    logits: Tensor


class Wrapped(nn.Module):
    """A small network of half resolution, whose logits are handed out as `answer` does."""

    def __init__(self, num_classes: int, answer: Any) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, num_classes, 1)
        self._answer = answer

    def forward(self, image: Tensor) -> Any:
        return self._answer(self.head(self.wide(image)))


def labelled_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Wrapped(num_classes, lambda logits: Labelled(None, logits))


def logits_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Wrapped(num_classes, lambda logits: {"logits": logits})


def deeply_supervised_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Wrapped(num_classes, lambda logits: [logits, logits[..., ::2, ::2]])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ["labelled_net", "logits_net", "deeply_supervised_net"])
def test_it_is_trained_scored_and_exported_in_every_format(make, tmp_path):
    run_dir = test_export.a_run(tmp_path / "in", Dilated(2), backbone=f"{__name__}:{make}")
    found = export(run_dir)
    assert [(form.name, form.failed) for form in found.forms] == [
        ("state dict", False),
        ("program", False),
        ("onnx", False),
    ]
    program = torch.export.load(found.directory / "model.pt2").module()
    assert isinstance(program(torch.zeros(1, 3, 48, 48)), Tensor)


@pytest.mark.parametrize("make", [labelled_net, logits_net, deeply_supervised_net])
def test_its_receptive_fields_are_measured(make):
    torch.manual_seed(0)
    net = make(5)
    assert receptive_field(net, (1, 3, 32, 32)).px == 3
    assert effective_receptive_field(net, 2, input_shape=(1, 3, 32, 32)).size_px == 3


def segformer(num_classes: int, in_channels: int = 3) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_channels=in_channels,
        num_labels=num_classes,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
        attn_implementation="eager",
    )
    return transformers.SegformerForSemanticSegmentation(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_segmentation_model_of_transformers_is_trained_and_exported(tmp_path):
    pytest.importorskip("transformers")
    spec, site = f"{__name__}:segformer", "segformer.encoder.block.0.0.mlp.dwconv.dwconv"
    net = plugins.make_backbone(spec, 11).eval()
    if site not in dict(net.named_modules()):  # paths differ between its versions
        site = next(name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1)
    assert receptive_field(net, (1, 3, 64, 64)).whole
    run_dir = test_export.a_run(tmp_path / "in", Dilated(2), backbone=spec, site=site)
    assert not export(run_dir).faults
