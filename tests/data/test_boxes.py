"""Layouts with boxes: VOC's and COCO's, and a rule for each kind of box that is not what it should be."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from rfsearch.data.box_files import BoxLayout
from rfsearch.data.box_rows import split_rows
from rfsearch.data.coco import Coco
from rfsearch.data.voc_detection import VocDetection
from rfsearch.errors import DataError
from rfsearch.testing import LAYOUT_CHECKS

SIZE = (40, 60)  # H x W


def picture(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def xml(objects, size=SIZE):
    rows = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, hard, x1, y1, x2, y2 in objects
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{rows}</annotation>"


def voc(root, train, val=(("cat", 0, 5, 6, 20, 30),), sizes=SIZE):
    """A VOC folder with one image of train for each list of objects, and one of val."""
    names = {"train": [f"t{i}" for i in range(len(train))], "val": ["v0"]}
    for title, listed in names.items():
        (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Main/{title}.txt").write_text("\n".join(listed) + "\n")
    (root / "Annotations").mkdir()
    for name, objects in [*zip(names["train"], train, strict=True), ("v0", val)]:
        picture(root / f"JPEGImages/{name}.png", sizes)
        (root / f"Annotations/{name}.xml").write_text(xml(objects, sizes))
    return root


def coco(root, train, val=(("cat", 0, [4, 5, 16, 25]),), stem="instances_{}2017"):
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    numbers = {"dog": 7, "cat": 3, "bird": 9}
    for title, images in (("train", train), ("val", [val])):
        annotations = []
        for i, objects in enumerate(images):
            picture(root / f"{title}2017/{title}{i}.png")
            annotations += [
                {"image_id": i, "category_id": numbers[name], "iscrowd": crowd, "bbox": box}
                for name, crowd, box in objects
            ]
        body = {
            "images": [
                {"id": i, "file_name": f"{title}{i}.png", "height": SIZE[0], "width": SIZE[1]}
                for i in range(len(images))
            ],
            "annotations": annotations,
            "categories": categories,
        }
        (root / "annotations").mkdir(exist_ok=True, parents=True)
        (root / f"annotations/{stem.format(title)}.json").write_text(json.dumps(body))
    return root


def rows(data, title="train", image=0):
    boxes, labels, difficult = split_rows(data.splits[title].targets[image])
    return [(data.classes[k], *box, bool(hard)) for box, k, hard in zip(boxes.tolist(), labels, difficult, strict=True)]


def test_vocs_pixels_count_from_one_and_the_last_is_inside(tmp_path):
    data = VocDetection().read(voc(tmp_path, [[("dog", 1, 1, 1, 60, 40), ("cat", 0, 11, 6, 20, 15)]]), None)
    assert data.classes == ("cat", "dog")
    assert rows(data) == [("dog", 0, 0, 60, 40, True), ("cat", 10, 5, 20, 15, False)]
    assert "1 objects are difficult" in data.notice
    zero = VocDetection(first_pixel=0).read(tmp_path, None)
    assert rows(zero)[1] == ("cat", 11, 6, 21, 16, False)


def test_cocos_boxes_have_width_and_height_and_crowds_are_difficult(tmp_path):
    data = Coco().read(coco(tmp_path, [[("dog", 1, [0, 0, 60, 40]), ("cat", 0, [10.5, 5, 9.5, 10])]]), None)
    assert data.classes == ("cat", "dog")  # in the order of their ids, 3 and 7
    assert rows(data) == [("dog", 0, 0, 60, 40, True), ("cat", 10.5, 5, 20, 15, False)]


@pytest.mark.parametrize(
    ("box", "kept", "said"),
    [
        ((20, 10, 19, 30), None, "1 boxes without width or height were left out"),
        ((30, 10, 20, 30), None, "1 boxes without width or height were left out"),
        ((70, 10, 90, 30), None, "1 boxes outside of their images were left out"),
        ((-30, 10, -5, 30), None, "1 boxes outside of their images were left out"),
        ((41, 11, 80, 30), (40, 10, 60, 30), "1 boxes were clipped to their images"),
        ((0, 0, 61, 41), (0, 0, 60, 40), ""),  # a pixel beyond: as annotators count
    ],
)
def test_a_rule_for_each_faulty_box_is_counted(tmp_path, box, kept, said):
    whole = ("cat", 0, 3, 3, 12, 12)
    data = VocDetection().read(voc(tmp_path, [[whole, ("dog", 0, *box)]]), None)
    assert rows(data)[1:] == ([("dog", *kept, False)] if kept else [])
    assert said in data.notice
    assert said or not data.notice


def test_classes_that_are_not_named_are_left_out_and_images_without_objects_stay(tmp_path):
    root = voc(tmp_path, [[("bird", 0, 3, 3, 12, 12)], [], [("cat", 0, 3, 3, 12, 12)]])
    data = VocDetection(classes=("cat",)).read(root, None)
    assert len(data.splits["train"]) == 3
    assert [rows(data, image=i) for i in range(3)] == [[], [], [("cat", 2, 2, 12, 12, False)]]
    assert "1 objects of classes that are not named were left out." in data.notice
    assert "2 images hold no object." in data.notice


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("stretch", (20, 10, 40, 20)),  # 60 x 40 to 120 x 40 (W x H)
        ("crop", (20, 0, 40, 20)),  # twice as large, of its 80 rows the middle 40
        ("pad", (40, 10, 50, 20)),  # as it is, in the middle
    ],
)
def test_boxes_are_resized_as_their_images_are(tmp_path, resize, expected):
    data = VocDetection(resize=resize).read(voc(tmp_path, [[("cat", 0, 11, 11, 20, 20)]]), (40, 120))
    assert data.image_size == (40, 120)
    assert rows(data) == [("cat", *expected, False)]


def test_boxes_that_resizing_makes_too_small_are_counted(tmp_path):
    root = voc(tmp_path, [[("cat", 0, 11, 11, 13, 13), ("cat", 0, 1, 1, 40, 30)]])
    data = VocDetection().read(root, (10, 15))
    assert len(rows(data)) == 1
    assert "1 boxes that resizing made narrower than 1 px" in data.notice


def test_faults_are_named_with_their_files(tmp_path):
    root = voc(tmp_path, [[("cat", 0, 1, 1, "left", 9)], [("cat", 0, 1, 1, 9, 9)], [], []])
    (root / "Annotations/t1.xml").write_text("<annotation>")
    (root / "Annotations/t2.xml").write_text(xml([], (400, 300)))
    (root / "JPEGImages/t3.png").unlink()
    with pytest.raises(DataError) as raised:
        VocDetection().read(root, None)
    assert "t1.xml: cannot be read as XML" in str(raised.value)
    assert "t3.jpg: no such file" in str(raised.value)
    (root / "Annotations/t1.xml").write_text(xml([]))
    picture(root / "JPEGImages/t3.png")
    with pytest.raises(DataError) as raised:
        VocDetection().read(root, None)
    assert "t0.xml: a box of t0.png" in str(raised.value)
    assert "which are not four numbers" in str(raised.value)
    assert "t2.xml: says that t2.png is 300 x 400 px (W x H), and it is 60 x 40" in str(raised.value)


def test_an_image_in_two_lists_is_refused(tmp_path):
    root = voc(tmp_path, [[("cat", 0, 1, 1, 9, 9)]])
    (root / "ImageSets/Main/val.txt").write_text("t0\n")
    with pytest.raises(DataError, match=r"val.txt: lists t0, which train.txt lists too"):
        VocDetection().read(root, None)


def test_a_json_file_that_is_none_of_cocos_is_refused(tmp_path):
    root = coco(tmp_path, [[("cat", 0, [1, 1, 9, 9])]])
    file = root / "annotations/instances_val2017.json"
    file.write_text('{"images": [{"id": 1}], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match=r"instances_val2017.json: 1 of images have no id and file_name"):
        Coco().read(root, None)
    file.write_text("[")
    with pytest.raises(DataError, match=r"instances_val2017.json: cannot be read as JSON"):
        Coco().read(root, None)


def test_two_files_of_one_split_are_refused_unless_one_begins_with_instances(tmp_path):
    root = coco(tmp_path, [[("cat", 0, [1, 1, 9, 9])]])
    (root / "annotations/captions_train2017.json").write_text("{}")
    assert len(Coco().read(root, None).splits["train"]) == 1
    (root / "annotations/instances_train2014.json").write_text("{}")
    with pytest.raises(DataError, match="which one is train"):
        Coco().read(root, None)


def test_files_beside_their_images_are_found(tmp_path):
    """The layout of exports whose folders are train, valid and test."""
    for title in ("train", "valid"):
        picture(tmp_path / title / f"{title}.png")
        body = {
            "images": [{"id": 0, "file_name": f"{title}.png", "height": 40, "width": 60}],
            "annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 20]}],
            "categories": [{"id": 1, "name": "cell"}],
        }
        (tmp_path / title / "_annotations.coco.json").write_text(json.dumps(body))
    data = Coco().read(tmp_path, None)
    assert rows(data, "val") == [("cell", 1, 2, 11, 22, False)]


def test_what_is_mapped_from_a_cache_can_be_sent(tmp_path):
    root = voc(tmp_path / "data", [[("cat", 0, 3, 3, 12, 12)]])
    data = VocDetection().read(root, None, cache=tmp_path / "cache", memory_limit_bytes=0)
    sent = pickle.loads(pickle.dumps(data.splits["train"]))
    np.testing.assert_array_equal(sent.targets, VocDetection().read(root, None).splits["train"].targets)


@pytest.mark.parametrize("check", LAYOUT_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [VocDetection, Coco])
def test_both_pass_the_suite_of_layouts(check, kind, tmp_path):
    make = (
        voc(tmp_path, [[("cat", 0, 3, 3, 30, 30)]])
        if kind is VocDetection
        else coco(tmp_path, [[("cat", 0, [1, 1, 30, 30])]])
    )
    layout = kind()
    assert isinstance(layout, BoxLayout)
    check(layout, make)
