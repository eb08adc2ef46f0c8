"""What a plan shows, and what it refuses, before anything is trained."""

import json
import math
from contextlib import nullcontext

import pytest
import torch

from rfsearch import plugins
from rfsearch.choices import Dilated, Guest
from rfsearch.space import read_space
from rfsearch.strategies import Description
from tests.calls import wrong
from tests.toys import toy_faces, toy_file

pytestmark = pytest.mark.usefixtures("trained_here")


def test_plan_shows_every_candidate_with_field_share_and_forecast(call, tmp_path):
    code, out, _ = call("plan", "--space", toy_file(tmp_path), "--json")
    body = json.loads(out)
    assert code == 0
    fixed = body["candidates"][:3]
    assert [row["rf_px"] for row in fixed] == [23, 31, 47]
    assert [row["share"] for row in fixed] == pytest.approx([23 / 48, 31 / 48, 47 / 48])
    for row in body["candidates"]:
        assert row["flop"] > body["reference_flop"]
        assert row["seconds"] > 0
        assert row["peak_bytes"] > 1e5
    assert body["budget"]["limit"] == pytest.approx(3 * body["reference_flop"])


def test_plan_shows_every_combination_of_two_sites(call, tmp_path):
    path = toy_file(tmp_path)
    options = ["--site", "conv6", "--site", "features.6", "--strategies", "exhaustive", "--json"]
    code, out, err = call("plan", "--space", path, *options)
    assert code == 0, err
    candidates = [json.loads(row["candidate"]) for row in json.loads(out)["candidates"]]
    assert len(candidates) == 9
    assert all(set(candidate) == {"conv6", "features.6"} for candidate in candidates)


@pytest.fixture
def paths_space(tmp_path):
    """The toy space with two and three parallel paths that fit its 12 x 12 px map."""
    sets = (
        '[paths.bi]\nmanual = [1, 4]\nlabels = [["left eye", "right eye"], []]\n\n[paths.tri]\nmanual = [1, 2, 4]\n\n'
    )
    path = toy_file(tmp_path)
    text = path.read_text().replace("[presets.mini]", sets + "[presets.mini]", 1)
    path.write_text(text.replace("reference = 1", "reference = 1\nsampling = { gammas = [1.0, 2.0], regions = [3] }"))
    return path


def planned(told: tuple[int, str, str]) -> tuple[dict, list]:
    code, out, err = told
    assert code == 0, err
    body = json.loads(out)
    return body, [json.loads(row["candidate"])["conv6"] for row in body["candidates"]]


def test_plan_of_two_paths_shows_every_pair_with_the_field_of_each_path(call, paths_space):
    body, found = planned(call("plan", "--space", paths_space, "--paths", "2", "--json"))
    pairs = [tuple(path["dilation"] for path in paths) for paths in found]
    assert {p for p in pairs if p[0] != p[1]} == {(1, 2), (1, 4), (2, 4)}
    alike = [paths for paths, p in zip(found, pairs, strict=True) if p[0] == p[1]]
    assert len(found) == 8
    assert all(paths[0]["labels"] == ["left eye", "right eye"] and "labels" not in paths[1] for paths in alike)
    assert [[path.get("learned", False) for path in paths] for paths in alike] == [[True] * 2] * 3 + [[False] * 2]
    moved = [paths for paths in found if "moved" in (path.get("kind") for path in paths)]
    assert [[path["kind"] for path in paths] for paths in moved] == [["moved"] * 2]
    assert all(paths[0]["labels"] == ["left eye", "right eye"] for paths in moved)
    assert all(path["fractional"] for path in alike[-1])
    for row, pair in zip(body["candidates"], pairs, strict=True):
        fields = {f"conv6/{i}": 15 + 8 * d for i, d in enumerate(pair, start=1)}
        assert row["path_rf_px"] == fields
        assert row["rf_px"] == max(fields.values())
    assert body["arms"] == 5


def test_one_plan_compares_forms(call, paths_space):
    strategies = "inflation,inflation@bi,inflation@tri,exhaustive@lsdfn,lsdfn"
    body, found = planned(call("plan", "--space", paths_space, "--strategies", strategies, "--json"))
    assert body["arms"] == 5
    assert {len(paths) for paths in found if isinstance(paths, list)} == {2, 3}
    assert {"gamma" in paths for paths in found if isinstance(paths, dict)} == {True, False}
    assert any(paths.get("gamma_learned") for paths in found if isinstance(paths, dict))


def test_a_form_says_what_it_is_in_the_name_of_its_arm(paths_space):
    from rfsearch.ledger import Request
    from rfsearch.planning.request import check_request

    def named(*strategies: str, paths: int | None = None) -> list[str]:
        request = Request(space=str(paths_space), strategies=strategies, paths=paths)
        return [entrant.label for entrant in check_request(request).entrants]

    assert named() == ["exhaustive", "random", "optuna", "inflation", "fractional"]
    assert named("inflation", "inflation@bi", "random@single") == ["inflation", "inflation@bi", "random"]
    assert named("inflation@single", "inflation@bi", paths=2) == ["inflation@single", "inflation"]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_learning_f_of_a_block_is_refused_before_anything_is_trained(call, paths_space, tmp_path, command):
    options = ["--strategies", "random,inflation@lsdfn", "--out", tmp_path / "out"]
    told = call(command, "--space", paths_space, *options)
    wrong(told, "inflation learns f, which an LS-DFN block does not have")
    assert not (tmp_path / "out").exists()


class _Layered:
    """A strategy that tries a layer at every dilation. Its SPEC is set by the test."""

    spec = ""

    def __init__(self, space, seed):
        self._space = space

    def suggest(self, pending):
        return self._space.uniform(Guest(1, self.spec))

    def observe(self, record):
        pass


class _LayeredList(_Layered):
    """Know the candidates beforehand; the first of them needs no layer."""

    def describe(self):
        return Description((self._space.uniform(Dilated(2)), self.suggest([])))


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("strategy", [_Layered, _LayeredList])
@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("absent_package.layers:dcls", ["conv6: layer 'absent_package.layers:dcls'", "No module named", "Install"]),
        ("tests.toys:strided_layer", ["conv6: layer 'tests.toys:strided_layer' maps", "as the convolution does. Got"]),
    ],
)
def test_a_layer_that_cannot_stand_at_its_site_is_reported_before_anything_is_trained(
    call, tmp_path, monkeypatch, command, strategy, spec, parts
):
    monkeypatch.setattr(strategy, "spec", spec)
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: strategy if name == "layered" else load(group, name))
    # Ray would not get anything to train.
    monkeypatch.setattr("rfsearch.conduct.start_engine", lambda request: nullcontext())
    options = ["--space", toy_file(tmp_path), "--strategies", "layered", "--out", tmp_path / "out"]
    wrong(call(command, *options), *parts)
    assert not (tmp_path / "out").exists()


def test_a_manual_path_too_large_for_its_map_is_reported(call, tmp_path):
    told = call("plan", "--space", toy_file(tmp_path), "--paths", "2")
    wrong(told, "dilation 6 in one of 2 paths spans 13 px", "12 x 12 px", "Largest dilation that fits: 5")


@pytest.mark.parametrize("strategies", ["lsdfn", "exhaustive@lsdfn", "random@lsdfn", "optuna@lsdfn"])
def test_a_sample_stride_too_large_for_its_map_is_reported(call, tmp_path, strategies):
    """Also where it is drawn and not listed."""
    path = toy_file(tmp_path)
    path.write_text(path.read_text().replace("reference = 1", "reference = 1\nsampling = { gammas = [1.0, 3.0] }"))
    told = call("plan", "--space", path, "--strategies", strategies)
    wrong(told, "5 x 5 regions at sample stride 3 span 15 px", "12 x 12 px", "Largest sample stride that fits: 2.25")


def test_a_path_guided_by_a_class_that_the_data_lacks_is_reported(call, paths_space):
    paths_space.write_text(paths_space.read_text().replace('"left eye"', '"lft eye"'))
    told = call("plan", "--space", paths_space, "--paths", "2")
    wrong(told, "conv6/1: guided by the label 'lft eye'", "Did you mean 'left eye'")


def test_plan_prints_a_table_and_says_that_the_faces_are_rendered(call, tmp_path):
    code, out, _ = call("plan", "--space", toy_file(tmp_path))
    assert code == 0
    assert "rendered" in out
    assert "conv6: d=4" in out
    assert "scratch" in out


def test_plan_takes_another_network_and_site(call, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels=3):\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),\n"
        "                         nn.ReLU(), nn.Conv2d(8, num_classes, 1))\n"
    )
    backbone = f"{tmp_path / 'mine.py'}:net"
    code, out, err = call("plan", "--space", toy_file(tmp_path), "--backbone", backbone, "--site", "2", "--json")
    assert code == 0, err
    assert [row["rf_px"] for row in json.loads(out)["candidates"][:3]] == [7, 11, 19]


@pytest.mark.parametrize("steps", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_recipe_of_one_or_two_steps_is_planned_and_trained(call, tmp_path, steps):
    """Its costs are timed over more steps than it has."""
    from rfsearch.ledger import Assignment
    from rfsearch.training import Order, Training

    path = toy_file(tmp_path, budget="60x", steps=steps)
    path.write_text(path.read_text().replace("f_delay = 0.25", "f_delay = 0.9\nwarmup = 5\nlr_steps = [0.5]"))
    code, out, err = call("plan", "--space", path, "--json")
    assert code == 0, err
    space = read_space(path, None)
    for row in json.loads(out)["candidates"]:
        given = Assignment("t", "s", 0, row["candidate"], 0, math.inf)
        folder = tmp_path / str(abs(hash(row["candidate"])))
        training = Training(space, toy_faces(), Order(given, "flop", torch.device("cpu"), folder))
        while (record := training.advance()).status == "pruned":
            pass
        assert (record.status, record.cause) == ("completed", "")


def test_plan_says_how_many_full_trainings_a_budget_has_room_for(call, tmp_path):
    space = toy_file(tmp_path, budget="5x")
    body = json.loads(call("plan", "--space", space, "--strategies", "random", "--json")[1])
    one = body["budget"]["full_training"]["flop"] / body["reference_flop"]
    assert one > 1.1
    assert body["budget"]["full_trainings"] == pytest.approx(5 / one)
    code, out, err = call("plan", "--space", space, "--strategies", "random")
    assert code == 0, err
    assert f"5x has room for {int(5 / one)} full trainings of the hand default: one costs {one:.3g}x with" in out
    out = call("plan", "--space", space, "--strategies", "random", "--budget", "1x")[1]
    assert "1x is less than a full training of the hand default takes" in out
