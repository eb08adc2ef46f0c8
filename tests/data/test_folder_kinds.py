"""Folders as people have them: pictures of any kind, labels by pattern, map or colours, other sizes and names."""

import tomllib
import unicodedata

import numpy as np
import pytest
from PIL import Image

from rfsearch.data import read_folder
from rfsearch.data.batches import MEAN
from rfsearch.data.fitting import MEAN_COLOUR
from rfsearch.data.folder import Naming
from rfsearch.data.labels import LabelRule
from rfsearch.data.pictures import PictureRule
from rfsearch.errors import DataError
from tests.data.test_pictures import with_orientation

SIZE = (6, 8)
IDS = np.arange(48).reshape(SIZE) % 3


def put(root, split, name, image=None, label=IDS, image_suffix=".png", label_name=None):
    for kind in ("images", "labels"):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.random.default_rng([*name.encode()]).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(image).save(root / split / "images" / f"{name}{image_suffix}")
    if label.dtype == np.int64:
        label = label.astype(np.uint8)
    Image.fromarray(label).save(root / split / "labels" / (label_name or f"{name}.png"))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "street"
    for split, n in (("train", 3), ("val", 2)):
        for k in range(n):
            put(root, split, f"{split}{k}")
    return root


def relabel(root, label, names=("train0", "train1", "train2", "val0", "val1")):
    for name in names:
        put(root, name[:-1], name, label=label)


def refusal(root, **options):
    with pytest.raises(DataError) as caught:
        read_folder(root, **options)
    return str(caught.value)


def offered(text, key):
    """What a message offers for a space file, read as TOML."""
    start = text.index(f"{key} = ") + len(key) + 3
    end = text.index("}" if text[start] == "{" else '"', start + 1) + 1
    return tomllib.loads(f"{key} = {text[start:end]}")[key]


def of(data, name):
    split = next(split for split in data.splits.values() if name in split.names)
    at = split.names.index(name)
    return split.images[at].transpose(1, 2, 0), split.targets[at]


# Pictures of more than 8 bits


def test_16_bit_images_are_read_by_a_rule_that_is_reported(root):
    values = np.linspace(0, 65_535, 48).reshape(SIZE).astype(np.uint16)
    put(root, "train", "train1", values)
    data = read_folder(root)
    np.testing.assert_array_equal(of(data, "train1")[0][..., 0], values >> 8)
    assert "Images of grey of 16 bits, of which 0 to 65535 is read as 0 to 255: 1 (first: train1.png)." in data.notice


def test_12_bits_in_files_of_16_are_refused_with_a_white_that_reads_them(root):
    values = np.linspace(0, 4095, 48).reshape(SIZE).astype(np.uint16)
    put(root, "train", "train1", values)
    assert "[data] white = 4095" in refusal(root)
    data = read_folder(root, pictures=PictureRule(white=4095))
    np.testing.assert_array_equal(of(data, "train1")[0][..., 0], values >> 4)


def test_a_file_of_several_pages_is_one_fault(root):
    frames = [Image.new("RGB", SIZE[::-1], colour) for colour in ("red", "blue")]
    frames[0].save(root / "train/images/train1.png", save_all=True, append_images=frames[1:])
    assert "1 fault: " in refusal(root)
    assert "train1.png: holds 2 pages or frames" in refusal(root)


def test_cached_pixels_are_read_again_by_another_rule(root, tmp_path):
    values = np.linspace(0, 65_535, 48).reshape(SIZE).astype(np.uint16)
    put(root, "train", "train1", values)
    options = {"memory_limit_bytes": 0, "cache": tmp_path / "cache"}
    plain, darker = (read_folder(root, pictures=PictureRule(white), **options) for white in (None, 32_767))
    assert (of(plain, "train1")[0].astype(int).max(), of(darker, "train1")[0].min()) == (255, 0)
    assert plain.fingerprint() != darker.fingerprint()


# Orientation


def turned(root, name, shape, value=6, label=None, **exif):
    """An image of this stored shape and orientation; returns its stored pixels."""
    pixels = np.random.default_rng(7).integers(0, 256, (*shape, 3), np.uint8)
    put(root, name[:-1], name, pixels, label=label)
    with_orientation(root / name[:-1] / "images" / f"{name}.png", pixels, value)
    return pixels


STORED = np.arange(48).reshape(8, 6) % 3  # 8 x 6 px stored, 6 x 8 px upright, like the others


def test_a_label_drawn_on_the_upright_image_stays_as_it_is(root):
    pixels = turned(root, "train1", (8, 6), label=IDS)
    data = read_folder(root)
    image, label = of(data, "train1")
    np.testing.assert_array_equal(image, np.rot90(pixels, -1))
    np.testing.assert_array_equal(label, IDS)
    assert "Images with an EXIF orientation, turned upright: 1 (first: train1.png)." in data.notice
    assert "match only the stored" not in data.notice


def test_a_label_that_matches_only_the_stored_image_is_turned_with_it_and_reported(root):
    pixels = turned(root, "train1", (8, 6), label=STORED)
    data = read_folder(root)
    image, label = of(data, "train1")
    np.testing.assert_array_equal(image, np.rot90(pixels, -1))
    np.testing.assert_array_equal(label, np.rot90(STORED, -1))
    assert "Labels that match only the stored image, turned upright with it: 1 (first: train1.png)." in data.notice


def test_a_label_with_an_orientation_of_its_own_is_turned_by_it(root):
    turned(root, "train1", (8, 6), label=STORED)
    with_orientation(root / "train/labels/train1.png", STORED.astype(np.uint8), 6)
    data = read_folder(root)
    np.testing.assert_array_equal(of(data, "train1")[1], np.rot90(STORED, -1))
    assert "match only the stored" not in data.notice


@pytest.mark.parametrize("value", [3, 6])
def test_square_images_are_turned_and_their_labels_taken_for_upright(tmp_path, value):
    root, square = tmp_path / "square", IDS[:, :6]
    for name in ("train0", "train1", "val0"):
        pixels = turned(root, name, (6, 6), value, label=square)
    data = read_folder(root)
    np.testing.assert_array_equal(of(data, "train1")[0], {3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1)}[value])
    np.testing.assert_array_equal(of(data, "train1")[1], square)
    assert "both upright and as stored, taken to be drawn on the upright one: 3 (first: train0.png)" in data.notice


def test_a_label_with_the_orientation_of_its_image_is_no_guess(root):
    turned(root, "train1", (8, 6), label=STORED)
    turned(root, "train2", SIZE, 3, label=IDS)
    with_orientation(root / "train/labels/train2.png", IDS.astype(np.uint8), 3)
    data = read_folder(root)
    np.testing.assert_array_equal(of(data, "train2")[1], IDS[::-1, ::-1])


def test_where_labels_were_drawn_on_stored_images_none_is_guessed_at(root):
    turned(root, "train1", (8, 6), label=STORED)
    turned(root, "train2", SIZE, 3, label=IDS)
    text = refusal(root)
    assert "train2.png: whether it was drawn on the upright or on the stored image cannot be told" in text
    assert "train1.png matches only the stored one" in text


def test_the_most_common_size_is_that_of_upright_images(tmp_path):
    root = tmp_path / "phone"
    for name in ("train0", "train1", "val0"):
        turned(root, name, (8, 6), label=IDS)
    assert read_folder(root).image_size == SIZE


# Ids that never occur


def test_a_mask_of_0_and_128_is_refused_with_a_map_that_reads_it(root):
    relabel(root, np.where(IDS > 1, 128, 0))
    text = refusal(root)
    assert "hold only ids 0, 128, which would make 129 classes" in text
    mapping = {int(key): value for key, value in offered(text, "map").items()}
    data = read_folder(root, labels=LabelRule(map=mapping))
    assert (data.num_classes, data.ignore_index) == (2, None)
    np.testing.assert_array_equal(of(data, "val0")[1], IDS > 1)
    assert "the map's ids are 2 classes, 0..1" in data.notice


def test_a_mask_of_0_and_255_is_refused_with_a_map_that_reads_it(root):
    relabel(root, np.where(IDS > 1, 255, 0))
    mapping = {int(key): value for key, value in offered(refusal(root), "map").items()}
    np.testing.assert_array_equal(of(read_folder(root, labels=LabelRule(map=mapping)), "val0")[1], IDS > 1)


@pytest.mark.parametrize("high", [128, 255])
def test_a_mask_with_smoothed_edges_is_refused_with_colours_that_read_it(tmp_path, high):
    root, mask = tmp_path / "smooth", np.zeros((40, 40), np.uint8)
    mask[:, 20:], mask[0, :], mask[1, :] = high, np.linspace(0, high, 40), np.linspace(high, 0, 40)
    for name in ("train0", "train1", "val0"):
        put(root, name[:-1], name, np.zeros((40, 40, 3), np.uint8), label=mask)
    text = refusal(root)
    assert f"but 0 and {high} cover 95% of the area, as in a mask with smoothed edges" in text
    assert offered(text, "colour_match") == "nearest"
    colours = {name: [tuple(colour)] for name, colour in offered(text, "colours").items()}
    data = read_folder(root, colours=colours, labels=LabelRule(nearest=True))
    assert data.classes == ("background", "object")
    np.testing.assert_array_equal(of(data, "val0")[1], mask > high / 2)
    assert "taken for the nearest colour that is: " in data.notice


@pytest.mark.parametrize("names", [None, ("sky", "ground")])
def test_a_small_mask_with_few_smoothed_edges_is_not_offered_their_levels_as_classes(tmp_path, names):
    root, mask = tmp_path / "smooth", np.zeros((20, 30), np.uint8)
    mask[:, 15:], mask[0, :10] = 255, np.arange(20, 220, 20)
    for name in ("train0", "train1", "val0"):
        put(root, name[:-1], name, np.zeros((20, 30, 3), np.uint8), label=mask)
    text = refusal(root, classes=names)
    assert "12 ids, but 0 and 255 cover" in text
    assert text.count("\n") == 0
    colours = {name: [tuple(colour)] for name, colour in offered(text, "colours").items()}
    assert tuple(colours) == (names or ("background", "object"))
    assert offered(text, "colour_match") == "nearest"
    data = read_folder(root, classes=names, colours=colours, labels=LabelRule(nearest=True))
    np.testing.assert_array_equal(of(data, "val0")[1], mask > 127)


def test_labels_without_two_classes_say_which_ids_they_hold(root):
    relabel(root, np.full(SIZE, 255))
    assert "hold only id 255, of which the ignored one is no class" in refusal(root)
    relabel(root, IDS % 2)
    text = refusal(root, ignore_index=1)
    assert "hold only id 0 and 1" in text
    assert "and no ignore_index" in text
    assert offered(text, "map") == {"0": 0, "1": 1}


def test_names_that_leave_out_the_ignored_id_0_are_told_that_it_has_one(root):
    text = refusal(root, classes=["wall", "door"], ignore_index=0)
    assert "class id 2 is outside 0..1" in text
    assert "the ignored id 0 has one too" in text


def test_a_few_absent_classes_are_said_and_no_fault(root):
    relabel(root, IDS + 1)
    data = read_folder(root)
    assert data.num_classes == 4
    assert (
        "4 classes were inferred from the training labels' ids, 0..3, of which no training label holds 0."
        in data.notice
    )


def test_ids_with_more_absent_than_present_are_refused(root):
    relabel(root, np.where(IDS > 1, 3, 0))
    assert "hold only ids 0, 3, which would make 4 classes" in refusal(root)
    assert read_folder(root, classes="abcd").num_classes == 4


def test_an_ignored_id_among_the_classes_is_not_absent(root):
    relabel(root, np.where(IDS == 1, 2, IDS * 0))
    data = read_folder(root, ignore_index=2, classes="ab")
    assert (data.num_classes, data.ignore_index) == (2, 2)
    relabel(root, IDS)
    data = read_folder(root, ignore_index=1)
    assert (data.num_classes, data.ignore_index) == (3, 1)
    assert "holds" not in data.notice


def test_classes_that_are_named_may_all_be_absent_but_one(root):
    relabel(root, np.where(IDS > 1, 128, 0))
    assert read_folder(root, classes=[f"c{k}" for k in range(200)]).num_classes == 200


def test_a_map_numbers_classes_without_gaps(root):
    assert "the map gives class ids 0, 1, 3, but not 2" in refusal(root, labels=LabelRule(map={0: 0, 1: 1, 2: 3}))
    data = read_folder(root, labels=LabelRule(map={0: 0, 1: 1, 2: 255}))
    assert (data.num_classes, data.ignore_index) == (2, 255)


# Names


@pytest.mark.parametrize("suffix", [".PNG", ".tif", ".TIFF", ".bmp", ".gif"])
def test_labels_of_other_endings_are_found(root, suffix):
    (root / "train/labels/train1.png").unlink()
    put(root, "train", "train1", label=IDS[::-1].copy(), label_name=f"train1{suffix}")
    np.testing.assert_array_equal(of(read_folder(root), "train1")[1], IDS[::-1])


@pytest.mark.parametrize("ending", ["_mask.png", "_gt.tif", "_labelIds.PNG", ".label.bmp"])
def test_labels_of_other_names_are_found_by_the_pattern_that_is_offered(tmp_path, ending):
    root = tmp_path / "named"
    for name in ("train0", "train1", "val0"):
        put(root, name[:-1], name, label_name=f"{name}{ending}")
        put(root, name[:-1], name, label=IDS * 0, label_name=f"{name}_overview.jpg")
    pattern = offered(refusal(root), "labels")
    assert pattern == "{stem}" + ending
    data = read_folder(root, naming=Naming(labels=pattern))
    np.testing.assert_array_equal(of(data, "train1")[1], IDS)
    assert data.splits["train"].names == ("train0", "train1")
    without_ending = pattern.rpartition(".")[0]
    assert read_folder(root, naming=Naming(labels=without_ending)).fingerprint() == data.fingerprint()


def test_images_and_labels_with_endings_of_their_own(tmp_path):
    root = tmp_path / "cities"
    for name in ("train0", "train1", "val0"):
        put(root, name[:-1], f"{name}_leftImg8bit", label_name=f"{name}_gtFine_labelIds.png")
        put(root, name[:-1], f"{name}_leftImg8bit", label=IDS * 0, label_name=f"{name}_gtFine_color.png")
    text = refusal(root)
    assert 'images = "{stem}_leftImg8bit"' in text
    assert 'labels = "{stem}_gtFine_color.png" or labels = "{stem}_gtFine_labelIds.png"' in text
    data = read_folder(root, naming=Naming("{stem}_leftImg8bit", "{stem}_gtFine_labelIds.png"))
    assert data.splits["train"].names == ("train0", "train1")
    np.testing.assert_array_equal(of(data, "val0")[1], IDS)


def test_labels_with_something_in_front_of_their_name_are_found_by_the_pattern_that_is_offered(tmp_path):
    for name in ("train0", "train1", "val0"):
        put(tmp_path / "front", name[:-1], name, label_name=f"mask_{name}.png")
    pattern = offered(refusal(tmp_path / "front"), "labels")
    assert pattern == "mask_{stem}.png"
    np.testing.assert_array_equal(of(read_folder(tmp_path / "front", naming=Naming(labels=pattern)), "val0")[1], IDS)


def test_jpeg_labels_are_told_how_they_are_read(tmp_path):
    mask = np.kron(np.eye(2, dtype=np.uint8) * 255, np.ones((8, 8), np.uint8))
    for name in ("train0", "train1", "val0"):
        put(tmp_path / "jpeg", name[:-1], name, np.zeros((16, 16, 3), np.uint8), mask, label_name=f"{name}.jpg")
    text = refusal(tmp_path / "jpeg")
    colours = {"background": [(0, 0, 0)], "object": [(255, 255, 255)]}
    assert offered(text, "colour_match") == "nearest"
    naming = Naming(labels=offered(text, "labels"))
    data = read_folder(tmp_path / "jpeg", naming=naming, colours=colours, labels=LabelRule(nearest=True))
    np.testing.assert_array_equal(of(data, "val0")[1], mask > 127)


def test_images_in_folders_below_are_said_not_to_be_read(root):
    (root / "train/images").rename(root / "train/city")
    (root / "train/images").mkdir()
    (root / "train/city").rename(root / "train/images/city")
    assert "no image in it" in refusal(root)
    assert "Folders below it are not looked into" in refusal(root)


def test_two_labels_of_one_image_are_a_fault(root):
    put(root, "train", "train1", label_name="train1.tif")
    assert "train1.tif: is a label of train1.png, and so is train1.png" in refusal(root)


def test_names_in_two_unicode_forms_are_one_name(root):
    composed, apart = (unicodedata.normalize(form, "Straße-café") for form in ("NFC", "NFD"))
    assert composed != apart
    put(root, "train", apart, label=IDS[::-1].copy(), label_name=f"{composed}.png")
    data = read_folder(root)
    assert composed in data.splits["train"].names
    np.testing.assert_array_equal(of(data, composed)[1], IDS[::-1])


def test_class_names_after_a_byte_order_mark(root):
    (root / "classes.txt").write_text("sky\nroad\ncar\n", encoding="utf-8-sig")
    assert read_folder(root).classes == ("sky", "road", "car")


# Colours


ROAD, SKY, CAR = (128, 64, 128), (70, 130, 180), (0, 0, 142)
COLOURS = {"road": [ROAD], "sky": [SKY], "ignore": [CAR, (0, 0, 0)]}


def recolour(root, ids=IDS, **kinds):
    relabel(root, np.array([ROAD, SKY, CAR], np.uint8)[ids])


def test_colour_coded_labels_are_read_by_a_table(root):
    recolour(root)
    data = read_folder(root, colours=COLOURS)
    assert (data.classes, data.ignore_index) == (("road", "sky"), 255)
    np.testing.assert_array_equal(of(data, "val0")[1], np.array([0, 1, 255])[IDS])
    assert data.notice == "There is no folder test: no test split."


def test_class_names_give_colours_their_ids(root):
    recolour(root)
    (root / "classes.txt").write_text("sky\nroad\n")
    data = read_folder(root, colours=COLOURS, ignore_index=7)
    assert (data.classes, data.ignore_index) == (("sky", "road"), 7)
    np.testing.assert_array_equal(of(data, "val0")[1], np.array([1, 0, 7])[IDS])
    assert "colours are given for 'raod', which is no class. Did you mean 'road'?" in refusal(
        root, colours={"raod": [ROAD], "sky": [SKY]}
    )


def test_colours_taken_for_the_nearest_are_counted_with_a_cache_and_without(root, tmp_path):
    recolour(root)
    pixels = np.array([ROAD, SKY, CAR], np.uint8)[IDS]
    pixels[0, :2] = (130, 60, 130)
    put(root, "train", "train1", label=pixels)
    assert "2 of 48 pixels (4.17%) have a colour" in refusal(root, colours=COLOURS)
    cached = {"memory_limit_bytes": 0, "cache": tmp_path / "cache"}
    for options in ({}, cached, cached):
        data = read_folder(root, colours=COLOURS, labels=LabelRule(nearest=True), **options)
        assert "nearest colour that is: 2 in 1 labels (most, 2, in train1.png)." in data.notice
        assert of(data, "train1")[1][0, :2].tolist() == [0, 0]


def test_colour_labels_without_a_table_are_offered_one_for_all_of_them(root):
    recolour(root, IDS % 2)
    put(root, "val", "val1", label=np.full((*SIZE, 3), 9, np.uint8))
    text = refusal(root)
    assert "labels such as train0.png hold PNG RGB, 8 bit, colours and no ids" in text
    colours = {name: [tuple(colour)] for name, colour in offered(text, "colours").items()}
    assert sorted(colours) == ["class 0", "class 1", "class 2"]
    data = read_folder(root, colours=colours)
    classes = data.num_classes, len(np.unique(of(data, "train0")[1])), len(np.unique(of(data, "val1")[1]))
    assert classes == (3, 2, 1)


def test_a_table_of_many_shades_offers_the_colours_behind_them(tmp_path):
    root, ids = tmp_path / "shades", np.kron(np.arange(3), np.ones((30, 10), np.int64))
    shades = np.random.default_rng(0).integers(-6, 7, (30, 30, 3))
    pixels = np.clip(np.array([ROAD, SKY, CAR])[ids] + shades, 0, 255).astype(np.uint8)
    for name in ("train0", "train1", "val0"):
        put(root, name[:-1], name, np.zeros((30, 30, 3), np.uint8), pixels)
    text = refusal(root)
    colours = {name: [tuple(colour)] for name, colour in offered(text, "colours").items()}
    assert len(colours) == 3
    assert offered(text, "colour_match") == "nearest"
    found = of(read_folder(root, colours=colours, labels=LabelRule(nearest=True)), "val0")[1]
    assert [len(np.unique(found[ids == k])) for k in range(3)] == [1, 1, 1]
    assert len(np.unique(found)) == 3


def test_grey_levels_in_three_channels_are_offered_in_the_order_of_their_ids(root):
    relabel(root, np.repeat(np.where(IDS, 3 - IDS, 2)[..., None], 3, 2).astype(np.uint8))
    assert list(offered(refusal(root), "colours").values()) == [[1, 1, 1], [2, 2, 2]]


def test_ids_above_255_are_offered_a_map_for_all_of_them(root):
    relabel(root, (IDS * 300).astype(np.uint16))
    put(root, "train", "train1", label=np.full(SIZE, 26_001, np.uint16))
    text = refusal(root)
    assert "labels such as train0.png hold ids above 255" in text
    assert offered(text, "map") == {"0": 0, "300": 1, "600": 2, "26001": 3}
    data = read_folder(root, labels=LabelRule(map={int(k): v for k, v in offered(text, "map").items()}))
    assert (data.num_classes, int(of(data, "train1")[1][0, 0])) == (4, 3)


def test_ids_of_16_bits_that_8_would_hold_need_no_map(root):
    relabel(root, IDS.astype(np.uint16))
    np.testing.assert_array_equal(of(read_folder(root), "val0")[1], IDS)


# Sizes


def test_labels_of_another_size_are_resized_where_that_is_asked_for(root):
    small = np.arange(12).reshape(3, 4) % 3
    put(root, "train", "train1", label=small)
    assert "train1.png: is 4 x 3 px (W x H), its image train1.png is 8 x 6 px" in refusal(root)
    assert "resize_labels = true" in refusal(root)
    data = read_folder(root, labels=LabelRule(resize=True))
    np.testing.assert_array_equal(of(data, "train1")[1], np.kron(small, np.ones((2, 2), int)))
    assert "resized to it by nearest: 1 (first: train1.png)." in data.notice


def test_smaller_labels_of_stored_images_are_told_the_setting_too(root):
    put(root, "train", "train1", label=IDS[::2, ::2].T.copy())
    with_orientation(root / "train/images/train1.png", np.zeros((*SIZE[::-1], 3), np.uint8), 6)
    text = refusal(root)
    assert "train1.png: is 3 x 4 px (W x H), its image train1.png is 8 x 6 px" in text
    assert "resize_labels = true" in text
    assert "turned upright with it: 1" in read_folder(root, labels=LabelRule(resize=True)).notice


def test_a_label_of_another_shape_is_a_fault_all_the_same_and_told_why(root):
    put(root, "train", "train1", label=np.zeros((3, 6), np.uint8))
    fault = "train1.png: is 6 x 3 px (W x H), its image train1.png is 8 x 6 px"
    text = refusal(root, labels=LabelRule(resize=True))
    assert f"{fault}. resize_labels is set, but it resizes only labels of their image's shape" in text
    assert "which at this height is 4 x 3 px" in text
    put(root, "train", "train2", label=np.zeros((3, 4), np.uint8))
    assert text == refusal(root, labels=LabelRule(resize=True))  # a label of the size in the message is resized
    (root / "train/labels/train2.png").unlink()
    put(root, "train", "train2")
    plain = refusal(root)
    assert fault in plain
    assert "resize_labels" not in plain  # which would not help


def test_images_that_are_squashed_are_reported(root):
    notice = read_folder(root, size=(8, 8)).notice
    assert "5 images (most commonly 8 x 6 px, W x H) are squashed to 8 x 8 px, which distorts shapes." in notice
    assert 'resize = "crop" or "pad"' in notice
    assert "squashed" not in read_folder(root, size=(3, 4)).notice


def test_crop_keeps_the_centre_and_the_shapes(root):
    pixels = of(read_folder(root), "train1")[0]
    data = read_folder(root, size=(6, 6), resize="crop")
    image, label = of(data, "train1")
    np.testing.assert_array_equal(image, pixels[:, 1:7])
    np.testing.assert_array_equal(label, IDS[:, 1:7])
    assert "5 images (most commonly 8 x 6 px, W x H) lose 25% of their area" in data.notice


def test_pad_keeps_all_and_adds_ignored_pixels(root):
    pixels = of(read_folder(root), "train1")[0]
    data = read_folder(root, size=(8, 8), resize="pad", ignore_index=255)
    image, label = of(data, "train1")
    np.testing.assert_array_equal(image[1:7], pixels)
    np.testing.assert_array_equal(label[1:7], IDS)
    assert (label[[0, 7]] == 255).all()
    assert (image[[0, 7]] == MEAN_COLOUR).all()
    assert (data.num_classes, data.ignore_index) == (3, 255)
    assert "are padded to 8 x 8 px: 25% of the area is ignored pixels" in data.notice
    assert 'resize = "pad" needs an ignore index' in refusal(root, resize="pad")


def test_padding_is_the_colour_that_training_normalises_to_0():
    assert [round(255 * mean) for mean in MEAN] == list(MEAN_COLOUR)


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_images_of_several_sizes_are_brought_to_one(root, resize):
    put(root, "val", "wide", np.zeros((6, 16, 3), np.uint8), label=np.hstack([IDS, IDS]))
    data = read_folder(root, resize=resize, ignore_index=255)
    assert data.image_size == SIZE
    label = of(data, "wide")[1]
    assert ((label == 255).mean() == 0.5) == (resize == "pad")
    assert "The images have 2 sizes" in data.notice


def test_pictures_above_the_limit_are_read_where_that_is_asked_for(root):
    text = refusal(root, pictures=PictureRule(max_pixels=40))
    assert "[data] max_pixels = 48" in text
    assert read_folder(root, pictures=PictureRule(max_pixels=48)).image_size == SIZE


def test_a_label_above_the_limit_is_refused_too(root):
    put(root, "train", "train1", label=np.zeros((60, 80), np.uint8))
    text = refusal(root, pictures=PictureRule(max_pixels=100), labels=LabelRule(resize=True))
    assert "labels/train1.png: has 80 x 60 px" in text


@pytest.mark.parametrize("large", ["image", "label"])
def test_the_offered_limit_of_pixels_serves_all_files(root, large):
    put(root, "train", "train1", np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8))
    size = (90, 120) if large == "image" else (6, 8)
    put(root, "val", "large", np.zeros((*size, 3), np.uint8), np.zeros((90, 120), np.uint8))
    text = refusal(root, pictures=PictureRule(max_pixels=100), labels=LabelRule(resize=True))
    assert f"{large}s/large." in text
    assert "has 120 x 90 px" in text
    assert f"the largest of {4 if large == 'image' else 3} such files" in text
    assert text.endswith("[data] max_pixels = 10800")
    read_folder(root, size=SIZE, pictures=PictureRule(max_pixels=10_800), labels=LabelRule(resize=True))
