"""What is said of labels that hold ids of no class: the same for all of them, and right where it is followed."""

import re
import tomllib

import numpy as np
import pytest
from PIL import Image

from rfsearch.data.folder import Folder, read_folder
from rfsearch.data.labels import LabelRule
from rfsearch.errors import DataError

SIZE = (6, 8)
NAMES = tuple(f"c{k}" for k in range(11))


@pytest.fixture
def write(tmp_path):
    """Write labels that hold the given ids, each in rows of its own, and return their folder."""

    def write(train, val=(0, 1)):
        for title, several in (("train", train), ("val", [val])):
            for kind in ("images", "labels"):
                (tmp_path / title / kind).mkdir(parents=True, exist_ok=True)
            for k, ids in enumerate(several):
                label = np.resize(np.asarray(ids, np.uint8), SIZE)
                Image.fromarray(label).save(tmp_path / title / "labels" / f"{k}.png")
                Image.new("RGB", SIZE[::-1]).save(tmp_path / title / "images" / f"{k}.png")
        return tmp_path

    return write


def refusal(root, **options):
    with pytest.raises(DataError) as caught:
        read_folder(root, **options)
    return str(caught.value)


def maps_in(text):
    """Return every map that a message offers."""
    return re.findall(r"map = (\{.*?\})", text)


def rule_of(written):
    """Return a map as a space file with it would read it."""
    return Folder.model_validate({"map": tomllib.loads(f"map = {written}")["map"]}).map


def ids_of(data, title="train"):
    return [set(np.unique(label).tolist()) for label in data.splits[title].targets]


def test_an_id_beside_all_classes_is_told_in_one_line_how_it_is_ignored(write):
    """CamVid: 11 classes, of which no image holds all, and 11 where nothing was labelled."""
    root = write([(0, 1, 3, 11), (2, 4, 5, 6, 11), (7, 8, 9, 10), (0, 2, 11)])
    text = refusal(root, classes=NAMES)
    assert "1 fault: " in text
    assert f"{root / 'train' / 'labels' / '0.png'} (and 2 more): class id 11 is outside 0..10" in text
    assert "For an id that is no class: ignore_index = 11 in [data] of the space's file" in text
    assert "or --set data.ignore_index=11" in text
    assert "For one that is a class: name it too, in the order of the ids; 11 names are given" in text
    data = read_folder(root, classes=NAMES, ignore_index=11)
    assert (data.num_classes, data.ignore_index) == (11, 11)


def test_a_map_for_an_id_that_belongs_to_a_class_leaves_all_others_as_they_are(write):
    """Also those that no label of these few holds: numbering what is held would shift the classes."""
    root = write([(0, 1, 3, 11), (2, 4, 11)])
    (form,) = maps_in(refusal(root, classes=NAMES))
    assert form.endswith("10 = 10, 11 = CLASS }")
    rule = rule_of(form.replace("CLASS", "5"))
    assert rule == {**{k: k for k in range(11)}, 11: 5}
    assert ids_of(read_folder(root, classes=NAMES, labels=LabelRule(rule))) == [{0, 1, 3, 5}, {2, 4, 5}]


def test_as_many_ids_as_classes_are_not_numbered_anew_where_one_is_too_large(write):
    root = write([(0, 1, 2, 3, 4, 5, 6), (8, 9, 10, 11)])  # 7 is nowhere
    (form,) = maps_in(refusal(root, classes=NAMES))
    assert "8 = 8, 9 = 9, 10 = 10, 11 = CLASS" in form


@pytest.mark.parametrize(("ids", "names"), [((0, 255), "ab"), ((0, 50, 100, 150), "abcd"), ((10, 20), "ab")])
def test_ids_that_leave_gaps_are_offered_a_map_that_reads_them(write, ids, names):
    root = write([ids, ids[:1]], ids)
    text = refusal(root, classes=tuple(names))
    assert "For an id that is no class" not in text
    (offered,) = maps_in(text)
    data = read_folder(root, classes=tuple(names), labels=LabelRule(rule_of(offered)))
    assert ids_of(data, "val") == [set(range(len(ids)))]


def test_a_mask_with_an_ignored_id_is_offered_a_map_that_keeps_it(write):
    root = write([(0, 128, 255), (0, 128)], (0, 128))
    (offered,) = maps_in(refusal(root, classes=("a", "b"), ignore_index=255))
    data = read_folder(root, classes=("a", "b"), ignore_index=255, labels=LabelRule(rule_of(offered)))
    assert ids_of(data) == [{0, 1, 255}, {0, 1}]


def test_a_mask_of_two_classes_and_an_edge_is_told_how_the_edge_is_ignored(write):
    assert "ignore_index = 255 in [data]" in refusal(write([(0, 1, 255), (0, 1)]), classes=("a", "b"))


@pytest.mark.parametrize("ignored", [None, 200])
def test_several_ids_of_no_class_are_joined_by_a_map(write, ignored):
    root = write([(0, 1, 2, 3), (4, 5, 200), (0, 7)])
    text = refusal(root, classes=NAMES[:4], ignore_index=ignored)
    joining, form = maps_in(text)
    assert ("with ignore_index = 255" in text) == (ignored is None)
    assert ("200 = CLASS" in form) == (ignored is None)
    data = read_folder(root, classes=NAMES[:4], ignore_index=ignored or 255, labels=LabelRule(rule_of(joining)))
    assert ids_of(data) == [{0, 1, 2, 3}, {ignored or 255}, {0, ignored or 255}]


def test_labels_of_unlike_ids_are_a_line_each_and_the_advice_is_given_once(write):
    text = refusal(write([(0, 1, 11), (2, 12), (3, 12)]), classes=NAMES)
    first, second = text.splitlines()[1:]
    assert "0.png: class id 11 is outside" in first
    assert "1.png (and 1 more): class id 12 is outside 0..10, and no ignore index is set" in second
    assert text.count("For an id that is no class") == 1
    assert "12 = CLASS" in first


def test_ids_that_only_other_splits_hold_are_told_where_the_classes_come_from(write):
    text = refusal(write([(0, 1, 2), (0, 1)], (0, 3)))
    assert "For one that is a class: name all in classes.txt; 0..2 are what the training labels hold" in text
    assert "ignore_index = 3 in [data]" in text


def test_ids_that_a_map_gives_are_not_offered_another_map(write):
    root = write([(0, 1, 2), (0, 1)])
    text = refusal(root, classes=NAMES[:2], labels=LabelRule({0: 0, 1: 1, 2: 9}))
    assert "ignore_index = 9 in [data]" in text
    assert not maps_in(text)
    read_folder(root, classes=NAMES[:2], ignore_index=9, labels=LabelRule({0: 0, 1: 1, 2: 9}))
    joined = refusal(root, classes=NAMES[:2], ignore_index=200, labels=LabelRule({0: 0, 1: 1, 2: 9}))
    assert "For an id that is no class: 200 in place of it in the map" in joined


def test_a_map_of_many_classes_is_not_written_out(write):
    text = refusal(write([range(48), (0, 251)]), classes=tuple(f"c{k}" for k in range(200)))
    assert "map = { 0 = 0, 1 = 1, ..., 199 = 199, 251 = CLASS }" in text
