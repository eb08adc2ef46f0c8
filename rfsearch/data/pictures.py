"""Read a picture from a file: whatever it is stored as, 8-bit RGB the right way up comes out, or a refusal by name.

What a stored value becomes:

    8 bits or fewer      as it is; grey of 1, 2 or 4 bits from black to white; CMYK and YCbCr brought to RGB
    integer grey, above  v -> 256 v // (white + 1), where white is the type's largest value, which takes the high byte
    colour, above        the high byte of each channel
    floating-point grey  v -> 255 v / white, where white is 1; what is not within 0..1 is refused
    transparency         laid over white

`PictureRule.white` names another white for grey of more than 8 bits; larger values are then white too. An EXIF
orientation is applied, as viewers do. Colour profiles are not. Refused are files of several pages or frames, of more
than 4 channels, and other colour spaces, such as Lab; of the pictures in a camera's MPO file the first is read, which
is the photograph.
"""

from __future__ import annotations

import logging
import math
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from rfsearch.data.image_set import Size, attempt, evenly, thread_pool
from rfsearch.errors import DataError

MOST_PIXELS = 178_956_970  # where Pillow's own protection against decompression bombs refuses

_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_MOST_CHANNELS = 4
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 338, 339  # TIFF 6.0, tags
_SIGNED, _WHITE_IS_ZERO = 2, 0  # values of the tags SampleFormat and PhotometricInterpretation
_DARK = 16  # an image set that nowhere reaches this part of white would keep fewer than 16 of 256 grey levels
_LOOKED_AT = 64  # images of more than 8 bits that are looked through for their brightest value
_PNG_DEPTH = 24  # offset of the bit depth in IHDR, which must come first (PNG specification, 5.2 and 11.2.1)
_PNG_TEXT, _PNG_EXIF = (b"tEXt", b"zTXt", b"iTXt"), (b"Raw profile type", b"XML:com.adobe.xmp")  # EXIF in older PNGs

# The transposition that turns a picture of each EXIF orientation upright (EXIF 2.32, tag 0x0112).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders let through of a file that is damaged or no image.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, IndexError, TypeError)
_opening = threading.Lock()
_silencing = threading.Lock()
_silent = 0  # files that are open, while Pillow says nothing of their metadata
_METADATA_WARNINGS = r"PIL\.(Tiff|Jpeg)ImagePlugin"  # modules whose only warnings are of damaged metadata
_PILLOW_TIFF = logging.getLogger("PIL.TiffImagePlugin")


@dataclass(frozen=True)
class PictureRule:
    """How pictures are read, beyond what their files say.

    Args:
        white: Value of grey images of more than 8 bits that is read as white. None: the type's largest, 1 of floats.
        max_pixels: Pictures of more pixels are refused.
    """

    white: float | None = None
    max_pixels: int = MOST_PIXELS


PLAIN_PICTURES = PictureRule()


@dataclass(frozen=True)
class Header:
    """What a file says about its picture without being decoded.

    size: (H, W) px the right way up. orientation: EXIF's, 1 to 8; 1: upright. kind: the file's format. mode: Pillow's.
    bits: a channel, as stored: decoders stretch fewer than 8, and cut more than 8 in colour. white: the value that its
    type means by white, None where a type has none. inverted: 0 is white. remarks: what is done to it to get RGB.
    """

    size: Size
    orientation: int
    kind: str
    mode: str
    bits: int
    white: float | None
    inverted: bool
    remarks: tuple[str, ...]

    @property
    def deep(self) -> bool:
        """Grey of more than 8 bits."""
        return self.mode in ("I", "F") or self.mode.startswith("I;16")

    @property
    def stored(self) -> Size:
        """(H, W) px of the stored picture, before it is turned upright."""
        return turned_size(self.size, self.orientation)


@dataclass(frozen=True)
class Picture:
    """A decoded picture. rgb: upright. orientation: EXIF's, by which it was turned."""

    path: Path
    rgb: Image.Image
    orientation: int

    @property
    def size(self) -> Size:
        return self.rgb.height, self.rgb.width


def turned_size(size: Size, orientation: int) -> Size:
    """Exchange height and width where an orientation does."""
    return size[::-1] if orientation >= 5 else size


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture as its EXIF orientation asks."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def open_picture(path: Path, rule: PictureRule = PLAIN_PICTURES) -> Picture:
    """Decode a picture as upright 8-bit RGB by the rules above.

    Raises:
        DataError: The file is missing, damaged, or of a kind that is refused.
    """
    image, header = decode(path, rule.max_pixels)
    return Picture(path, _to_rgb(path, image, header, rule), header.orientation)


def decode(path: Path, max_pixels: int = MOST_PIXELS) -> tuple[Image.Image, Header]:
    """Decode a file of one picture in its own mode, and turn it upright.

    Raises:
        DataError: The file is missing, damaged, no image, of several pages, too many channels or too many pixels.
    """
    with _opened(path, max_pixels) as image:
        header = _header(path, image)
        image.load()
        # Pillow turns TIFFs, and them alone, on loading, and takes the tag away.
        left = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format == "TIFF" else header.orientation
        return turn_upright(image, left), header


def read_headers(paths: Iterable[Path], rule: PictureRule = PLAIN_PICTURES) -> dict[Path, Header]:
    """Read the headers of these files; those that cannot be read are left out, for decoding reports them."""

    def read(path: Path) -> Header:
        with _opened(path, rule.max_pixels) as image:
            return _header(path, image)

    paths = list(dict.fromkeys(paths))
    with thread_pool() as pool:
        found = zip(paths, pool.map(attempt(read), paths), strict=True)
        return {path: header for path, header in found if not isinstance(header, DataError)}


def check_pixels(paths: Iterable[Path], headers: Mapping[Path, Header], rule: PictureRule) -> None:
    """Refuse pictures of too many pixels, with the limit that all of them need.

    Args:
        paths: All files, images and labels.
        headers: What `read_headers` gave of them by the same rule.

    Raises:
        DataError: Names the largest file.
    """
    refused = read_headers([path for path in paths if path not in headers], replace(rule, max_pixels=sys.maxsize))
    large = {path: header.stored for path, header in refused.items() if math.prod(header.size) > rule.max_pixels}
    if large:
        largest = max(large, key=lambda path: math.prod(large[path]))
        height, width = large[largest]
        raise _too_many_pixels(largest, width, height, rule.max_pixels, len(large))


def picture_notes(headers: Mapping[Path, Header], rule: PictureRule) -> list[str]:
    """Say what is done to pictures on the way to RGB: one sentence each, with the number of pictures it is done to."""
    found: Counter[str] = Counter()
    first: dict[str, str] = {}
    for path, header in headers.items():
        remarks = [*header.remarks, *([_grey_rule(header, rule)] if header.deep else [])]
        found.update(remarks)
        for remark in remarks:
            first.setdefault(remark, path.name)
    return [f"{remark}: {count} (first: {first[remark]})." for remark, count in found.items()]


def check_brightness(headers: Mapping[Path, Header], rule: PictureRule) -> None:
    """Refuse pictures of more than 8 bits whose white is not that of their type.

    They all stay within the darkest 1/16 of the type's range, as if they held fewer bits than their files, or are of a
    type without a range: floating-point values above 1, and integers of 32 bits. At most 64 of them, evenly spread, are
    looked at. A white that was named is taken as it is.

    Raises:
        DataError: With the brightest value of all, and a white that suits it.
    """
    if rule.white is not None:
        return
    deep = [path for path, header in headers.items() if header.bits > 8]
    ranged = [path for path in deep if headers[path].white and headers[path].mode != "F"]
    _check_ranged(_look_through(ranged, rule))
    _check_unranged(_look_through([path for path in deep if path not in set(ranged)], rule))


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open a file that holds a single picture of a size and number of channels that are read."""
    try:
        # Given a path, Pillow may map a TIFF into memory with its sides exchanged already, which garbles it.
        with path.open("rb") as file, _no_metadata_warnings(), _open_unlimited(file) as image:
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(path, image.width, image.height, max_pixels)
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and image.format != "MPO":
                raise DataError(f"{path}: holds {pages} pages or frames; a file must hold a single picture")
            channels = _tag(image, _CHANNELS, 1)
            if channels > _MOST_CHANNELS:
                raise DataError(f"{path}: has {channels} channels; at most {_MOST_CHANNELS} are read")
            yield image
    except FileNotFoundError as cause:
        raise DataError(f"{path}: no such file") from cause
    except UnidentifiedImageError as cause:
        why = "the file is empty" if not path.stat().st_size else "it is no image of a known format"
        raise DataError(f"{path}: cannot be decoded ({_tiff_layout(path) or why})") from cause
    except _UNREADABLE as cause:
        raise DataError(f"{path}: cannot be decoded ({one_line(cause)})") from cause


def _too_many_pixels(path: Path, width: int, height: int, most: int, files: int = 1) -> DataError:
    """Make the error for a picture above the limit, the largest of so many files."""
    largest = f" It is the largest of {files} such files." if files > 1 else ""
    return DataError(
        f"{path}: has {width} x {height} px, more than the {most:,} that are read, as a protection against "
        f"decompression bombs.{largest} Where {'they are' if files > 1 else 'it is'} to be trusted, allow "
        f"{'them' if files > 1 else 'it'} in the space's file: [data] max_pixels = {width * height}"
    )


@contextmanager
def _no_metadata_warnings() -> Iterator[None]:
    """Keep Pillow from warning of damaged metadata, which viewers take no notice of either.

    Filters belong to the whole process: the first of the threads that read sets this one, and the last takes it away.
    """
    global _silent
    with _silencing:
        _silent += 1
        if _silent == 1:
            warnings.filterwarnings("ignore", category=UserWarning, module=_METADATA_WARNINGS)
    try:
        yield
    finally:
        with _silencing:
            _silent -= 1
            if not _silent:
                filters: Any = warnings.filters  # a list
                filters[:] = [kept for kept in filters if not _is_ours(kept)]


def _is_ours(entry: tuple[Any, ...]) -> bool:
    """Whether an entry of Python's filters of warnings is the one that is set here."""
    return getattr(entry[3], "pattern", None) == _METADATA_WARNINGS


def _open_unlimited(file: BinaryIO) -> Image.Image:
    """Read a header without Pillow's limit of pixels, and without what it prints of a file besides refusing it.

    Both are settings of the whole process.
    """
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        silent, _PILLOW_TIFF.disabled = _PILLOW_TIFF.disabled, True
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS, _PILLOW_TIFF.disabled = limit, silent


def _header(path: Path, image: Image.Image) -> Header:
    orientation = _orientation(path, image)
    stored = _tag(image, _HEIGHT, image.height), _tag(image, _WIDTH, image.width)  # Pillow turns the size of a TIFF
    bits, extra = _stored_bits(path, image), _tag(image, _EXTRA, ())
    white: float | None = 2 ** (bits - (_tag(image, _FORMAT, (1,))[0] == _SIGNED)) - 1
    if image.mode == "F" or bits > 16:
        white = 1.0 if image.mode == "F" else None
    inverted = _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
    bare = Header(
        turned_size(stored, orientation), orientation, image.format or "", image.mode, bits, white, inverted, ()
    )
    remarks = {
        "Images with an EXIF orientation, turned upright": orientation > 1,
        "Images of more than 8 bits a channel in colour, read by the high byte": bits > 8 and not bare.deep,
        "Images with transparency, laid over white": _has_alpha(image),
        "Images with a channel that is not said to be alpha, left out": isinstance(extra, tuple) and 0 in extra,
        "Images in CMYK, brought to RGB without a colour profile": image.mode == "CMYK",
        "Camera files of several pictures (MPO), of which the first is read": image.format == "MPO",
    }
    return replace(bare, remarks=tuple(remark for remark, applies in remarks.items() if applies))


def _orientation(path: Path, image: Image.Image) -> int:
    if image.format == "PNG" and not _png_has_exif(path):
        return 1  # asking Pillow would decode the whole picture
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _UNREADABLE:  # viewers take no notice of damaged metadata either
        return 1
    return value if value in _TURNS else 1


def _png_has_exif(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            start = file.tell()
            if kind == b"eXIf" or (kind in _PNG_TEXT and file.read(20).startswith(_PNG_EXIF)):
                return True
            file.seek(start + length + 4)
    return False


def _stored_bits(path: Path, image: Image.Image) -> int:
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(_PNG_DEPTH + 1)[_PNG_DEPTH]
    return int(_tag(image, _BITS, (8,))[0])


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    """The value of a TIFF's tag."""
    tags = getattr(image, "tag_v2", None)
    return default if tags is None else tags.get(tag, default)


def _tiff_layout(path: Path) -> str:
    """What a TIFF holds that Pillow does not know, or nothing where it is none."""
    try:
        with path.open("rb") as file:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
    except _UNREADABLE:
        return ""
    channels, bits = tags.get(_CHANNELS, 1), tags.get(_BITS, (1,))
    each = ", ".join(map(str, dict.fromkeys(bits)))
    read = "1 to 4 channels of 8 or 16 bits that are grey, RGB, CMYK or YCbCr, and grey of up to 32 bits"
    return f"a TIFF of {channels} channel(s) of {each} bits; read are {read}"


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _ALPHA or "transparency" in image.info


def _to_rgb(path: Path, image: Image.Image, header: Header, rule: PictureRule) -> Image.Image:
    if header.deep:
        return Image.fromarray(_grey_levels(path, image, header, rule)).convert("RGB")
    if header.bits > 8 and rule.white is not None:
        raise DataError(f"{path}: a white of {rule.white:g} applies to grey; this has {header.bits} bits in colour")
    if _has_alpha(image):
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode not in _PLAIN:
        raise DataError(f"{path}: pictures of mode {image.mode} are not read. Save it as RGB or grey.")
    return image.convert("RGB")


def _grey_levels(path: Path, image: Image.Image, header: Header, rule: PictureRule) -> np.ndarray:
    """H x W uint8 of grey of more than 8 bits."""
    values = np.asarray(image)
    if "transparency" in image.info:
        raise DataError(f"{path}: grey of {header.bits} bits with a transparent value is not read. Save it without.")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds values that are not finite")
    low, high = values.min(), values.max()
    white = header.white if rule.white is None else rule.white
    if low < 0 or white is None or (header.mode == "F" and rule.white is None and high > 1):
        wants = (
            "integers of 32 bits have no white of their own" if white is None else f"grey is read from 0 to {white:g}"
        )
        hint = "Values below 0 are not read." if low < 0 else f"Say which value is white: [data] white = {high:g}"
        raise DataError(f"{path}: {wants}; this holds {low:g} to {high:g}. {hint}")
    if header.mode == "F":
        levels = np.rint(np.minimum(values / white, 1) * 255).astype(np.uint8)
    else:
        levels = (np.minimum(values.astype(np.int64), int(white)) * 256 // (int(white) + 1)).astype(np.uint8)
    return np.asarray(255 - levels if header.inverted else levels)


def _grey_rule(header: Header, rule: PictureRule) -> str:
    white = header.white if rule.white is None else rule.white
    kind = "floating-point grey" if header.mode == "F" else f"grey of {header.bits} bits"
    by = "" if white is None else f", of which 0 to {white:g} is read as 0 to 255"
    return f"Images of {kind}{by}" + (", and more as 255" if rule.white is not None else "")


@dataclass(frozen=True)
class _Extent:
    """The lowest and highest value of an image of more than 8 bits. white: see Header."""

    path: Path
    low: float
    high: float
    white: float | None


def _look_through(paths: Sequence[Path], rule: PictureRule) -> list[_Extent]:
    with thread_pool() as pool:
        chosen = [paths[i] for i in evenly(len(paths), _LOOKED_AT)]
        found = pool.map(attempt(partial(_extent, rule=rule)), chosen)
        return [extent for extent in found if not isinstance(extent, DataError)]


def _extent(path: Path, rule: PictureRule) -> _Extent:
    image, header = decode(path, rule.max_pixels)
    if header.deep:
        values = np.asarray(image)
        return _Extent(path, values.min().item(), values.max().item(), header.white)
    colours = [band for band in image.getbands() if band not in ("A", "a")]
    highest = max(int(image.getchannel(band).getextrema()[1]) for band in colours)  # type: ignore[arg-type]
    return _Extent(path, 0, highest, 255)


def _check_ranged(seen: Sequence[_Extent]) -> None:
    if not seen or any(extent.high * _DARK > (extent.white or 0) for extent in seen):
        return
    brightest = max(seen, key=lambda extent: extent.high)
    white = brightest.white or 0
    what = f"{brightest.path}: the brightest value of {len(seen)} images of more than 8 bits is {brightest.high:g}"
    if white < 256:
        raise DataError(
            f"{what} of {white:g} after the low byte is cut off: almost black. Save them with 8 bits a channel."
        )
    likely = 2 ** int(brightest.high).bit_length() - 1
    raise DataError(
        f"{what}, of {white:g} that are white by their type: they would be read as almost black. Say which value is "
        f"white in the space's file: [data] white = {likely}"
    )


def _check_unranged(seen: Sequence[_Extent]) -> None:
    """What is below 0 or not finite is a fault of its file, and no white would mend it."""
    if not seen or any(extent.low < 0 or not math.isfinite(extent.high) for extent in seen):
        return
    brightest = max(seen, key=lambda extent: extent.high)
    white, highest = brightest.white, brightest.high
    if white is not None and not 0 < highest * _DARK <= white and highest <= white:
        return
    wants = "integers of 32 bits have no white of their own" if white is None else f"grey is read from 0 to {white:g}"
    named = highest if white is None else float(f"{highest:.6g}")
    raise DataError(
        f"{brightest.path}: {wants}; the brightest value of {len(seen)} such images is {named}. Say which value is "
        f"white in the space's file: [data] white = {named}"
    )


def one_line(cause: BaseException) -> str:
    return " ".join(str(cause).split()) or type(cause).__name__
