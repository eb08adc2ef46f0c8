"""Space files: what ships is sound, and a faulty one is told off once, for everything, with lines."""

import json
import tomllib
from pathlib import Path

import pytest

from rfsearch import plugins
from rfsearch.choices import Candidate, Dilated, Inflated, Sampled, SitePath
from rfsearch.data.helen import HELEN_CLASSES
from rfsearch.errors import SpaceError
from rfsearch.space import PathSet, Space, read_space
from rfsearch.tasks.metrics import METRICS
from rfsearch.training.schedule import learning_rate

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
    plugins.load("tasks", space.task.name)
    metrics = {"segmentation": METRICS, "flow": ["aepe"], "detection": ["voc-map"]}
    assert space.task.metric in metrics[space.task.name]


def test_the_shipped_spaces_have_a_small_preset_and_the_papers():
    assert {("helen", "mini"), ("helen", "paper"), ("camvid", "mini"), ("camvid", "paper")} <= set(PRESETS)


def test_the_paper_preset_of_helen_has_the_papers_settings():
    space = read_space(plugins.space_file("helen"), "paper")
    assert space.image_size == (500, 500)
    # 55,000 steps were planned and training stopped after 50,000, at a rate that no schedule changed.
    assert (space.recipe.batch_size, space.recipe.steps) == (2, 50_000)
    assert space.dilations == (2, 4, 6, 8, 10, 12, 14)
    assert space.f_bounds == (0.25, 4.0)
    assert space.backbone == "wei-table1-helen"
    assert space.reference == 4
    recipe = space.recipe
    assert (recipe.momentum, recipe.power, recipe.lr_steps, recipe.warmup) == (0.9, 0.0, (), 0)
    assert (recipe.pretrained_lr_multiplier, recipe.f_delay, recipe.guidance_weight) == (1.0, 0.0, 1.2)
    assert (recipe.normalisation, recipe.f_step, recipe.flip) == ("paper", 0.0, False)
    assert 3e4 <= recipe.f_lr_multiplier <= 9e4
    assert space.starts == (2, 6, 8, 10, 12)
    assert [space.with_form(form).starts for form in ("bi", "tri")] == [(8,), (8,)]


def test_the_paper_preset_of_helen_has_the_papers_rates_in_units_of_a_mean():
    recipe = read_space(plugins.space_file("helen"), "paper").recipe
    pixels = 500 * 500
    # The paper's loss is the sum S = pixels x M of what is here the mean M. A step along S moves a weight w by
    #     -1e-7 (dS/dw + 5e-4 w) = -1e-7 pixels (dM/dw + 5e-4 / pixels w).
    assert recipe.lr == pytest.approx(1e-7 * pixels)
    assert recipe.weight_decay == pytest.approx(5e-4 / pixels)
    # A step along S moves f by -1e-7 m dS/df = -(1e-7 pixels) m dM/df: m stays, and so does what both are divided by.
    assert 1e-7 * 3e4 * pixels <= recipe.lr * recipe.f_lr_multiplier <= 1e-7 * 9e4 * pixels


def test_the_paper_preset_of_voc_has_the_papers_settings():
    space = read_space(plugins.space_file("voc"), "paper")
    recipe = space.recipe
    assert (space.backbone, space.reference) == ("wei-table1-voc", 10)
    assert space.dilations == (4, 6, 8, 10, 12, 14, 16, 18, 20)
    assert space.starts == (4, 6, 16, 18, 20)
    assert (recipe.batch_size, recipe.steps, recipe.f_lr_multiplier, recipe.f_step) == (20, 9600, 3e5, 0.0)
    assert (recipe.power, recipe.f_delay, recipe.pretrained_lr_multiplier) == (0.0, 0.0, 1.0)
    rates = [learning_rate(recipe, step) / recipe.lr for step in range(9600)]
    drops = [step for step in range(1, 9600) if rates[step] != rates[step - 1]]
    assert drops[1] - drops[0] == 200
    assert sorted(set(rates), reverse=True) == pytest.approx([1, 0.32, 0.32**2])
    assert recipe.f_clip is not None
    assert recipe.f_background < 1
    height, width = space.image_size
    assert recipe.lr == pytest.approx(1e-7 * height * width, rel=0.01)
    assert recipe.weight_decay == pytest.approx(5e-4 / (height * width), rel=0.02)


def test_a_form_without_starts_of_its_own_starts_everywhere(tmp_path):
    asked = GOOD.replace("reference = 2", "reference = 2\nf_starts = { bi = [1] }")
    space = read_space(written(tmp_path, asked), None)
    assert (space.starts, space.with_form("bi").starts) == (space.dilations, (1,))
    assert space.with_form("bi").with_(dilations=(2, 3)).starts == (2, 3)  # none of its starts fits


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ("{ single = [3] }", "f_starts of single are some of the dilations. Got 3"),
        ("{ single = [] }", "f_starts of single are some of the dilations. Got none"),
        ("{ bo = [2] }", "unknown form 'bo'. Did you mean 'bi'"),
    ],
)
def test_faulty_starts_are_refused(tmp_path, starts, message):
    asked = GOOD.replace("reference = 2", f"reference = 2\nf_starts = {starts}")
    with pytest.raises(SpaceError, match=message):
        read_space(written(tmp_path, asked), None)


def test_only_presets_that_follow_the_paper_have_its_border(tmp_path):
    borders = {name: read_space(plugins.space_file(name[0]), name[1]).recipe.border for name in PRESETS}
    following = {("helen", "paper"), ("voc", "paper")}  # there is no CamVid in the paper
    assert borders == {name: "paper" if name in following else "continuous" for name in PRESETS}
    asked = GOOD.replace("steps =", 'border = "paper"\nsteps =')
    assert read_space(written(tmp_path, asked), None).recipe.border == "paper"
    with pytest.raises(SpaceError, match="border"):
        read_space(written(tmp_path, asked.replace('"paper"', '"floored"')), None)


def test_the_reference_candidate_gives_every_site_the_hand_default(tmp_path):
    space = read_space(written(tmp_path, GOOD.replace('["conv6"]', '["a", "b"]')), None)
    assert space.reference_candidate == Candidate({"a": Dilated(2), "b": Dilated(2)})


CHOICES = 'choices = [{kind = "sampled", dilation = 1, gamma = 2.0, s = 3}, {dilation = 4, f = 0.5}, {dilation = 2}]'


def test_a_space_may_list_choices_beside_its_dilations(tmp_path):
    space = read_space(written(tmp_path, GOOD.replace("reference = 2", f"reference = 2\n{CHOICES}")), None)
    assert space.options == (Dilated(1), Dilated(2), Dilated(4), Sampled(1, 2.0, 3), Inflated(4, 0.5))
    assert Space.model_validate(json.loads(space.model_dump_json())) == space


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ('{kind = "kernels"}', "unknown kind of choice 'kernels'"),
        ("{}", "a choice without a kind has 'dilation'"),
        ("{dilation = 0}", "a dilation is an integer of at least 1. Got 0"),
        ('{kind = "guest", dilation = 2}', "not a choice of kind 'guest': no 'layer'"),
        ("3", "a choice is a table of its kind and values. Got 3"),
    ],
)
def test_a_faulty_choice_is_told_with_its_line(tmp_path, choice, message):
    faulty = GOOD.replace("reference = 2", f"reference = 2\nchoices = [{choice}]")
    with pytest.raises(SpaceError, match=f"line 13, presets.mini.choices.0: {message}"):
        read_space(written(tmp_path, faulty), None)


def test_choices_go_with_one_path(tmp_path):
    listed = GOOD.replace("reference = 2", f'reference = 2\nform = "bi"\n{CHOICES}')
    with pytest.raises(SpaceError, match="they go with the form 'single'"):
        read_space(written(tmp_path, listed), None)


SETS = """
[paths.bi]
manual = [2, 4]
labels = [["a", "b"], []]

[paths.quad]
manual = [1, 2, 3, 4]
"""


def test_forms_are_what_a_site_can_get(tmp_path):
    space = read_space(written(tmp_path, GOOD + SETS), None)
    assert space.forms == ("single", "bi", "tri", "quad", "lsdfn")
    assert space.path_set is None
    bi, tri, quad = (space.with_form(form) for form in ("bi", "tri", "quad"))
    assert bi.path_set == PathSet(manual=(2, 4), labels=(("a", "b"), ()))
    assert tri.path_set == PathSet(manual=(4, 6, 8))
    assert dict(quad.default_candidate) == {f"conv6/{d}": SitePath(Dilated(d)) for d in (1, 2, 3, 4)}
    assert bi.reference_candidate == tri.reference_candidate == space.uniform(Dilated(2))
    assert bi.with_form("single") == space


def test_the_hand_default_of_every_form(tmp_path):
    text = GOOD.replace('["conv6"]', '["a", "b"]').replace(
        'budget = "3x"', 'budget = "3x"\nsampling = { gammas = [3.0, 2.0], regions = [3, 5, 1] }'
    )
    space = read_space(written(tmp_path, text + SETS), None)
    block = Sampled(2, 3.0, 5)
    assert space.default_candidate == Candidate({"a": Dilated(2), "b": Dilated(2)})
    assert space.with_form("lsdfn").default_candidate == Candidate({"a": block, "b": block})
    two = {"1": Dilated(2), "2": Dilated(4)}
    assert dict(space.with_form("bi").default_candidate) == {
        f"{site}/{i}": SitePath(choice) for site in "ab" for i, choice in two.items()
    }


def test_manual_dilations_may_stand_in_any_order(tmp_path):
    turned = read_space(written(tmp_path, GOOD + SETS.replace("[2, 4]", "[4, 2]")), None).with_form("bi")
    assert turned.default_candidate == turned.uniform([Dilated(2), Dilated(4)])


def test_a_block_that_samples_no_neighbour_has_no_sample_stride(tmp_path):
    space = read_space(written(tmp_path, GOOD), None)
    assert space.sampled(3.0, 1, learned=True) == space.sampled(2.0, 1) == Sampled(2, 1.0, 1)
    assert space.sampled(3.0, 5, learned=True) == Sampled(2, 3.0, 5, learned=True)


def test_a_preset_is_named_with_a_form_too(tmp_path):
    text = GOOD + SETS
    again = text[text.index("[presets.mini]") : text.index("[paths.bi]")].replace("presets.mini", "presets.big-one")
    path = written(tmp_path, text + again.replace('budget = "3x"', 'budget = "5x"\nform = "tri"'))
    found = {name: read_space(path, name) for name in ("bi", "quad", "mini-lsdfn", "big-one", "big-one-single")}
    assert {name: (space.form, space.budget) for name, space in found.items()} == {
        "bi": ("bi", "3x"),
        "quad": ("quad", "3x"),
        "mini-lsdfn": ("lsdfn", "3x"),
        "big-one": ("tri", "5x"),
        "big-one-single": ("single", "5x"),
    }


def test_a_preset_of_that_name_goes_before_a_form(tmp_path):
    text = GOOD + GOOD[GOOD.index("[presets.mini]") :].replace("presets.mini", "presets.bi").replace("3x", "9x")
    assert (read_space(written(tmp_path, text), "bi").form, read_space(written(tmp_path, text), "bi").budget) == (
        "single",
        "9x",
    )


def test_values_of_a_file_are_changed_for_one_run(tmp_path):
    path = written(tmp_path, GOOD + SETS)
    given = read_space(path, "bi")
    changes = ["recipe.steps=20", "dilations = [1, 8]", "reference=8", "paths.bi.manual=[1, 8]", "task.metric=dice",
               "data.resize=crop", "title=Plain text", "recipe.steps=30"]  # fmt: skip
    changed = read_space(path, "bi", changes)
    assert (changed.recipe.steps, changed.dilations, changed.reference) == (30, (1, 8), 8)
    assert changed.path_set is not None
    assert changed.path_set.manual == (1, 8)
    assert (changed.task.metric, changed.data.resize, changed.title) == ("dice", "crop", "Plain text")
    assert changed.recipe.model_copy(update={"steps": 10}) == given.recipe
    assert read_space(path, "bi") == given


def test_a_changed_preset_is_the_one_in_use(tmp_path):
    other = GOOD[GOOD.index("[presets.mini]") :].replace("mini", "large")
    path = written(tmp_path, f"{GOOD}\n{other}")
    assert read_space(path, "large", ["budget=9x"]).budget == "9x"
    assert read_space(path, "large-bi", ["form=tri"]).form == "bi"
    assert read_space(path, "large", ["form=tri"]).form == "tri"


@pytest.mark.parametrize("wanted", ["mini", "tri"])
def test_all_faults_of_changes_are_reported_at_once(tmp_path, wanted):
    with pytest.raises(SpaceError) as told:
        read_space(written(tmp_path, GOOD), wanted, ["recipe.steps=0.5", "recipe.lr=fast", "colour=red"])
    lines = str(told.value).splitlines()
    assert lines[0] == "--set recipe.steps=0.5 --set recipe.lr=fast --set colour=red: 3 fault(s):"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {
        "presets.mini.recipe.steps", "presets.mini.recipe.lr", "colour"
    }  # fmt: skip


@pytest.mark.parametrize(("wanted", "nearest"), [("mini-trii", "mini-tri"), ("min-tri", "mini-tri"), ("lsdf", "lsdfn")])
def test_an_unknown_preset_or_form_names_the_nearest(tmp_path, wanted, nearest):
    with pytest.raises(SpaceError, match=f"no preset '{wanted}'. Did you mean '{nearest}'"):
        read_space(written(tmp_path, GOOD), wanted)


def test_an_unknown_form_names_the_nearest(tmp_path):
    path = written(tmp_path, GOOD + SETS)
    with pytest.raises(SpaceError, match=r"one of single, bi, tri, quad, lsdfn. Got 'quat'. Did you mean 'quad'"):
        read_space(path, None).with_form("quat")
    with pytest.raises(SpaceError, match=r"preset mini has the unknown form 'trii'. Did you mean 'tri'"):
        read_space(written(tmp_path, GOOD.replace('budget = "3x"', 'budget = "3x"\nform = "trii"')), None)


def test_a_number_of_paths_picks_its_form(tmp_path):
    space = read_space(written(tmp_path, GOOD + SETS), None)
    assert [space.with_path_count(n).form for n in (1, 2, 3, 4)] == ["single", "bi", "tri", "quad"]
    assert space.with_form("lsdfn").with_path_count(1).form == "single"
    with pytest.raises(
        SpaceError, match=r"--paths is one of 1, 2, 3, 4 in space 'toy'. Got 5. Nearest: 4. .*\[paths.NAME\]"
    ):
        space.with_path_count(5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SETS.replace('[["a", "b"], []]', '[["a"], ["b"], ["c"], []]'), "a set for each path: 2 paths, 4 label sets"),
        (SETS.replace("[1, 2, 3, 4]", "[3]"), "paths.quad.manual"),
        (SETS.replace("[1, 2, 3, 4]", "[0, 2]"), "manual dilations are integers of at least 1"),
        (SETS.replace("paths.quad", "paths.lsdfn"), "anything but lsdfn"),
        (SETS.replace("paths.quad", "paths.single"), "anything but single"),
    ],
)
def test_impossible_path_sets_are_refused(tmp_path, text, message):
    with pytest.raises(SpaceError, match=message):
        read_space(written(tmp_path, GOOD + text), None)


def test_four_label_sets_for_three_paths_are_refused(tmp_path):
    sets = '\n[paths.tri]\nmanual = [1, 2, 3]\nlabels = [["a"], ["b"], ["c"], []]\n'
    with pytest.raises(SpaceError, match=r"line 20, paths.tri: labels has a set for each path: 3 paths, 4 label sets"):
        read_space(written(tmp_path, GOOD + sets), None)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("gammas = [0.0, 1.0]", "above 0"),
        ("gammas = [-1.0]", "above 0"),
        ("gammas = [1.0, 17.0]", r"within bounds \[0.25, 16.0\]"),
        ("gammas = [1.0, 1.0]", "different sample strides"),
        ("gammas = [nan]", "finite number"),
        ("gammas = []", "gammas"),
        ("regions = [5, 4]", r"regions are odd numbers of at least 1, got \[5, 4\]"),
        ("regions = [-1]", "regions are odd"),
        ("kernel = 2", "kernel is odd, got 2"),
        ("bounds = [0.0, 4.0]", "0 < low <= high"),
        ("bounds = [4.0, 2.0]", "0 < low <= high"),
        ("features = 0", "features"),
        ("stride = 2", "stride"),
    ],
)
def test_impossible_sampling_is_refused(tmp_path, sampling, message):
    text = GOOD.replace('budget = "3x"', f'budget = "3x"\nsampling = {{ {sampling} }}')
    with pytest.raises(SpaceError, match=message):
        read_space(written(tmp_path, text), None)


@pytest.mark.parametrize("steps", ["[0.5, 0.5]", "[0.8, 0.3]", "[0.0]", "[1.0]", "[0.5, 1.5]"])
def test_drops_of_the_rate_are_ascending_shares(tmp_path, steps):
    with pytest.raises(SpaceError, match="lr_steps are ascending shares of the training, between 0 and 1"):
        read_space(written(tmp_path, GOOD.replace("lr = 0.1", f"lr = 0.1\nlr_steps = {steps}")), None)


@pytest.mark.parametrize("preset", ["bi", "tri", "lsdfn", "single", "paper-bi", "paper-tri", "paper-lsdfn"])
def test_helen_has_every_form_small_and_as_published(preset):
    file = plugins.space_file("helen")
    base, _, form = preset.rpartition("-")
    space, plain = read_space(file, preset), read_space(file, base or "mini")
    assert space == plain.with_form(form).with_(preset=preset)
    assert plain.recipe.guidance_weight == 1.2
    if labels := space.path_set and space.path_set.labels:
        eyes = ("left eye", "right eye", "left eyebrow", "right eyebrow")
        mouth = ("nose", "upper lip", "inner mouth", "lower lip")
        assert labels == {"bi": (eyes, ()), "tri": (eyes, mouth, ())}[form]
        assert {name for names in labels for name in names} < set(HELEN_CLASSES)


@pytest.mark.parametrize("preset", ["mini", "tri", "paper-lsdfn"])
def test_a_space_survives_its_manifest(preset):
    space = read_space(plugins.space_file("helen"), preset)
    assert Space.model_validate(json.loads(json.dumps(space.model_dump(mode="json")))) == space


def test_a_manifest_of_before_forms_is_a_single_path():
    space = read_space(plugins.space_file("helen"), "mini")
    body = {k: v for k, v in space.model_dump(mode="json").items() if k not in ("form", "paths", "sampling")}
    again = Space.model_validate(body)
    assert (again.form, again.default_candidate) == ("single", space.default_candidate)


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


def test_a_metric_of_a_file_is_the_same_one_in_every_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = GOOD.replace('"mean-iou"', '"scores/mine.py:score"')
    assert text != GOOD
    assert read_space(written(tmp_path, text), None).task.metric == f"{tmp_path / 'scores' / 'mine.py'}:score"


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
