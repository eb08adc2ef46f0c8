"""Patches: what they put on a fresh network, what they refuse, and that JSON loses nothing."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rfsearch
from rfsearch.backbones.small import wei_small
from rfsearch.choices import Candidate, ChannelSplit, Choice, Dilated, Fractional, Inflated, Sampled, SitePath
from rfsearch.errors import ModelError, SpaceError
from rfsearch.layers import Inflation
from rfsearch.patch import Patch, PatchSettings
from rfsearch.space import SamplingSpec
from rfsearch.surgery import Settings, build, set_dilation
from rfsearch.surgery.inserts import SplitSite
from tests.surgery.test_build import Foreign

X = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(1))
CLASSES = ("background", "eye")


def patched(sites: dict[str, Choice | list[Choice]], splits: dict[str, ChannelSplit] | None = None) -> Patch:
    return Patch("wei-small", CLASSES, Candidate(sites), PatchSettings(), splits or {})


ALL = [
    patched({"body.1": Dilated(3)}),
    patched({"body.1": Inflated(3, 0.8423), "stem": Dilated(2)}),
    patched({"body.1": [Fractional(3 / 0.8423), Inflated(1, 1.3)]}),
    patched({"body.1": [SitePath(Inflated(1, 1.3), ("eye",)), Dilated(4)]}),
    patched({"body.1": Sampled(1, 2.25, 3)}),
    patched({"body.1": Dilated(2)}, {"body.1": ChannelSplit(3, 2)}),
    patched({"body.1": [Dilated(2), Dilated(1)]}, {"body.1/1": ChannelSplit(3, 2)}),
]


@pytest.mark.parametrize("patch", ALL, ids=lambda patch: str(patch.candidate))
def test_json_loses_nothing(patch, tmp_path):
    text = json.dumps(patch.to_json())
    (tmp_path / "patch.json").write_text(text)
    for source in (text, json.loads(text), tmp_path / "patch.json", str(tmp_path / "patch.json")):
        assert Patch.read(source) == patch


@pytest.mark.parametrize("patch", ALL, ids=lambda patch: str(patch.candidate))
def test_a_patched_networks_state_dict_loads_into_another_one_strictly(patch):
    torch.manual_seed(3)
    model = rfsearch.apply(Foreign(), patch.to_json()).eval()
    for parameter in model.parameters():
        if parameter.dim():
            nn.init.normal_(parameter)
    fresh = rfsearch.apply(Foreign(), patch.to_json())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(X), model(X))
    assert not torch.equal(Foreign().eval()(X), model(X))


@pytest.mark.parametrize("patch", ALL[:5], ids=lambda patch: str(patch.candidate))
def test_without_splits_it_is_the_candidate_built(patch):
    by_hand = build(Foreign(), patch.candidate, Settings(classes=CLASSES, border="paper"))
    made = rfsearch.apply(Foreign(), patch.to_json())
    made.load_state_dict(by_hand.state_dict())
    assert torch.equal(made.eval()(X), by_hand.eval()(X))


@pytest.mark.parametrize("as_text", [True, False])
def test_a_candidate_is_a_patch_too(as_text):
    candidate = Candidate({"body.1": [Inflated(2, 0.708), Dilated(3)], "stem": Fractional(1.5)})
    by_hand = build(Foreign(), candidate, Settings())
    made = rfsearch.apply(Foreign(), candidate.to_json() if as_text else json.loads(candidate.to_json()))
    made.load_state_dict(by_hand.state_dict())
    assert torch.equal(made.eval()(X), by_hand.eval()(X))


def test_dilations_alone_leave_only_the_models_own_layers():
    made = rfsearch.apply(Foreign(), patched({"body.1": Dilated(3), "stem": Dilated(2)}).to_json())
    assert [type(m) for m in made.modules()] == [type(m) for m in Foreign().modules()]
    assert made.body[1].dilation == (3, 3)
    by_hand = F.conv2d(X, made.stem.weight, made.stem.bias, 2, 2, 2).relu()
    by_hand = F.conv2d(by_hand, made.body[1].weight, made.body[1].bias, 1, 3, 3).relu()
    torch.testing.assert_close(made(X), F.conv2d(by_hand, made.head.weight, made.head.bias), rtol=0, atol=1e-6)


def test_the_given_model_is_left_alone():
    model = Foreign()
    rfsearch.apply(model, patched({"body.1": Dilated(2)}, {"body.1": ChannelSplit(3, 2)}).to_json())
    assert type(model.body[1]) is nn.Conv2d
    assert model.body[1].dilation == (1, 1)


def test_another_f_keeps_its_layers_and_is_not_learned():
    made = rfsearch.apply(wei_small(2), patched({"conv6": Inflated(2, 0.8423)}).to_json())
    (factor,) = {module.factor for module in made.modules() if isinstance(module, Inflation)}
    assert factor.f.item() == pytest.approx(0.8423)
    assert not factor.f.requires_grad


def test_the_settings_reach_the_layers():
    settings = PatchSettings(f_bounds=(0.5, 2.0), guidance_weight=3.0, sampling=SamplingSpec(channels=5, features=7))
    paths = [SitePath(Inflated(1, 1.3), ("eye",)), Dilated(4)]
    made = rfsearch.apply(
        Foreign(), Patch("", CLASSES, Candidate({"body.1": paths, "stem": Dilated(1)}), settings).to_json()
    )
    assert made.body[1].paths[0].inflation.factor.bounds.tolist() == [0.5, 2.0]
    assert made.body[1].guidance[0].where.weight == 3.0
    sampled = Patch("", CLASSES, Candidate({"body.1": Sampled(1, 1.0, 3)}), settings)
    block = rfsearch.apply(Foreign(), sampled.to_json()).body[1].block
    assert (block.out_channels, block.features) == (5, 7)


def test_a_patch_without_a_border_has_the_papers():
    """As have all of a version that knew no other."""
    candidate = Candidate({"body.1": Inflated(1, 1.3)})
    by_hand = {border: build(Foreign(), candidate, Settings(border=border)) for border in ("continuous", "paper")}
    body = Patch("", CLASSES, candidate, PatchSettings(border="continuous")).to_json()
    assert body["settings"]["border"] == "continuous"
    for expected in ("continuous", "paper"):
        made = rfsearch.apply(Foreign(), body)
        assert made.body[1].inflation.border == made.body[1].interpolation.border == expected
        made.load_state_dict(by_hand[expected].state_dict())
        assert torch.equal(made.eval()(X), by_hand[expected].eval()(X))
        body["settings"].pop("border", None)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("padding", "mode"), [(1, "zeros"), (2, "zeros"), (1, "reflect")])
def test_a_split_convolution_is_the_computation_by_hand(stride, padding, mode):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 10, 3, stride, padding, padding_mode=mode)
    weight, bias = conv.weight.detach().clone(), conv.bias.detach().clone()
    size = conv(X).shape
    set_dilation(conv, 2)
    site = SplitSite(conv, 3, 3)
    assert site(X).shape == size
    padded = {
        d: F.pad(X, [padding + d - 1] * 4, mode={"zeros": "constant"}.get(mode, mode)) for d in (2, 3)
    }  # 3 taps: the padding grows by 1 px a side for each px between them
    near = F.conv2d(padded[2], weight[:7], bias[:7], stride, 0, 2)
    far = F.conv2d(padded[3], weight[7:], bias[7:], stride, 0, 3)
    torch.testing.assert_close(site(X), torch.cat([near, far], 1), rtol=0, atol=1e-6)


def test_a_split_keeps_the_weights_of_the_model_it_is_put_on():
    model = Foreign()
    made = rfsearch.apply(model, patched({"body.1": Dilated(2)}, {"body.1": ChannelSplit(3, 2)}).to_json())
    assert torch.equal(torch.cat([made.body[1].near.weight, made.body[1].far.weight]), model.body[1].weight)
    assert torch.equal(torch.cat([made.body[1].near.bias, made.body[1].far.bias]), model.body[1].bias)


@pytest.mark.parametrize(
    ("conv", "channels", "part"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), 1, "one group"),
        (nn.Conv2d(4, 4, 3, padding=1), 4, "1 to 3. Got channels=4"),
        (nn.Conv2d(4, 4, 3, padding=1), 0, "1 to 3. Got channels=0"),
        (nn.Conv2d(4, 4, 3), 2, "does not pad"),
        (nn.Linear(4, 4), 2, "plain convolution"),
    ],
)
def test_what_cannot_be_split_is_reported(conv, channels, part):
    with pytest.raises(SpaceError, match=part):
        SplitSite(conv, 2, channels)


GOOD = ALL[0].to_json()


def sites(**choice: object) -> dict[str, object]:
    return {**GOOD, "sites": {"body.1": choice}}


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("nowhere.json", ["nowhere.json", "No such file"]),
        ("{", ["not valid JSON"]),
        ("[1]", ["'rfsearch-patch'", "a JSON list"]),
        ({}, ["'rfsearch-patch'", "format None"]),
        ({**GOOD, "format": "onnx"}, ["format 'onnx'"]),
        ({**GOOD, "version": 2}, ["newer rfsearch", "version 2", "up to 1"]),
        ({**GOOD, "version": 0}, ["start at 1", "Got 0"]),
        ({k: v for k, v in GOOD.items() if k != "classes"}, ["classes", "required"]),
        ({**GOOD, "colour": "red"}, ["colour", "not permitted"]),
        ({**GOOD, "sites": {}}, ["at least one site"]),
        ({**GOOD, "sites": {"body.1": 3}}, ["sites.body.1"]),
        ({**GOOD, "sites": {"body.1": [{"dilation": 1}, {"dilation": 0}]}}, ["at least 1. Got 0"]),
        (sites(dilation=2.5), ["body.1: dilation is a whole number", "2.5"]),
        (sites(dilation=10**30), ["body.1: dilation is at most 32768. Got 1e+30"]),
        ({"body.1": {"dilation": 10**30}}, ["body.1: dilation is at most 32768"]),
        (sites(dilation=1e6, f=1.0, kind="fractional"), ["body.1: dilation is at most 32768"]),
        (sites(dilation=2, f=1e9), ["body.1: f is at least 0.000976562 and at most 1024. Got 1e+09"]),
        (sites(dilation=2, f=1e-9), ["body.1: f is at least"]),
        (sites(dilation=2, gamma=1e9, s=3), ["body.1: gamma is at most 32768"]),
        (sites(dilation=2, gamma=1.0, s=10**9 + 1), ["body.1: s is at most 1024"]),
        (sites(dilation=2, split={"dilation": 10**9, "channels": 2}), ["body.1: dilation is at most 32768"]),
        ({**GOOD, "sites": {"body.1": {"dilation": 10**400}}}, ["dilation is at most 32768"]),
        (sites(dilation=2, lables=[]), ["unknown key 'lables'", "Did you mean 'labels'?"]),
        (sites(f=1.5), ["body.1", "without 'dilation'"]),
        (sites(dilation=2, fractional=True), ["body.1: a patch holds dilations that were found", "still to be found"]),
        (sites(dilation=2, f="x"), ["body.1", "not a choice"]),
        (sites(dilation=2, gamma=2.0), ["without 's'"]),
        (sites(dilation=2, split={"dilation": 3}), ["body.1", "channels"]),
        (sites(dilation=2, split={"dilation": 3, "channels": 1.5}), ["whole numbers"]),
        (sites(dilation=2, split={"dilation": 3, "channels": 6}), ["1 to 5. Got channels=6"]),
        (sites(dilation=2, f=1.5, split={"dilation": 3, "channels": 2}), ["body.1", "without inflation"]),
        (sites(dilation=2, labels=["nose"]), ["label 'nose'"]),
        ({**GOOD, "settings": {"f_bound": [1, 2]}}, ["settings.f_bound"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
)
def test_what_is_no_patch_is_reported(source, parts, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpaceError) as told:
        rfsearch.apply(Foreign(), source)
    for part in parts:
        assert part in str(told.value)


@pytest.mark.parametrize("site", ["body.2x", "stem:body.9"])
def test_a_site_that_the_model_lacks_is_reported(site):
    with pytest.raises(ModelError, match="the model has no module 'body.*Known: body.1, head, stem"):
        rfsearch.apply(Foreign(), {**GOOD, "sites": {site: {"dilation": 2}}})
