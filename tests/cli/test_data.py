"""What a user sees of the data on the command line: rules that were applied, and what to write where none does."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_folder_kinds import IDS, offered, put
from tests.toys import toy_file

pytestmark = pytest.mark.usefixtures("trained_here")
HIGH = np.kron(IDS, np.ones((4, 4), int))  # 24 x 32 px


def space_file(root: Path, table: str = "", size: str = "image_size = [24, 32]\n", encoding: str = "utf-8") -> Path:
    """A space for a plain folder, with these lines in [data]."""
    text = toy_file(root).read_text()
    text = text.replace('metric = "helen-f"', 'metric = "mean-iou"').replace('default = "rendered-faces"\n', "")
    text = text.replace('layout = "helen"\nrendered = [12, 6, 6]', f'layout = "folder"\n{table}')
    text = text.replace("[1, 2, 4]", "[1, 2]")
    path = root / "mine.toml"
    path.write_text(text.replace("image_size = [48, 48]\n", size), encoding=encoding)
    return path


def images(root: Path, label=HIGH, pixels=None, **options) -> Path:
    for name in ("train0", "train1", "train2", "val0"):
        made = np.random.default_rng([*name.encode()]).integers(0, 256, (24, 32, 3), np.uint8)
        put(root / "data", name[:-1], name, made if pixels is None else pixels, label=label, **options)
    return root / "data"


def test_a_plan_says_the_rules_by_which_pictures_were_read(call, tmp_path):
    deep = np.linspace(0, 65_535, 768).reshape(24, 32).astype(np.uint16)
    data = images(tmp_path, pixels=deep)
    code, out, _ = call("plan", "--space", space_file(tmp_path, size="image_size = [24, 24]\n"), "--data", data)
    said = " ".join(out.split())
    assert code == 0
    assert "Images of grey of 16 bits, of which 0 to 65535 is read as 0 to 255: 4 (first: train0.png)." in said
    assert "are squashed to 24 x 24 px, which distorts shapes." in said
    assert 'set in [data] of the space\'s file: resize = "crop" or "pad".' in said
    assert "The validation split has 1 image, which is too few to choose on" in said
    code, out, _ = call("plan", "--json", "--space", space_file(tmp_path), "--data", data)
    assert any("Images of grey of 16 bits" in notice for notice in json.loads(out)["notices"])


def test_a_held_out_split_and_that_it_is_too_small_are_reported(call, tmp_path):
    data = images(tmp_path)
    (data / "val").rename(tmp_path / "elsewhere")
    code, out, _ = call("plan", "--space", space_file(tmp_path), "--data", data)
    assert code == 0
    said = " ".join(out.split())
    assert "every 5th training image (1 of 3) was held out to validate, by a hash with seed 0" in said
    assert "The validation split has 1 image, which is too few to choose on" in said


def test_enough_images_to_choose_on_are_not_remarked_on(call, tmp_path):
    data = images(tmp_path)
    for k in range(10):
        put(data, "val", f"val{k}", np.zeros((24, 32, 3), np.uint8), label=HIGH)
    assert "too few to choose on" not in call("plan", "--space", space_file(tmp_path), "--data", data)[1]


def test_a_mask_is_refused_with_a_line_that_reads_it_once_pasted(call, tmp_path):
    data = images(tmp_path, label=np.where(HIGH > 1, 128, 0))
    code, _, err = call("plan", "--space", space_file(tmp_path), "--data", data)
    assert (code, "Traceback" in err) == (2, False)
    assert offered(err, "map") == {"0": 0, "128": 1}
    line = err[err.index("map = ") : err.index("}") + 1]
    code, out, _ = call("plan", "--space", space_file(tmp_path, line), "--data", data)
    assert code == 0
    assert "the map's ids are 2 classes" in " ".join(out.split())


@pytest.mark.parametrize("command", ["plan", "run"])
def test_names_and_colours_are_set_in_the_space_file(call, tmp_path, command):
    palette = np.array([(128, 64, 128), (70, 130, 180), (0, 0, 0)], np.uint8)
    data = images(tmp_path, label=palette[HIGH])
    for file in data.glob("*/labels/*.png"):
        file.rename(file.with_name(f"{file.stem}_mask.png"))
    table = (
        'labels = "{stem}_mask.png"\n[data.colours]\nroad = [128, 64, 128]\nsky = [70, 130, 180]\nignore = [0, 0, 0]'
    )
    options = ["--strategies", "exhaustive", "--out", tmp_path / "out"] if command == "run" else []
    space = space_file(tmp_path, table, encoding="utf-8-sig")
    code, _, err = call(command, "--space", space, "--data", data, *options)
    assert code == 0, err
    if command == "run":
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert (manifest["data"]["classes"], manifest["data"]["splits"]) == (["road", "sky"], {"train": 3, "val": 1})
        assert "too few to choose on" in manifest["data"]["notice"]


def test_a_large_picture_is_refused_with_the_setting_that_allows_it(call, tmp_path):
    data = images(tmp_path)
    code, _, err = call("plan", "--space", space_file(tmp_path, "max_pixels = 700"), "--data", data)
    assert code == 2
    assert "[data] max_pixels = 768" in err
    assert call("plan", "--space", space_file(tmp_path, "max_pixels = 768"), "--data", data)[0] == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_any_labelled_pixel_is_reported_before_anything_is_trained(call, tmp_path, split):
    data = images(tmp_path)
    put(data, split, f"{split}0", np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 255))
    for name in ("train1", "train2") if split == "train" else ():
        put(data, split, name, np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 255))
    (data / "classes.txt").write_text("a\nb\nc\n")
    space = space_file(tmp_path, "ignore_index = 255")
    code, _, err = call("run", "--space", space, "--data", data, "--out", tmp_path / "out")
    assert code == 2
    assert f"no label pixel of the split {split} has a class: all are the ignored id 255" in err
    assert not (tmp_path / "out").exists()


def test_a_test_split_of_withheld_labels_is_left_out_and_reported(call, tmp_path):
    data = images(tmp_path)
    put(data, "test", "test0", np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 255))
    code, out, _ = call("plan", "--space", space_file(tmp_path, "ignore_index = 255"), "--data", data)
    assert code == 0
    assert "train 3, val 1;" in out
    assert "No label pixel of the split test has a class, so it was left out" in " ".join(out.split())
