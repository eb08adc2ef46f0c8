"""Layers of anybody's in the place of a convolution: what is made of them, and what is said where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import rfsearch
from rfsearch.choices import Candidate, Dilated, Guest
from rfsearch.errors import ModelError, SpaceError
from rfsearch.export import take_weights
from rfsearch.patch import Patch, PatchSettings
from rfsearch.receptive import receptive_field
from rfsearch.surgery import Finding, Settings, assemble, build, found_dilation
from tests.surgery.test_build import Along, Foreign
from tests.toys import CLIMBING, Climbing

X = torch.randn(2, 3, 20, 16, generator=torch.Generator().manual_seed(1))
SPACE = Settings(dilations=(1, 2, 4))


def one(layer: str, dilation: int = 2, site: str = "body.1") -> Candidate:
    return Candidate({site: Guest(dilation, layer)})


def test_it_stands_in_the_convolutions_place_with_its_weights_and_dilation() -> None:
    model = Foreign().eval()
    made, learnable = assemble(model, one(CLIMBING), SPACE)
    layer = made.get_submodule("body.1")
    assert isinstance(layer, Climbing)
    assert learnable.layers == {"body.1": layer}
    assert learnable.modules == {"body.1": "body.1"}
    assert layer.conv.dilation == (2, 2)
    assert torch.equal(layer.conv.weight, model.body[1].weight)
    torch.testing.assert_close(made.eval()(X), build(model, one_plain(2)).eval()(X))
    assert type(model.body[1]) is nn.Conv2d


def one_plain(dilation: int) -> Candidate:
    return Candidate({"body.1": Dilated(dilation)})


def test_it_is_told_the_spaces_dilations_and_tells_what_it_found() -> None:
    layer = assemble(Foreign(), one(CLIMBING), SPACE)[1].layers["body.1"]
    assert found_dilation(layer) == 2.0
    layer.advance(4, 8)
    assert found_dilation(layer) == 4.0


def test_a_convolution_in_its_own_place_finds_no_dilation() -> None:
    layer = assemble(Foreign(), one("tests.toys:same_layer"), SPACE)[1].layers["body.1"]
    assert isinstance(layer, Finding)
    assert found_dilation(layer) is None


def test_its_field_is_followed_like_everything_else() -> None:
    made, learnable = assemble(Foreign(), one(CLIMBING), SPACE)
    for dilation in (2, 4):
        assert receptive_field(made, X.shape).px == receptive_field(build(Foreign(), one_plain(dilation)), X.shape).px
        learnable.layers["body.1"].advance(4, 8)


def test_parallel_paths_have_layers_of_their_own() -> None:
    paths = [Guest(1, CLIMBING), Dilated(2)]
    made, learnable = assemble(Foreign(), Candidate({"body.1": paths}), SPACE)
    assert list(learnable.layers) == ["body.1/1"]
    assert made(X).shape == Foreign()(X).shape


def test_a_layer_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def mine(conv, dilations):\n    return conv.requires_grad_(False)\n")
    made = build(Foreign(), one(f"{tmp_path}/mine.py:mine"), SPACE)
    assert not made.get_submodule("body.1").weight.requires_grad


def moved() -> tuple[nn.Module, Candidate]:
    """A network whose layer training has changed."""
    candidate = one(CLIMBING)
    model, learnable = assemble(Foreign(), candidate, SPACE)
    learnable.layers["body.1"].advance(4, 8)
    with torch.no_grad():
        learnable.layers["body.1"].share.fill_(0.7)
    return model.eval(), candidate


def test_its_state_is_in_the_state_dict() -> None:
    model, candidate = moved()
    fresh, learnable = assemble(Foreign(), candidate, SPACE)
    fresh.load_state_dict(model.state_dict())
    layer = learnable.layers["body.1"]
    assert (layer.dilation, layer.twice, layer.share.item()) == (4.0, False, pytest.approx(0.7))
    assert torch.equal(fresh.eval()(X), model(X))


def test_weights_taken_for_an_export_bring_its_state_along() -> None:
    model, candidate = moved()
    fresh, learnable = assemble(Foreign(), candidate, SPACE)
    take_weights(model, fresh)
    assert not learnable.layers["body.1"].twice


def test_a_patch_with_a_layer_is_put_on_a_fresh_network() -> None:
    model, candidate = moved()
    patch = Patch("wei-small", (), candidate, PatchSettings(dilations=(1, 2, 4)))
    assert Patch.read(patch.to_json()) == patch
    fresh = rfsearch.apply(Foreign(), patch.to_json())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(X), model(X))
    assert "dilations" not in Patch("wei-small", (), one_plain(2), PatchSettings()).to_json()["settings"]


def test_a_patch_says_what_is_missing() -> None:
    patch = Patch("wei-small", (), one("absent_package.layers:dcls"), PatchSettings(dilations=(1, 2)))
    with pytest.raises(ModelError, match=r"body.1: layer 'absent_package.layers:dcls': .*No module named .*Install"):
        rfsearch.apply(Foreign(), patch.to_json())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("tests.toys:no_layer", "body.1: layer .* gives a torch.nn.Module. Got list"),
        ("tests.toys:strided_layer", r"body.1: layer .* maps .* to \(1, 6, 11, 11\), .* Got \(1, 6, 5, 5\)"),
        ("tests.toys:raising_layer", "body.1: layer .* fails when it is made: KeyError: 'grid'"),
        ("tests.toys:Climbin", "body.1: layer .* has no callable 'Climbin'. Did you mean 'Climbing'"),
        ("/nowhere/mine.py:mine", "body.1: layer .* no file /nowhere/mine.py"),
    ],
)
def test_a_layer_that_is_none_is_one_message(layer: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(Foreign(), one(layer), SPACE)


def test_only_a_single_2d_convolution_makes_room_for_one() -> None:
    with pytest.raises(SpaceError, match="body: a layer stands in the place of one 2-D convolution. Got a container"):
        build(Foreign(), one(CLIMBING, site="body"), SPACE)
    with pytest.raises(SpaceError, match="stem: a layer .* Got a Conv1d"):
        build(Along(1), one(CLIMBING, site="stem"), SPACE)
