"""Label files give the ids that are stored in them, by a map or by their colours, or are refused by name."""

import tomllib

import numpy as np
import pytest
from PIL import Image

from rfsearch.data.labels import LabelRule, list_colours, list_ids, open_label
from rfsearch.errors import DataError
from tests.data.test_image_set import write_grey_png
from tests.data.test_pictures import with_orientation, write_tiff

IDS = np.arange(48, dtype=np.uint8).reshape(6, 8) % 5
ROAD, SKY = (128, 64, 128), (70, 130, 180)
TABLE = {ROAD: 0, SKY: 1, (0, 0, 0): 255}


def ids_of(path, **rule):
    image, _ = open_label(path, LabelRule(**rule))
    assert image.mode == "L"
    return np.asarray(image)


def coloured(ids):
    """Ids 0, 1 and 2 as colours of the table."""
    return np.array([*TABLE], np.uint8)[ids]


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.tif", "a.tiff", "a.bmp", "a.gif"])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_ids_of_one_channel_are_read_from_any_file_without_loss(tmp_path, name, mode):
    image = Image.fromarray(IDS)
    if mode == "P":
        image = image.copy()
        image.putpalette([(37 * k + 11) % 256 for k in range(768)])
    image.save(tmp_path / name)
    np.testing.assert_array_equal(ids_of(tmp_path / name), IDS)


def test_a_mask_of_1_bit_holds_ids_0_and_1(tmp_path):
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(IDS > 2).save(tmp_path / name)
        np.testing.assert_array_equal(ids_of(tmp_path / name), IDS > 2)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path, bits):
    ids = np.arange(2**bits).reshape(2, -1)
    write_grey_png(tmp_path / "a.png", ids, bits)
    np.testing.assert_array_equal(ids_of(tmp_path / "a.png"), ids)


def test_a_map_gives_the_class_of_every_stored_id(tmp_path):
    Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "a.png")
    assert ids_of(tmp_path / "a.png", map={0: 0, 128: 1, 255: 255}).tolist() == [[0, 1, 255]]
    assert ids_of(tmp_path / "a.png", map={0: 0, "other": 1}).tolist() == [[0, 1, 1]]
    with pytest.raises(DataError, match=r"a\.png: holds ids that the map does not list: 128, 255\. .* other = ID"):
        ids_of(tmp_path / "a.png", map={0: 0})


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_ids_of_16_bits_need_a_map(tmp_path, name):
    Image.fromarray(np.array([[7, 300, 26_001]], np.uint16)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"holds ids up to 26001; ids above 255 are read by \[data\] map"):
        ids_of(tmp_path / name)
    assert ids_of(tmp_path / name, map={7: 3, 300: 0, 26_001: 1}).tolist() == [[3, 0, 1]]


def test_ids_of_32_bits_are_read_as_far_as_16_bits_go(tmp_path):
    Image.fromarray(np.array([[0, 1, 4]], np.int32)).save(tmp_path / "a.tif")
    assert ids_of(tmp_path / "a.tif").tolist() == [[0, 1, 4]]
    Image.fromarray(np.array([[-1, 70_000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"ids from 0 to 65535 are read; this holds -1 to 70000"):
        ids_of(tmp_path / "a.tif", map={"other": 1})


def test_colours_stand_for_classes(tmp_path):
    for name in ("a.png", "a.bmp", "a.tif"):
        Image.fromarray(coloured(IDS % 3)).save(tmp_path / name)
        np.testing.assert_array_equal(ids_of(tmp_path / name, colours=TABLE), np.array([0, 1, 255])[IDS % 3])


def test_a_palettes_colours_stand_for_classes_too(tmp_path):
    Image.fromarray(coloured(IDS % 3)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(ids_of(tmp_path / "a.png", colours=TABLE), np.array([0, 1, 255])[IDS % 3])


def test_grey_is_a_colour(tmp_path):
    Image.fromarray(np.array([[0, 90, 128, 255]], np.uint8)).save(tmp_path / "a.png")
    rule = LabelRule(colours={(0, 0, 0): 0, (255, 255, 255): 1}, nearest=True)
    image, near = open_label(tmp_path / "a.png", rule)
    assert (np.asarray(image).tolist(), near) == ([[0, 0, 1, 1]], 2)


def test_colours_that_are_not_listed_are_counted_and_refused_or_taken_for_the_nearest(tmp_path):
    pixels = coloured(IDS % 3)
    pixels[0, :3], pixels[1, 0] = (120, 70, 120), (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    listed = r"\[120, 70, 120\] \(3\), \[1, 2, 3\] \(1\)"
    with pytest.raises(DataError, match=rf"4 of 48 pixels \(8\.33%\) have a colour .* not list: {listed}\. .*nearest"):
        ids_of(tmp_path / "a.png", colours=TABLE)
    image, near = open_label(tmp_path / "a.png", LabelRule(colours=TABLE, nearest=True))
    assert near == 4
    expected = np.array([0, 1, 255])[IDS % 3]
    expected[0, :3], expected[1, 0] = 0, 255
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_jpeg_is_no_label_but_with_the_nearest_colours(tmp_path):
    blocks = np.kron(IDS % 2, np.ones((16, 16), np.uint8))
    Image.fromarray(coloured(blocks)).save(tmp_path / "a.png", format="JPEG", quality=95)
    for rule in ({}, {"colours": TABLE}):
        with pytest.raises(DataError, match=r"a\.png: a JPEG changes the values of pixels"):
            ids_of(tmp_path / "a.png", **rule)
    assert (ids_of(tmp_path / "a.png", colours=TABLE, nearest=True) == blocks).mean() > 0.9


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F"])
def test_labels_of_several_channels_or_reals_are_refused(tmp_path, mode):
    Image.fromarray(coloured(IDS % 2)).convert(mode).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"must have a single channel of ids; this is TIFF {mode}") as caught:
        ids_of(tmp_path / "a.tif")
    assert ("[data] colours" in str(caught.value)) == (mode != "F")


def test_a_tiff_in_which_0_is_white_is_no_label(tmp_path):
    with pytest.raises(DataError, match=r"0 is white leaves open what its ids are"):
        ids_of(write_tiff(tmp_path / "a.tif", IDS, bits=8, photometric=0))


def test_labels_are_turned_by_their_own_orientation(tmp_path):
    for name in ("a.png", "a.tif"):
        path = with_orientation(tmp_path / name, IDS, 6)
        np.testing.assert_array_equal(ids_of(path), np.rot90(IDS, -1))


def test_what_is_offered_can_be_pasted():
    assert tomllib.loads(f"map = {list_ids([0, 128])}") == {"map": {"0": 0, "128": 1}}
    assert tomllib.loads(f"colours = {list_colours(['a b', 'c'], [ROAD, SKY])}") == {
        "colours": {"a b": list(ROAD), "c": list(SKY)}
    }
