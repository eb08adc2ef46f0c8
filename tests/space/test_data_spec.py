"""The [data] table of a space file: how pictures and labels are read, and what of it cannot be."""

import json
import pickle
from pathlib import Path

import pytest

from rfsearch.data import Folder, RenderedFaces
from rfsearch.errors import SpaceError
from rfsearch.planning.plan import load_data
from rfsearch.space import DataSpec, Space, read_space
from tests.space.test_space import GOOD


def written(tmp_path: Path, table: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(GOOD.replace('layout = "folder"\n', f'layout = "folder"\n{table}\n'), encoding=encoding)
    return path


EVERYTHING = """\
ignore_index = 255
resize = "pad"
white = 4095
max_pixels = 400_000_000
images = "{stem}_leftImg8bit.png"
labels = "{stem}_mask"
map = { 0 = 0, 128 = 1, 26001 = 2, other = 255 }
resize_labels = true
"""


def test_every_key_is_read_and_survives_the_manifest(tmp_path):
    space = read_space(written(tmp_path, EVERYTHING), None)
    data = space.data
    assert data.map == {0: 0, 128: 1, 26_001: 2, "other": 255}
    assert (data.resize, data.white, data.max_pixels, data.resize_labels) == ("pad", 4095, 400_000_000, True)
    assert (data.images, data.labels) == ("{stem}_leftImg8bit.png", "{stem}_mask")
    assert Space.model_validate(json.loads(json.dumps(space.model_dump(mode="json")))) == space


def test_colours_are_one_or_several_a_class(tmp_path):
    table = 'colours = { road = [128, 64, 128], "sky and fog" = [[1, 2, 3], [4, 5, 6]] }\ncolour_match = "nearest"'
    space = read_space(written(tmp_path, table), None)
    assert space.data.colours == {"road": ((128, 64, 128),), "sky and fog": ((1, 2, 3), (4, 5, 6))}
    assert Space.model_validate(json.loads(json.dumps(space.model_dump(mode="json")))) == space


def test_a_table_of_its_own_holds_many_colours(tmp_path):
    path = written(tmp_path, "[data.colours]\nroad = [128, 64, 128]\nignore = [0, 0, 0]")
    assert list(read_space(path, None).data.colours) == ["road", "ignore"]


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    assert read_space(written(tmp_path, "", "utf-8-sig"), None).name == "toy"
    with pytest.raises(SpaceError, match=r"line 7, data\.resize: "):
        read_space(written(tmp_path, 'resize = "squash"', "utf-8-sig"), None)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('resize = "squash"', r"data\.resize: .*'stretch', 'crop' or 'pad'"),
        ('resize = "pad"', r"data\.resize: padded pixels have no class: set ignore_index"),
        ("white = 0", r"data\.white: .*greater than 0"),
        ("white = inf", r"data\.white: .*finite"),
        ("max_pixels = -1", r"data\.max_pixels: .*greater than 0"),
        ('labels = "_mask.png"', r"data\.labels: a file's name that holds \{stem\} once"),
        ('labels = "{stem}{stem}"', r"data\.labels: a file's name that holds \{stem\} once"),
        ('images = "rgb/{stem}"', r"data\.images: .*without a folder"),
        ("map = { 0 = 256 }", r"data\.map.*less than or equal to 255"),
        ("map = { 70000 = 1 }", r"data\.map.*less than or equal to 65535"),
        ("map = { rest = 1 }", r"data\.map.*"),
        ("map = { rest = 1 }", r"data\.map\.rest: a key is an id that the labels hold, .*, or `other` .* Got 'rest'$"),
        ("map = { -1 = 1 }", r"data\.map\.-1: a key is an id that the labels hold, at least 0 .* Got '-1'$"),
        ("map = { 70000 = 1 }", r"data\.map\.70000: a key is an id that the labels hold, .* Got '70000'$"),
        ('map = { "1.5" = 1 }', r"data\.map\.1\.5: a key is an id that the labels hold, .* Got '1\.5'$"),
        ('map = { 0 = "road" }', r"data\.map\.0: a value is the id of a class, a whole number .* Got 'road'$"),
        ("map = { 0 = 1.5 }", r"data\.map\.0: a value is the id of a class, a whole number .* Got 1\.5$"),
        ("map = { 0 = 256 }", r"data\.map\.0: a value is the id of a class, .* equal to 255\. Got 256$"),
        ("map = { 0 = -1 }", r"data\.map\.0: a value is the id of a class, .* at least 0 .* Got -1$"),
        ("map = { 0 = [1] }", r"data\.map\.0: a value is the id of a class, .* Got \[1\]$"),
        ("map = [0, 1]", r"data\.map: must be a table of keys and values\. Got \[0, 1\]$"),
        ('colours = { road = ["128", 64, "red"] }', r"data\.colours\.road\.0\.2: must be a whole number\. Got 'red'$"),
        ("colours = { road = 5 }", r"data\.colours\.road: must be a list, in square brackets\. Got 5$"),
        ("max_pixels = 1.5", r"data\.max_pixels: must be a whole number\. Got 1\.5$"),
        ('resize_labels = "perhaps"', r"data\.resize_labels: must be true or false\. Got 'perhaps'$"),
        ("labels = 5", r"data\.labels: must be text, in quotes\. Got 5$"),
        ('resize = "squash"', r"data\.resize: must be 'stretch', 'crop' or 'pad'\. Got 'squash'$"),
        ('colour_match = "near"', r"data\.colour_match: .*'exact' or 'nearest'"),
        ("colours = { road = [128, 64] }", r"data\.colours.*"),
        ("colours = { road = [128, 64, 300] }", r"data\.colours.*less than or equal to 255"),
        ("colours = { a = [1, 2, 3], b = [1, 2, 3] }", r"data\.colours: .*Given twice: \[1, 2, 3\]"),
    ],
)
def test_a_fault_names_its_line_and_key(tmp_path, table, message):
    with pytest.raises(SpaceError, match=rf"line 7, {message}") as caught:
        read_space(written(tmp_path, table), None)
    assert "\nTraceback" not in str(caught.value)
    assert "Input" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("map = { 0 = 0, 1 = 2 }", r"line 8, data\.map: class ids are 0\.\.1 and the ignore_index\. Got 2"),
        (
            "colours = { a = [1, 2, 3], d = [3, 2, 1] }",
            r"line 8, data\.colours: 'd' is no class\..* Known: a, b, ignore",
        ),
    ],
)
def test_ids_and_colours_are_of_the_classes_that_are_named(tmp_path, table, message):
    with pytest.raises(SpaceError, match=message):
        read_space(written(tmp_path, f'classes = ["a", "b"]\n{table}'), None)


def test_labels_hold_ids_or_colours(tmp_path):
    with pytest.raises(SpaceError, match=r"line 8, data\.colours: labels hold ids or colours"):
        read_space(written(tmp_path, "map = { 0 = 0, 1 = 1 }\ncolours = { a = [1, 2, 3], b = [3, 2, 1] }"), None)


@pytest.mark.parametrize("layout", ["voc", "helen"])
@pytest.mark.parametrize("line", ['labels = "{stem}_mask"', "map = { 0 = 0 }", "resize_labels = true"])
def test_published_layouts_have_labels_of_their_own(tmp_path, layout, line):
    path = written(tmp_path, line)
    path.write_text(path.read_text().replace('"folder"', f'"{layout}"'))
    with pytest.raises(
        SpaceError, match=rf"line 7, .*only the layout folder reads this, and the layout here is {layout}"
    ):
        read_space(path, None)
    path.write_text(path.read_text().replace(line, 'resize = "pad"\nwhite = 4095'))
    assert read_space(path, None).data.resize == "pad"


def test_a_table_holds_the_keys_of_both_its_layouts_with_what_they_do_if_left_out(tmp_path):
    space = read_space(written(tmp_path, 'default = "rendered-faces"\nrendered = [3, 2, 1]\nignore_index = 9'), None)
    assert space.data.embedded == RenderedFaces(rendered=(3, 2, 1))
    assert space.data.folder_layout == Folder(ignore_index=9)
    assert (space.data.rendered, space.data.colour_match) == ((3, 2, 1), "exact")
    assert pickle.loads(pickle.dumps(space)) == space


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('default = "rendered-face"', "data.default: unknown layout 'rendered-face'. Did you mean 'rendered-faces'"),
        ('default = "helen"', "data.default: layout 'helen' reads a folder.*: name it as `layout`"),
        ("map_ = 3", r"data\.map_: no key of the layout folder\. Did you mean 'map'"),
        ('white = 0\nlabels = "x"', r"(?s)2 fault.*line 7, data\.white.*line 8, data\.labels"),
    ],
)
def test_what_no_layout_can_be_told_is_told_off_with_its_line(tmp_path, table, message):
    with pytest.raises(SpaceError, match=message):
        read_space(written(tmp_path, table), None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fodler", "line 6, data.layout: unknown layout 'fodler'. Did you mean 'folder'"),
        ("rendered-faces", "line 6, data.layout: layout 'rendered-faces' makes its images and reads no folder"),
        ("mine.py", "line 6, data.layout: a file holds a layout by the name of its class: mine.py:MyLayout"),
        ("absent.py:Mine", "line 6, data.layout: layout '/.*/absent.py:Mine': no file /.*/absent.py"),
        ("rfsearch.data:ImageSet", "line 6, data.layout: .* is a subclass of rfsearch.data.Layout"),
        ("rfsearch.data:Layout", "line 6, data.layout: .* has every method of its contract. Missing: read"),
    ],
)
def test_a_layout_that_is_none_is_told_off_with_its_line(tmp_path, name, message):
    path = written(tmp_path, "")
    path.write_text(path.read_text().replace('layout = "folder"', f'layout = "{name}"'))
    with pytest.raises(SpaceError, match=message):
        read_space(path, None)


OWN = """
from rfsearch.data import Layout, rendered_faces

class Mine(Layout):
    count: int = 3

    def read(self, root, size, *, cache=None, memory_limit_bytes=None):
        return rendered_faces(self.count, 1, 0, size or (48, 48))
"""


def test_a_layout_of_a_file_is_read_from_any_working_directory(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "count = 5")
    path.write_text(path.read_text().replace('layout = "folder"', 'layout = "mine.py:Mine"'))
    body = json.loads(json.dumps(read_space(path, None).model_dump(mode="json")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = load_data(Space.model_validate(body), str(tmp_path), tmp_path)
    assert len(data.splits["train"]) == 5
    assert body["data"]["layout"] == f"{tmp_path / 'mine.py'}:Mine"


@pytest.mark.parametrize("layout", ["voc", "helen", "folder"])
def test_a_table_that_an_earlier_version_recorded_with_every_layouts_keys_is_read(layout):
    """Runs recorded the keys of all layouts, whichever they read."""
    recorded = {
        "default": None, "layout": layout, "classes": ["a", "b"], "ignore_index": 255, "flip_pairs": [],
        "rendered": [512, 128, 128], "resize": "stretch", "white": None, "max_pixels": None, "images": "{stem}",
        "labels": "{stem}", "map": {}, "colours": {}, "colour_match": "exact", "resize_labels": False,
    }  # fmt: skip
    spec = DataSpec.model_validate(recorded)
    assert (spec.folder_layout.classes, spec.folder_layout.ignore_index) == (("a", "b"), 255)
    assert DataSpec.model_validate(spec.model_dump(mode="json")) == spec
    with pytest.raises(ValueError, match="only the layout folder reads this" if layout != "folder" else "no key of"):
        DataSpec.model_validate(recorded | {"labels": "{stem}_x", "x": 1})
