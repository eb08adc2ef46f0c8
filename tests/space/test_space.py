"""Space files: what ships is sound, and a faulty one is told off once, for everything, with lines."""

import tomllib
from pathlib import Path

import pytest

from rfsearch import plugins
from rfsearch.errors import SpaceError
from rfsearch.space import Choice, read_space
from rfsearch.tasks.scores import METRICS

GOOD = """\
name = "toy"
title = "Toy"
metric = "mean-iou"

[data]
layout = "folder"

[presets.mini]
backbone = "wei-small"
sites = ["conv6"]
dilations = [1, 2, 4]
reference = 2
budget = "3x"

[presets.mini.recipe]
steps = 10
batch_size = 2
lr = 0.1
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(text)
    return path


PRESETS = [
    (name, preset)
    for name in plugins.names("spaces")
    for preset in tomllib.loads(plugins.space_file(name).read_text())["presets"]
]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_shipped_preset_is_sound_and_its_names_are_known(name, preset):
    space = read_space(plugins.space_file(name), preset)
    assert space.name == name
    assert callable(plugins.backbone(space.backbone))
    plugins.load("tasks", space.task)
    assert space.metric in METRICS


def test_the_shipped_spaces_have_a_small_preset_and_the_papers():
    assert {("helen", "mini"), ("helen", "paper"), ("camvid", "mini"), ("camvid", "paper")} <= set(PRESETS)


def test_the_paper_preset_of_helen_has_the_papers_settings():
    space = read_space(plugins.space_file("helen"), "paper")
    assert space.image_size == (500, 500)
    assert (space.recipe.batch_size, space.recipe.steps) == (2, 55_000)
    assert space.dilations == (2, 4, 6, 8, 10, 12, 14)
    assert space.f_bounds == (0.25, 4.0)


def test_the_reference_candidate_gives_every_site_the_hand_default(tmp_path):
    space = read_space(written(tmp_path, GOOD.replace('["conv6"]', '["a", "b"]')), None)
    assert dict(space.reference_candidate) == {"a": Choice(2), "b": Choice(2)}


def test_all_faults_are_reported_at_once_with_their_lines(tmp_path):
    text = GOOD.replace("steps = 10", "steps = -1").replace("lr = 0.1", 'lr = "fast"\nspeed = 3')
    with pytest.raises(SpaceError) as fault:
        read_space(written(tmp_path, text), None)
    message = str(fault.value)
    for line, key in ((16, "steps"), (18, "lr"), (19, "speed")):
        assert f"line {line}, presets.mini.recipe.{key}" in message


def test_a_reference_outside_the_dilations_is_refused(tmp_path):
    with pytest.raises(SpaceError, match="reference 3 is none of the dilations"):
        read_space(written(tmp_path, GOOD.replace("reference = 2", "reference = 3")), None)


def test_a_searched_f_outside_the_bounds_is_refused(tmp_path):
    with pytest.raises(SpaceError, match="f_search .* lies within f_bounds"):
        read_space(written(tmp_path, GOOD.replace('budget = "3x"', 'budget = "3x"\nf_bounds = [0.8, 1.25]')), None)


def test_a_file_in_another_encoding_is_told(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "straße"'.encode("latin-1"))
    with pytest.raises(SpaceError, match="cannot be read"):
        read_space(path, None)


def test_an_unknown_preset_names_the_nearest(tmp_path):
    with pytest.raises(SpaceError, match="no preset 'minni'. Did you mean 'mini'"):
        read_space(written(tmp_path, GOOD), "minni")


def test_broken_toml_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(SpaceError, match="not valid TOML"):
        read_space(written(tmp_path, "name = "), None)
    with pytest.raises(SpaceError, match="cannot be read"):
        read_space(tmp_path / "none.toml", None)


def test_an_unknown_space_names_the_nearest():
    with pytest.raises(SpaceError, match="unknown space 'hellen'. Did you mean 'helen'"):
        plugins.space_file("hellen")


def test_rungs_end_with_the_last_step():
    recipe = read_space(plugins.space_file("helen"), None).recipe
    steps = recipe.rung_steps()
    assert steps[-1] == recipe.steps
    assert len(steps) == recipe.rungs + 1
    assert recipe.model_copy(update={"steps": 2, "rungs": 5}).rung_steps() == (1, 2)
