"""The [task] table of a space file: its task owns its keys, and checks them."""

import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from rfsearch import plugins
from rfsearch.errors import SpaceError
from rfsearch.space import Space, TaskSpec, read_space
from rfsearch.tasks.base import TaskKeys
from rfsearch.tasks.from_space import task_of
from rfsearch.tasks.segmentation import Segmentation
from tests.space.test_space import GOOD
from tests.toys import toy_faces, toy_space


class Plain(Segmentation):
    """Segmentation that weighs no classes."""

    class Keys(TaskKeys):
        metric: Literal["mean-iou", "dice"] = "dice"
        depth: float = Field(default=1.0, gt=0)


PLAIN = f"{__name__}:Plain"


def written(tmp_path: Path, table: str = "", short: str = "", preset: str = "", recipe: str = "") -> Path:
    """A space file with these lines as tables, outside of any, as tables of its preset, and in its recipe."""
    path = tmp_path / "toy.toml"
    text = GOOD.replace('metric = "mean-iou"\n', f"{short}\n").replace("[data]\n", f"{table}\n[data]\n")
    path.write_text(f"{text}{recipe}\n{preset}\n")
    return path


def line_of(path: Path, line: str) -> int:
    return path.read_text().splitlines().index(line) + 1


def recorded(space: Space) -> dict:
    return json.loads(json.dumps(space.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("table", "short"),
    [
        ('[task]\nname = "segmentation"\nmetric = "dice"', ""),
        ('[task]\nmetric = "dice"', ""),
        ("[task]", 'metric = "dice"'),
        ("", 'task = "segmentation"\nmetric = "dice"'),
        ("", 'metric = "dice"'),
    ],
)
def test_a_table_and_the_short_form_say_the_same(tmp_path, table, short):
    space = read_space(written(tmp_path, table, short), None)
    assert space.task == TaskSpec(name="segmentation", metric="dice")
    assert (space.task.metric, space.task.class_weights) == ("dice", "none")
    assert space.task.keys == Segmentation.Keys(metric="dice")
    assert Space.model_validate(recorded(space)) == space


def test_a_file_may_leave_the_task_and_its_keys_to_their_defaults(tmp_path):
    assert read_space(written(tmp_path), None).task == TaskSpec(name="segmentation", metric="mean-iou")


def test_the_keys_of_a_task_reach_the_task(tmp_path):
    space = read_space(written(tmp_path, f'[task]\nname = "{PLAIN}"\ndepth = 3'), None)
    assert (space.task.kind, space.task.keys) == (Plain, Plain.Keys(metric="dice", depth=3.0))
    given = []

    class Noting(Segmentation):
        def __init__(self, keys, data):
            given.append(keys)
            super().__init__(keys, data)

    toy = toy_space(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "task", lambda spec: Noting)
        assert task_of(toy, toy_faces()).primary == "f_classmean_pooled"
    assert given == [Segmentation.Keys(metric="helen-f", class_weights="sqrt")]


BIG = GOOD[GOOD.index("[presets.mini]") :].replace("presets.mini", "presets.big")


def test_a_preset_changes_keys_of_the_task(tmp_path):
    own = f'{BIG}\n[presets.big.task]\nclass_weights = "none"\nmetric = "mean-iou"'
    path = written(tmp_path, '[task]\nmetric = "dice"\nclass_weights = "sqrt"', preset=own)
    assert read_space(path, "mini").task == TaskSpec(metric="dice", class_weights="sqrt")
    assert read_space(path, "big").task == TaskSpec(metric="mean-iou", class_weights="none")


def test_weights_in_the_recipe_are_short_for_the_presets_table(tmp_path):
    path = written(tmp_path, '[task]\nmetric = "dice"', preset=BIG, recipe='class_weights = "sqrt"')
    assert read_space(path, "mini").task == TaskSpec(metric="dice", class_weights="sqrt")
    assert read_space(path, "big").task == TaskSpec(metric="dice", class_weights="none")
    path = written(tmp_path, '[task]\nclass_weights = "sqrt"', recipe='class_weights = "none"')
    assert read_space(path, None).task.class_weights == "none"


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"table": '[task]\nmetric = "dise"'}, "task.metric: unknown metric 'dise'. Did you mean 'dice'?"),
        ({"short": 'metric = "dise"'}, "metric: unknown metric 'dise'. Did you mean 'dice'?"),
        (
            {"table": '[task]\nname = "segmentaton"'},
            "task.name: unknown task 'segmentaton'. Did you mean 'segmentation'?",
        ),
        ({"short": 'task = "segmentaton"'}, "task: unknown task 'segmentaton'. Did you mean 'segmentation'?"),
        (
            {"table": '[task]\nmetrics = "dice"'},
            "task.metrics: no key of the task segmentation. Did you mean 'metric'?",
        ),
        ({"table": "[task]\nmetric = 5"}, "task.metric: must be text, in quotes. Got 5"),
        ({"table": '[task]\nclass_weights = "some"'}, "task.class_weights: must be 'none' or 'sqrt'. Got 'some'"),
        ({"table": f'[task]\nname = "{PLAIN}"\ndepth = 0'}, "task.depth: must be greater than 0. Got 0"),
        ({"short": "task = 5"}, "task: must be a table of keys and values. Got 5"),
        ({"table": '[task]\nmetric = "dice"', "short": 'metric = "dice"'}, "metric: Extra inputs are not permitted"),
        (
            {"preset": '[presets.mini.task]\nclass_weight = "sqrt"'},
            "presets.mini.task.class_weight: no key of the task segmentation. Did you",
        ),
        ({"preset": "[presets.mini.task]\nmetric = 5"}, "presets.mini.task.metric: must be text, in quotes. Got 5"),
        (
            {"recipe": 'class_weights = "some"'},
            "presets.mini.recipe.class_weights: must be 'none' or 'sqrt'. Got 'some'",
        ),
        (
            {"short": f'task = "{PLAIN}"', "recipe": 'class_weights = "sqrt"'},
            f"presets.mini.recipe.class_weights: no key of the task {PLAIN}.",
        ),
    ],
)
def test_a_fault_names_its_line_and_key_as_written(tmp_path, places, message):
    *_, faulty = [*places.values()][-1].splitlines()
    path = written(tmp_path, **places)
    with pytest.raises(SpaceError) as caught:
        read_space(path, None)
    count, fault = str(caught.value).removeprefix(f"{path}: ").splitlines()
    assert count == "1 fault(s):"
    assert fault.startswith(f"  line {line_of(path, faulty)}, {message}")


def test_all_faults_of_a_file_are_reported_at_once_one_line_each(tmp_path):
    table = '[task]\nclass_weights = "sqrt"\nmetrics = "dice"\nweights = 3\n[paths.bi]\nmanual = [1]\n'
    preset = '[presets.mini.task]\nmetric = "dise"'
    path = written(tmp_path, table, recipe="speed = 3", preset=preset)
    with pytest.raises(SpaceError) as caught:
        read_space(path, None)
    faults = [line.split(": ")[0].strip() for line in str(caught.value).splitlines()[1:]]
    keys = {'metrics = "dice"': "task.metrics", "weights = 3": "task.weights", "manual = [1]": "paths.bi.manual"}
    keys["speed = 3"] = "presets.mini.recipe.speed"
    assert sorted(faults) == sorted(f"line {line_of(path, line)}, {key}" for line, key in keys.items())
    path = written(tmp_path, recipe="speed = 3", preset=preset)
    with pytest.raises(SpaceError, match=r"(?s)2 fault.*presets\.mini\.task\.metric: unknown.*mini\.recipe\.speed: "):
        read_space(path, None)


@pytest.mark.parametrize(("weights", "expected"), [("sqrt", "sqrt"), ("none", "none")])
def test_a_run_of_an_earlier_version_recorded_what_its_task_is_told_outside_of_a_table(tmp_path, weights, expected):
    body = recorded(toy_space(tmp_path)) | {"task": "segmentation", "metric": "helen-f"}
    body["recipe"]["class_weights"] = weights
    assert Space.model_validate(body).task == TaskSpec(metric="helen-f", class_weights=expected)


def test_a_run_of_an_earlier_version_recorded_defaults_that_its_task_does_not_know(tmp_path):
    body = recorded(toy_space(tmp_path)) | {"task": PLAIN, "metric": None}
    body["recipe"]["class_weights"] = "none"
    assert Space.model_validate(body).task == TaskSpec(name=PLAIN, metric="dice", depth=1.0)


def test_a_task_of_a_file_is_the_same_one_in_every_working_directory(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from rfsearch.tasks.base import TaskKeys\n"
        "from rfsearch.tasks.segmentation import Segmentation\n\n"
        "class Mine(Segmentation):\n    class Keys(TaskKeys):\n        metric: str = 'dice'\n"
    )
    monkeypatch.chdir(tmp_path)
    space = read_space(written(tmp_path, '[task]\nname = "mine.py:Mine"\nmetric = "score.py:f"'), None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = Space.model_validate(recorded(space))
    assert again.task.kind.__name__ == "Mine"
    assert (again.task.name, again.task.metric) == (f"{tmp_path / 'mine.py'}:Mine", f"{tmp_path / 'score.py'}:f")
