"""Whatever a picture is stored as, it is read as a viewer shows it, or refused by name."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from rfsearch.data.brightness import check_brightness
from rfsearch.data.picture_files import read_headers
from rfsearch.data.pictures import PictureRule, open_picture, picture_notes
from rfsearch.errors import DataError

RAMP = np.linspace(0, 1, 48).reshape(6, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
ORIENTATION = 0x0112


def saved(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def rgb(path, **rule):
    return np.asarray(open_picture(path, PictureRule(**rule)).rgb)


def grey(path, **rule):
    pixels = rgb(path, **rule)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def notes(*paths, **rule):
    return " ".join(picture_notes(read_headers(paths), PictureRule(**rule)))


def write_tiff(path, values, bits=16, kind=1, photometric=1, channels=1, extra=()):
    """A bare little-endian TIFF, for what Pillow cannot write. values: H x W (x channels), whole bytes."""
    height, width = values.shape[:2]
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * channels), (259, 3, [1]), (262, 3, [photometric])]
    tags += [(273, 4, [8]), (277, 3, [channels]), (278, 3, [height]), (279, 4, [values.nbytes])]
    tags += [(338, 3, extra)] * bool(extra) + [(339, 3, [kind] * channels)]
    data = values.tobytes()
    data += b"\0" * (len(data) % 2)
    directory, after = struct.pack("<H", len(tags)), b""
    end = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, code, numbers in tags:
        packed = struct.pack(f"<{len(numbers)}{'H' if code == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            after, packed = after + packed, struct.pack("<I", end + len(after))
        directory += struct.pack("<HHI", tag, code, len(numbers)) + packed.ljust(4, b"\0")
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + struct.pack("<I", 0) + after)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_16_bits_is_read_by_its_high_byte(tmp_path, suffix):
    values = (RAMP * 65_535).astype(np.uint16)
    path = saved(tmp_path / f"a{suffix}", values)
    np.testing.assert_array_equal(grey(path), values >> 8)
    assert "Images of grey of 16 bits, of which 0 to 65535 is read as 0 to 255: 1 (first: a" in notes(path)


def test_grey_of_16_bits_with_the_high_byte_first(tmp_path):
    values = (RAMP * 65_535).astype(">u2")
    image = Image.frombytes("I;16B", (8, 6), values.tobytes())
    np.testing.assert_array_equal(grey(saved(tmp_path / "a.tif", image)), values >> 8)


def test_grey_of_12_bits_is_white_at_4095(tmp_path):
    values = (RAMP * 4095).astype(np.int64)
    packed = [byte for a, b in values.reshape(-1, 2) for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)]
    path = write_tiff(tmp_path / "a.tif", np.array(packed, np.uint8).reshape(6, 12), bits=12)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<HHIH", 256, 3, 1, 12)) + 8] = 8  # the width in pixels
    path.write_bytes(content)
    np.testing.assert_array_equal(grey(path), values >> 4)
    assert "grey of 12 bits, of which 0 to 4095" in notes(path)


def test_signed_grey_of_16_bits_is_white_at_32767(tmp_path):
    values = (RAMP * 32_767).astype(np.int16)
    path = write_tiff(tmp_path / "a.tif", values, kind=2)
    np.testing.assert_array_equal(grey(path), values >> 7)
    write_tiff(path, values - 5, kind=2)
    with pytest.raises(
        DataError, match=r"a\.tif: grey is read from 0 to 32767; this holds -5 to .* below 0 are not read"
    ):
        rgb(path)


def test_floating_point_grey_from_0_to_1(tmp_path):
    path = saved(tmp_path / "a.tif", RAMP.astype(np.float32))
    np.testing.assert_array_equal(grey(path), np.rint(RAMP * 255))
    assert "floating-point grey, of which 0 to 1 is read as 0 to 255: 1" in notes(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP * 255, r"grey is read from 0 to 1; this holds 0 to 255\. .*\[data\] white = 255"),
        (RAMP - 0.5, "this holds -0.5 to 0.5. Values below 0 are not read"),
        (np.where(RAMP > 0.5, np.nan, RAMP), "values that are not finite"),
    ],
)
def test_floating_point_grey_of_another_range_is_refused(tmp_path, values, message):
    path = saved(tmp_path / "a.tif", values.astype(np.float32))
    with pytest.raises(DataError, match=rf"a\.tif: .*{message}"):
        rgb(path)


def test_integers_of_32_bits_want_a_white(tmp_path):
    values = (RAMP * 1000).astype(np.int32)
    path = saved(tmp_path / "a.tif", values)
    with pytest.raises(DataError, match=r"32 bits have no white of their own; this holds 0 to 1000\. .*white = 1000"):
        rgb(path)
    np.testing.assert_array_equal(grey(path, white=1000), values * 256 // 1001)


def test_a_white_that_is_named_is_white_and_what_is_more_too(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, 2048, 4095, 9000]], np.uint16))
    assert grey(path, white=4095).tolist() == [[0, 128, 255, 255]]
    assert "0 to 4095 is read as 0 to 255, and more as 255" in notes(path, white=4095)
    path = saved(tmp_path / "a.tif", np.array([[0, 50, 100, 120]], np.float32))
    assert grey(path, white=100).tolist() == [[0, 128, 255, 255]]


def test_a_white_says_nothing_of_8_bits_and_is_refused_for_colour(tmp_path):
    path = saved(tmp_path / "a.png", COLOURS)
    np.testing.assert_array_equal(rgb(path, white=4095), COLOURS)
    path = write_tiff(tmp_path / "a.tif", COLOURS.astype(np.uint16) << 8, photometric=2, channels=3)
    with pytest.raises(DataError, match=r"a\.tif: a white of 4095 applies to grey; this has 16 bits in colour"):
        rgb(path, white=4095)


def test_colour_of_16_bits_is_read_by_its_high_byte(tmp_path):
    path = write_tiff(tmp_path / "a.tif", (COLOURS.astype(np.uint16) << 8) + 77, photometric=2, channels=3)
    np.testing.assert_array_equal(rgb(path), COLOURS)
    assert "more than 8 bits per channel in colour, read by the high byte: 1" in notes(path)


def test_a_tiff_in_which_0_is_white(tmp_path):
    values = (RAMP * 65_535).astype(np.uint16)
    np.testing.assert_array_equal(
        grey(write_tiff(tmp_path / "a.tif", values, photometric=0)), 255 - (values >> 8).astype(int)
    )


def test_few_bits_go_from_black_to_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RAMP > 0.5))
    assert set(np.unique(grey(path))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB"])
def test_what_is_transparent_is_white(tmp_path, mode):
    image, options = Image.new("RGBA", (2, 1), (10, 10, 10, 255)), {}
    image.putpixel((1, 0), (200, 200, 200, 0))
    if mode in ("P", "L", "RGB"):
        options = {"transparency": {"P": 1, "L": 200, "RGB": (200, 200, 200)}[mode]}
        image = (
            image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)
        )
        if mode == "P":
            options["transparency"] = int(np.asarray(image)[0, 1])
    else:
        image = image.convert(mode)
    path = saved(tmp_path / ("a.tif" if mode == "PA" else "a.png"), image, **options)
    np.testing.assert_array_equal(rgb(path)[0], [[10, 10, 10], [255, 255, 255]])
    assert "Images with transparency, laid over white: 1" in notes(path)


def test_an_opaque_alpha_changes_nothing(tmp_path):
    image = Image.fromarray(np.dstack([COLOURS, np.full((6, 8), 255, np.uint8)]))
    np.testing.assert_array_equal(rgb(saved(tmp_path / "a.png", image)), COLOURS)


def test_a_channel_that_is_no_alpha_is_left_out_and_reported(tmp_path):
    near_infrared = np.dstack([COLOURS, np.full((6, 8), 7, np.uint8)])
    path = write_tiff(tmp_path / "a.tif", near_infrared, bits=8, photometric=2, channels=4, extra=[0])
    np.testing.assert_array_equal(rgb(path), COLOURS)
    assert "a channel that is not said to be alpha, left out: 1" in notes(path)


@pytest.mark.parametrize("photometric", [2, 1], ids=["known to Pillow", "unknown to Pillow"])
def test_more_than_4_channels_are_refused(tmp_path, photometric):
    extra = [0, 0] if photometric == 2 else [0] * 4
    path = write_tiff(
        tmp_path / "a.tif", np.zeros((6, 8, 5), np.uint8), bits=8, photometric=photometric, channels=5, extra=extra
    )
    with pytest.raises(DataError, match=r"a\.tif: .*5 channel"):
        rgb(path)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colours_become_rgb(tmp_path, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    path = saved(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(rgb(path), np.asarray(image.convert("RGB")))
    assert ("CMYK" in notes(path)) == (mode == "CMYK")


def test_colours_that_are_not_read_are_refused(tmp_path):
    path = saved(tmp_path / "a.tif", Image.new("LAB", (8, 6)))
    with pytest.raises(DataError, match=r"a\.tif: pictures of mode LAB are not read\. Save it as RGB or grey"):
        rgb(path)


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_several_pages_or_frames_are_refused(tmp_path, name):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "green")]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.\w+: holds 3 pages or frames; a file must hold a single picture"):
        rgb(path)


def test_the_first_picture_of_a_camera_is_its_photograph(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6), "red").save(
        path, format="MPO", save_all=True, append_images=[Image.new("RGB", (4, 3), "blue")]
    )
    assert open_picture(path).size == (6, 8)
    assert rgb(path)[3, 3, 0] > 250
    assert "(MPO), of which the first is read: 1" in notes(path)


def with_orientation(path, pixels, value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return saved(path, pixels, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("shape", [(6, 8), (6, 6)], ids=["oblong", "square"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, suffix, value, shape):
    pixels = COLOURS[: shape[0], : shape[1]]
    path = with_orientation(tmp_path / f"a{suffix}", pixels, value)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[value]
    np.testing.assert_array_equal(rgb(path), upright)
    (header,) = read_headers([path]).values()
    assert (header.size, header.stored, header.orientation) == (upright.shape[:2], shape, value)
    assert ("EXIF orientation, turned upright: 1" in notes(path)) == (value > 1)


def test_a_jpeg_is_turned_as_viewers_turn_it(tmp_path):
    path = with_orientation(tmp_path / "a.jpg", COLOURS, 6)
    np.testing.assert_array_equal(rgb(path), np.asarray(ImageOps.exif_transpose(Image.open(path))))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_8_and_16_bits_is_turned_too(tmp_path, suffix):
    values = (RAMP * 65_535).astype(np.uint16)
    for name, pixels in (("deep", values), ("plain", (values >> 8).astype(np.uint8))):
        path = with_orientation(tmp_path / f"{name}{suffix}", pixels, 6)
        np.testing.assert_array_equal(grey(path), np.rot90(values >> 8, -1))


def test_an_orientation_behind_the_pixels_or_in_text_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    info = PngInfo()
    body = exif.tobytes()
    info.add_text("Raw profile type exif", f"\nexif\n{len(body)}\n{body.hex()}\n", zip=True)
    path = saved(tmp_path / "a.png", COLOURS, pnginfo=info)
    np.testing.assert_array_equal(rgb(path), np.rot90(COLOURS, -1))
    path = saved(tmp_path / "b.png", COLOURS)
    whole, chunk = path.read_bytes(), b"eXIf" + body[6:]
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(whole[:-12] + late + whole[-12:])
    np.testing.assert_array_equal(rgb(path), np.rot90(COLOURS, -1))


def test_damaged_metadata_is_taken_no_notice_of(tmp_path):
    for exif in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0rubbish", b""):
        path = saved(tmp_path / "a.jpg", COLOURS, exif=exif)
        assert open_picture(path).size == (6, 8)
    assert open_picture(with_orientation(tmp_path / "b.jpg", COLOURS, 9)).size == (6, 8)


def test_damaged_metadata_prints_nothing(tmp_path):
    short = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0x010E, 2, 4000, 26)
    paths = [saved(tmp_path / f"a{end}", COLOURS, exif=short) for end in (".jpg", ".png", ".webp")]
    paths.append(write_tiff(tmp_path / "a.tif", COLOURS, 8, photometric=2, channels=3))
    whole = paths[-1].read_bytes()
    at = whole.rindex(struct.pack("<HH", 339, 3))
    paths[-1].write_bytes(whole[:at] + struct.pack("<HHII", 0x010E, 2, 4000, 26) + whole[at + 12 :])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        for path in paths:
            assert open_picture(path).size == (6, 8)
        assert warnings.filters == before
        read_headers(paths * 20)
    assert [str(warning.message) for warning in caught] == []


def test_other_warnings_are_still_seen_while_a_picture_is_read(tmp_path, monkeypatch):
    load = ImageFile.ImageFile.load

    def loading(image):
        warnings.warn("of something else", stacklevel=1)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", loading)
    with pytest.warns(UserWarning, match="of something else"):
        open_picture(saved(tmp_path / "a.bmp", COLOURS))


def test_a_limit_of_pixels_is_a_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = saved(tmp_path / "a.png", COLOURS)
    with pytest.raises(DataError, match=r"a\.png: has 8 x 6 px, more than the 40 .* \[data\] max_pixels = 48"):
        rgb(path, max_pixels=40)
    np.testing.assert_array_equal(rgb(path, max_pixels=48), COLOURS)
    assert Image.MAX_IMAGE_PIXELS == 10
    assert read_headers([path], max_pixels=40) == {}


def test_images_that_hold_fewer_bits_than_their_files_are_refused_with_a_white(tmp_path):
    dark = [saved(tmp_path / f"{k}.png", (RAMP * 4000).astype(np.uint16)) for k in range(3)]
    with pytest.raises(DataError, match=r"3 images .* is 4000, of 65535 .* \[data\] white = 4095"):
        check_brightness(read_headers(dark), PictureRule())
    check_brightness(read_headers(dark), PictureRule(white=65_535))
    bright = saved(tmp_path / "bright.png", (RAMP * 65_535).astype(np.uint16))
    check_brightness(read_headers([*dark, bright]), PictureRule())
    check_brightness(read_headers([saved(tmp_path / "8.png", COLOURS // 32)]), PictureRule())


def test_colour_that_holds_fewer_bits_than_its_files_is_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", COLOURS.astype(np.uint16) * 8, photometric=2, channels=3)
    with pytest.raises(
        DataError, match=r"brightest value of 1 images .* almost black\. Save them with 8 bits per channel"
    ):
        check_brightness(read_headers([path]), PictureRule())


def test_values_without_a_range_are_offered_one_white_for_all_images(tmp_path):
    """The white of the first image that is named would cut off what is brighter in others."""
    for suffix, kind in ((".float.tif", np.float32), (".int.tif", np.int32)):
        paths = [saved(tmp_path / f"{k}{suffix}", (RAMP * (100 + k)).astype(kind)) for k in range(3)]
        headers = read_headers(paths)
        with pytest.raises(DataError, match=r"2\.(float|int)\.tif: .* of 3 such images is 102.* white = 102") as caught:
            check_brightness(headers, PictureRule())
        check_brightness(headers, PictureRule(white=float(str(caught.value).rpartition(" ")[2])))
    faint = [saved(tmp_path / "faint.tif", (RAMP / 100).astype(np.float32))]
    with pytest.raises(DataError, match=r"read from 0 to 1; the brightest value of 1 such images is 0\.01\. .*= 0\.01"):
        check_brightness(read_headers(faint), PictureRule())
    check_brightness(read_headers([saved(tmp_path / "good.tif", RAMP.astype(np.float32))]), PictureRule())
    # No white would mend what is below 0, which is told of each file.
    check_brightness(read_headers([saved(tmp_path / "below.tif", (RAMP * 9 - 1).astype(np.float32))]), PictureRule())


def test_an_empty_file_and_another_kind_of_file_are_reported_in_plain_words(tmp_path):
    for name, content, why in (("a.png", b"", "the file is empty"), ("b.png", b"<html>", "it is no image of a known")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: cannot be decoded \({why}"):
            rgb(tmp_path / name)


def test_nothing_is_printed_of_a_file_with_too_many_channels_besides_the_message(tmp_path, caplog):
    path = write_tiff(tmp_path / "a.tif", np.zeros((6, 8, 8), np.uint8), channels=8)
    with pytest.raises(DataError, match="8 channel"):
        rgb(path)
    assert not caplog.records


def test_headers_of_unreadable_files_are_left_out(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    good = saved(tmp_path / "b.png", COLOURS)
    headers = read_headers([tmp_path / "a.png", good, tmp_path / "none.png"])
    assert list(headers) == [good]
    assert headers[good].size == (6, 8)


def test_a_tiff_that_cannot_be_read_says_what_it_holds(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.zeros((6, 8, 3), np.float32), bits=32, kind=3, photometric=2, channels=3)
    with pytest.raises(
        DataError, match=r"a\.tif: cannot be decoded \(a TIFF of 3 channel\(s\) of 32 bits; read are 1 to 4"
    ):
        rgb(path)
