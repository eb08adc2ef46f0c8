"""Trained weights of any network: taken by name and shape, said, and trained at a rate of their own."""

from __future__ import annotations

import re
from argparse import Namespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from rfsearch.backbones.weights import load_weights
from rfsearch.choices import Dilated, Inflated
from rfsearch.errors import ModelError
from rfsearch.plugins import make_backbone
from rfsearch.training.loop import TrainingLoop
from tests.toys import toy_faces, toy_file, toy_space

CPU = torch.device("cpu")


def test_a_classifier_of_torchvision_fits_by_the_names_that_it_was_saved_with(tmp_path):
    torch.manual_seed(5)
    trained = torchvision.models.resnet18()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "r.pt"
    )
    model = make_backbone("torchvision:resnet18", 5)
    loaded = load_weights(model, str(tmp_path / "r.pt"), "x")
    assert loaded.names == {name for name, _ in model.named_parameters() if name.startswith("features.")}
    assert loaded.said == f"weights from {tmp_path / 'r.pt'}, 100% of its parameters; new: head.weight, head.bias."
    x = torch.rand(1, 3, 64, 64)
    own = nn.Sequential(*list(trained.children())[:-2])
    assert torch.equal(model.eval().features(x), own.eval()(x))


WRAPPED = {
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "parallel and compiled": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "Lightning's": lambda state: {
        "state_dict": {"loss.weight": torch.ones(2), **{f"model.{name}": value for name, value in state.items()}}
    },
    "averaged": lambda state: {"state_dict_ema": state, "epoch": 3},
    "averaged in parallel": lambda state: {"model_ema": {f"module.{name}": value for name, value in state.items()}},
    "with a score of numpy's": lambda state: {"model": state, "best": np.float64(0.5)},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_fit_however_a_trainer_saved_them(wrap, tmp_path):
    trained, model = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)) for _ in range(2))
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pt")
    loaded = load_weights(model, str(tmp_path / "w.pt"), "x")
    assert loaded.names == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_file_that_holds_more_than_tensors_and_plain_values_is_one_message(tmp_path):
    torch.save({"model": nn.Conv2d(3, 4, 3).state_dict(), "args": Namespace(lr=0.1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt also holds argparse\.Namespace: save the state dict alone"):
        load_weights(nn.Conv2d(3, 4, 3), str(tmp_path / "w.pt"), "x")


@pytest.mark.parametrize(
    ("spec", "prefix"), [("timm:resnet10t", "net.features."), ("smp:unet/resnet18", "net.encoder.")]
)
def test_wrapped_networks_fit_by_their_inner_names(spec, prefix, tmp_path):
    source, model = make_backbone(spec, 5), make_backbone(spec, 5)
    inner = {k.removeprefix(prefix): v for k, v in source.state_dict().items() if k.startswith(prefix)}
    torch.save(inner, tmp_path / "w.pt")
    loaded = load_weights(model, str(tmp_path / "w.pt"), "x")
    assert loaded.names == {name for name, _ in model.named_parameters() if name.startswith(prefix)}
    assert all(
        torch.equal(value, source.state_dict()[k]) for k, value in model.state_dict().items() if k.startswith(prefix)
    )


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Let timm and segmentation-models-pytorch get a state dict where they download one from Hugging Face."""
    files = pytest.importorskip("safetensors.torch")
    smp, timm = map(pytest.importorskip, ("segmentation_models_pytorch", "timm"))

    def serve(answer: dict[str, torch.Tensor] | Exception) -> None:
        def download(*_: object, **__: object) -> str:
            if isinstance(answer, Exception):
                raise answer
            files.save_file(answer, tmp_path / "model.safetensors")
            return str(tmp_path / "model.safetensors")

        monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
        monkeypatch.setattr(smp.encoders, "hf_hub_download", download)

    return serve


@pytest.mark.parametrize("architecture", ["unet", "unetplusplus", "deeplabv3"])
def test_an_encoder_is_loaded_whole_however_small_it_is_beside_its_decoder(architecture, hub):
    encoder = torchvision.models.mobilenet_v2()  # of the same layers
    names = iter(encoder.features.state_dict().values())
    spec = f"smp:{architecture}/mobilenet_v2"
    model = make_backbone(spec, 5)
    inner = [name for name in model.state_dict() if name.startswith("net.encoder.")]
    trained = dict(zip(inner, names, strict=True))
    hub({name.removeprefix("net.encoder."): value for name, value in trained.items()})
    loaded = load_weights(model, "zoo:imagenet", spec)
    assert loaded.names == {name for name, _ in model.named_parameters() if name.startswith("net.encoder.")}
    share = sum(p.numel() for p in encoder.features.parameters()) / sum(p.numel() for p in model.parameters())
    assert share < 0.5
    assert f"weights from {spec}, imagenet, {share:.0%} of its parameters; new: net.decoder" in loaded.said
    assert all(torch.equal(model.state_dict()[name], value) for name, value in trained.items())


def test_timm_brings_its_own(hub):
    torch.manual_seed(5)
    trained = pytest.importorskip("timm").create_model("resnet10t").state_dict()
    hub(trained)
    model = make_backbone("timm:resnet10t", 5)
    loaded = load_weights(model, "zoo:pretrained", "timm:resnet10t")
    assert loaded.names == {name for name, _ in model.named_parameters() if name.startswith("net.features.")}
    state = model.net.features.state_dict()
    assert state
    assert all(torch.equal(value, trained[name]) for name, value in state.items())


def test_an_encoder_that_fits_in_small_part_is_refused(tmp_path):
    spec = "smp:unet/mobilenet_v2"
    inner = {
        name.removeprefix("net.encoder."): value
        for name, value in make_backbone(spec, 5).state_dict().items()
        if name.startswith(("net.encoder.features.0.", "net.encoder.features.1."))
    }
    torch.save(inner, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt fits 0% of .* half of its net\.encoder is the least"):
        load_weights(make_backbone(spec, 5), str(tmp_path / "w.pt"), spec)


def test_weights_of_another_shape_are_left_out_and_too_few_are_refused(tmp_path):
    other = make_backbone("wei-small", 7)
    torch.save(other.state_dict(), tmp_path / "seven.pt")
    model = make_backbone("wei-small", 5)
    before = model.output.weight.clone()
    loaded = load_weights(model, str(tmp_path / "seven.pt"), "x")
    assert loaded.said.endswith("% of its parameters; new: output.weight, output.bias.")
    assert torch.equal(model.output.weight, before)
    assert torch.equal(model.conv6.weight, other.conv6.weight)
    torch.save({"conv6.weight": other.conv6.weight[:, :1], "x": torch.zeros(1)}, tmp_path / "few.pt")
    with pytest.raises(
        ModelError, match=r"few.pt fits 0% of the parameters .* It holds conv6.weight, x; the network has"
    ):
        load_weights(model, str(tmp_path / "few.pt"), "x")


def test_what_was_loaded_has_its_own_rate_and_nothing_else(tmp_path):
    """Also behind an inflation, which moves a convolution to another path."""
    weights = tmp_path / "seven.pt"
    torch.save(make_backbone("wei-small", 7).state_dict(), weights)
    space = toy_space(tmp_path, pretrained_lr_multiplier=0.25).with_(weights=str(weights))
    for choice in (Dilated(2), Inflated(2, 1.3)):
        loop = TrainingLoop(space, toy_faces(), space.uniform(choice), 0, CPU)
        loop.optimisation.set_rates(0)
        rates = {id(p): group["lr"] for group in loop.optimisation.optimizer.param_groups for p in group["params"]}
        found = {name: rates[id(p)] / space.recipe.lr for name, p in loop.model.named_parameters() if id(p) in rates}
        slow = {name for name, rate in found.items() if rate == 0.25}
        assert set(found) - slow == {"output.weight", "output.bias"}
        assert torch.equal(loop.model.conv6.weight, torch.load(weights)["conv6.weight"])


def test_a_space_file_names_them_and_the_plan_says_so(tmp_path, call):
    weights = tmp_path / "seven.pt"
    torch.save(make_backbone("wei-small", 7).state_dict(), weights)
    file = toy_file(tmp_path)
    file.write_text(file.read_text().replace("sites =", f'weights = "{weights}"\nsites ='))
    code, out, err = call("plan", "--space", file, "--strategies", "exhaustive")
    assert code == 0, err
    assert re.search(
        r"Backbone wei-small: weights from \S+seven.pt, \d+% of its parameters; new:", " ".join(out.split())
    )
    given = ("plan", "--space", "helen", "--backbone", "wei-small", "--strategies", "exhaustive")
    code, out, err = call(*given, "--set", f"weights={weights.name}", "--site", "conv6", "--set", "dilations=[1,2]")
    assert code == 0, err
    assert f"Backbone wei-small: weights from {weights}, " in " ".join((out + err).split())
    weights.unlink()
    code, out, err = call("plan", "--space", file, "--strategies", "exhaustive")
    assert code == 2
    assert "trained weights come from 'none', 'hub' or an existing file" in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("named", ["request", pytest.param("space", marks=pytest.mark.slow)])
def test_a_zoo_brings_its_own(named, tmp_path, call, monkeypatch):
    trained = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", lambda *_, **__: trained)
    spec, file = "torchvision:resnet18?weights=DEFAULT", toy_file(tmp_path)
    text = file.read_text().replace('"conv6"', '"features.layer1.0.conv2"')
    file.write_text(text.replace("wei-small", spec) if named == "space" else text)
    words = ("--backbone", spec, "--site", "features.layer1.0.conv2") if named == "request" else ()
    code, out, err = call("plan", "--space", file, "--strategies", "exhaustive", *words)
    assert code == 0, err
    said = " ".join((out + err).split())
    assert (
        "Backbone torchvision:resnet18: weights from torchvision:resnet18, DEFAULT, 100% of its parameters; new:"
        in said
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet18?weights=DEFAULT", "its weights 'DEFAULT' are out of reach: URLError"),
        ("torchvision:resnet18?weights=X", "no trained weights 'X'. It has IMAGENET1K_V1, DEFAULT."),
        ("timm:resnet10t?pretrained", "'timm:resnet10t': its weights 'pretrained' are out of reach: URLError"),
        (
            "smp:unet/resnet18?weights=imagenet",
            "'smp:unet/resnet18': its weights 'imagenet' are out of reach: URLError",
        ),
        ("smp:unet/resnet18?weights=foo", "no trained weights 'foo': Wrong pretrained weights"),
        ("wei-small?weights=x", "what may follow the name of a network is ?weights=NAME"),
        ("timm:resnet10t?weights=x", "or ?pretrained, in timm"),
        ("torchvision:resnet18?pretrained", "what may follow the name"),
    ],
)
def test_weights_that_are_not_there_are_one_message(spec, message, call, monkeypatch, hub):
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", unreachable)
    hub(URLError("no route"))
    code, _, err = call("plan", "--space", "helen", "--backbone", spec, "--strategies", "exhaustive")
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
