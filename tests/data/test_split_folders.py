"""Where the images and labels of a folder lie: in splits or not, beside each other under several names."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image

from rfsearch.data import read_folder
from rfsearch.data.folder import Naming
from rfsearch.errors import DataError

SIZE = (6, 8)
EXPECTED = "Expected are DIR/train/images and DIR/train/labels"


def put(folder, name, labels="labels", label_name="{}.png"):
    """Write one pair, whose label's first pixels spell the name so that it is recognised."""
    for kind in ("images", labels):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*name.encode()])
    Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(folder / "images" / f"{name}.png")
    label = rng.integers(0, 3, SIZE, np.uint8)
    label.flat[:3] = range(3)
    Image.fromarray(label).save(folder / labels / label_name.format(name))
    return label


def put_splits(root, labels="labels"):
    return {
        name: put(root / title, name, labels)
        for title, count in (("train", 3), ("val", 2), ("test", 2))
        for name in (f"{title}{k}" for k in range(count))
    }


def refusal(root):
    with pytest.raises(DataError) as caught:
        read_folder(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def split_of_name(name, seed=0):
    """The rule in the words of the documents: the hash's last two decimals, below 70, below 85, or above."""
    percent = int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest(), 16) % 100
    return "train" if percent < 70 else "val" if percent < 85 else "test"


# The folder of labels


def test_the_only_folder_beside_images_holds_the_labels(tmp_path):
    named, plain = tmp_path / "a" / "street", tmp_path / "b" / "street"
    put_splits(named, "masks")
    put_splits(plain)
    data = read_folder(named)
    assert data.fingerprint() == read_folder(plain).fingerprint()
    assert list(data.splits) == ["train", "val", "test"]
    where = "train/masks, val/masks, test/masks"
    assert f"There is no folder labels: labels were read from {where}." in data.notice


def test_a_folder_of_labels_is_taken_before_any_other(tmp_path):
    truth = put_splits(tmp_path)
    for folder in ("aaa", "masks"):
        put(tmp_path / "train", "train0", folder)
        Image.fromarray(np.full(SIZE, 9, np.uint8)).save(tmp_path / "train" / folder / "train0.png")
    data = read_folder(tmp_path)
    np.testing.assert_array_equal(data.splits["train"].targets[0], truth["train0"])
    assert "labels were read from" not in data.notice


def test_of_several_folders_the_one_named_as_in_train_is_taken(tmp_path):
    put_splits(tmp_path, "masks")
    for folder in ("preview", "depth"):
        (tmp_path / "val" / folder).mkdir()
    assert len(read_folder(tmp_path).splits["val"]) == 2


def test_a_split_of_its_own_labels_is_read_from_these_whatever_trains_are_called(tmp_path):
    put_splits(tmp_path, "masks")
    label = put(tmp_path / "val", "val0", "labels")
    put(tmp_path / "val", "val1", "labels")
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(tmp_path / "val" / "masks" / "val0.png")
    np.testing.assert_array_equal(read_folder(tmp_path).splits["val"].targets[0], label)


@pytest.mark.parametrize("labels", ["labels", "masks"])
def test_folders_of_a_test_split_are_no_labels_unless_they_are_named_as_in_train(tmp_path, labels):
    put_splits(tmp_path, labels)
    (tmp_path / "test" / labels).rename(tmp_path / "test" / "predictions")
    data = read_folder(tmp_path)
    assert "test" not in data.splits
    assert "The folder test has no labels and was left out" in data.notice


@pytest.mark.parametrize("hidden", [".git", "__MACOSX"])
def test_folders_that_programs_hide_hold_no_labels(tmp_path, hidden):
    put_splits(tmp_path, "masks")
    (tmp_path / "train" / hidden).mkdir()
    assert len(read_folder(tmp_path).splits["train"]) == 3


def test_several_folders_beside_images_are_named_and_none_is_guessed(tmp_path):
    put_splits(tmp_path, "masks")
    (tmp_path / "train" / "depth").mkdir()
    text = refusal(tmp_path)
    assert f"{tmp_path / 'train' / 'labels'}: no such folder. Beside it: folders depth, images, masks." in text
    assert "Rename the one that holds the label maps to 'labels'." in text
    assert EXPECTED in text


# One set without splits


@pytest.fixture
def one_set(tmp_path):
    root = tmp_path / "real"
    for k in range(60):
        put(root, f"photo {k}", "masks")
    return root


def test_one_set_is_split_by_a_hash_of_each_name(one_set):
    data = read_folder(one_set)
    names = {title: set(split.names) for title, split in data.splits.items()}
    wanted = {title: {n for n in (f"photo {k}" for k in range(60)) if split_of_name(n) == title} for title in names}
    assert names == wanted
    assert list(names) == ["train", "val", "test"]
    assert sum(map(len, names.values())) == 60
    counts = ", ".join(f"{title} {len(names[title])}" for title in ("train", "val", "test"))
    assert "the 60 images were split by a hash of their names with seed 0" in data.notice
    assert f"({counts}; on average train 70%, val 15%, test 15%)" in data.notice
    assert "labels were read from masks." in data.notice
    assert "no test split" not in data.notice
    assert read_folder(one_set, hold_out_seed=1).splits["val"].names != data.splits["val"].names


def test_the_split_of_an_image_does_not_depend_on_others(one_set):
    before = read_folder(one_set).splits
    for kind in ("images", "masks"):
        for k in range(0, 60, 3):
            (one_set / kind / f"photo {k}.png").unlink()
    for k in range(10):
        put(one_set, f"new {k}", "masks")
    after = read_folder(one_set).splits
    kept = {f"photo {k}" for k in range(60) if k % 3}
    for title in before:
        assert set(after[title].names) & kept == set(before[title].names) & kept


def test_the_shares_are_met_where_there_are_many():
    titles = [split_of_name(f"frame{k}") for k in range(20_000)]
    for title, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        assert titles.count(title) / len(titles) == pytest.approx(share, abs=0.01)


def test_pairs_of_one_set_are_found_by_patterns_and_get_the_names_of_a_file(tmp_path):
    for k in range(30):
        put(tmp_path, f"{k}_photo", label_name=f"{k}_mask.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    data = read_folder(tmp_path, naming=Naming("{stem}_photo", "{stem}_mask.png"))
    assert data.classes == ("sky", "road", "car")
    assert set(data.splits["val"].names) == {str(k) for k in range(30) if split_of_name(str(k)) == "val"}
    with pytest.raises(DataError, match=r'labels = "\{stem\}_mask\.png"'):
        read_folder(tmp_path)


def test_a_set_too_small_for_a_hash_is_refused_with_what_helps(tmp_path):
    names = [name for name in (f"t{k}" for k in range(40)) if split_of_name(name) == "train"][:4]
    for name in names:
        put(tmp_path, name)
    text = refusal(tmp_path)
    assert "None of the 4 images got into val" in text
    assert EXPECTED in text


def test_one_set_of_which_no_image_is_for_testing_has_no_test_split(tmp_path):
    for name in [name for name in (f"t{k}" for k in range(40)) if split_of_name(name) != "test"]:
        put(tmp_path, name)
    data = read_folder(tmp_path)
    assert list(data.splits) == ["train", "val"]
    assert "test 0;" in data.notice


def test_faults_of_one_set_name_its_files(one_set):
    (one_set / "masks" / "photo 7.png").unlink()
    assert "1 fault: " in refusal(one_set)
    assert f"photo 7.png: has no label {one_set / 'masks' / 'photo 7.png'}" in refusal(one_set)
    shutil.rmtree(one_set / "masks")
    (one_set / "masks").mkdir()
    with pytest.raises(DataError, match="60 faults"):
        read_folder(one_set)


def test_classes_that_cannot_be_inferred_name_the_folder_of_labels(one_set):
    for file in (one_set / "masks").iterdir():
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(file)
    assert f"{one_set / 'masks'}: the labels hold only id 0" in refusal(one_set)


# What is laid out in another way


@pytest.mark.parametrize("part", ["train", "val", "train/images", "val/labels"])
def test_a_part_of_a_data_set_is_refused_with_the_whole(tmp_path, monkeypatch, part):
    put_splits(tmp_path / "mydata")
    monkeypatch.chdir(tmp_path)
    whole = f"mydata/{part}: is a part of a data set. Give the whole, which is --data mydata."
    assert whole in refusal(f"mydata/{part}")
    monkeypatch.chdir(tmp_path / "mydata" / part)
    up = "/".join([".."] * (part.count("/") + 1))
    assert f".: is a part of a data set. Give the whole, which is --data {up}." in refusal(".")


@pytest.mark.parametrize("part", ["images", "masks"])
def test_the_images_or_labels_of_one_set_are_refused_with_the_whole(one_set, part):
    assert f"Give the whole, which is --data {one_set}." in refusal(one_set / part)


def test_a_folder_of_data_sets_is_refused_with_these(tmp_path):
    put_splits(tmp_path / "all" / "street")
    put(tmp_path / "all" / "faces", "a")
    text = refusal(tmp_path / "all")
    assert f"Did you mean --data {tmp_path / 'all' / 'faces'}, --data {tmp_path / 'all' / 'street'}?" in text


@pytest.mark.parametrize(("found", "wanted"), [("trian", "train"), ("Training", "train"), ("imgs", "images")])
def test_a_folder_of_nearly_the_right_name_is_to_be_renamed(tmp_path, found, wanted):
    (tmp_path / found / "images").mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    text = refusal(tmp_path)
    folders = ", ".join(sorted(["masks", found]))
    assert f"In it: folders {folders}. Did you mean {found!r}? Rename it to {wanted!r}." in text
    assert EXPECTED in text
    assert "docs/own_images.md" in text


def test_images_beside_splits_are_not_taken_for_a_set(tmp_path):
    put(tmp_path, "a")
    put(tmp_path / "test", "b")
    text = refusal(tmp_path)
    assert "there is no folder 'train', but there are images beside the split test." in text
    assert EXPECTED in text


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        ((), "In it: nothing."),
        (("images",), "Beside it: the folder images."),
        (("train",), "Beside it: nothing."),
        (("train/images",), "Beside it: the folder images."),
        (("images/train", "labels/train"), "no image in it"),
    ],
)
def test_whatever_else_there_is_gets_one_message_with_what_is_expected(tmp_path, folders, found):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    text = refusal(tmp_path)
    assert found in text
    assert EXPECTED in text


def test_pictures_without_folders_are_counted(tmp_path):
    for k in range(3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{k}.png")
    assert "In it: 3 files, no folder." in refusal(tmp_path)
