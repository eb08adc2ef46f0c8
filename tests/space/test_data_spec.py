"""The [data] table of a space file: how pictures and labels are read, and what of it cannot be."""

import json
from pathlib import Path

import pytest

from rfsearch.errors import SpaceError
from rfsearch.space import Space, read_space
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
    with pytest.raises(SpaceError, match=rf"line 7, .*only the layout folder reads this: the labels of {layout}"):
        read_space(path, None)
    path.write_text(path.read_text().replace(line, 'resize = "pad"\nwhite = 4095'))
    assert read_space(path, None).data.resize == "pad"
