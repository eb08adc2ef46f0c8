"""Open the file of one picture: its header, or its pixels in the mode in which they are stored, the right way up.

An EXIF orientation is applied, as viewers do. Refused are files of several pages or frames, of more than 4 channels or
of too many pixels; of the pictures in a camera's MPO file the first is read, which is the photograph.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from rfsearch.data.image_set import Size
from rfsearch.data.quiet_pillow import no_metadata_warnings, open_unlimited
from rfsearch.data.threads import attempt, thread_pool
from rfsearch.errors import DataError

MOST_PIXELS = 178_956_970  # where Pillow's own protection against decompression bombs refuses

_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_MOST_CHANNELS = 4
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 338, 339  # TIFF 6.0, tags
_SIGNED, _WHITE_IS_ZERO = 2, 0  # values of the tags SampleFormat and PhotometricInterpretation
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


@dataclass(frozen=True)
class Header:
    """Hold what a file says about its picture without being decoded.

    Args:
        size: (H, W) px, the right way up.
        orientation: EXIF's, 1 to 8; 1 is upright.
        kind: The file's format, as Pillow calls it.
        mode: Pillow's mode.
        bits: Bits of a channel as stored: decoders stretch fewer than 8, and cut more than 8 in colour.
        white: Value that is white by the type, None where a type has none.
        inverted: Whether 0 is white.
        remarks: What is done to the picture to get RGB, in words.
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
        """Whether it is grey of more than 8 bits."""
        return self.mode in ("I", "F") or self.mode.startswith("I;16")

    @property
    def stored(self) -> Size:
        """Size of the stored picture, (H, W) px, before it is turned upright."""
        return turned_size(self.size, self.orientation)


def turned_size(size: Size, orientation: int) -> Size:
    """Exchange height and width where an orientation does."""
    return size[::-1] if orientation >= 5 else size


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture as its EXIF orientation asks."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


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


def read_headers(paths: Iterable[Path], max_pixels: int = MOST_PIXELS) -> dict[Path, Header]:
    """Read the headers of these files; those that cannot be read are left out, for decoding reports them."""

    def read(path: Path) -> Header:
        with _opened(path, max_pixels) as image:
            return _header(path, image)

    paths = list(dict.fromkeys(paths))
    with thread_pool() as pool:
        found = zip(paths, pool.map(attempt(read), paths), strict=True)
        return {path: header for path, header in found if not isinstance(header, DataError)}


def check_pixels(paths: Iterable[Path], headers: Mapping[Path, Header], max_pixels: int) -> None:
    """Refuse pictures of too many pixels, with the limit that all of them need.

    Args:
        paths: All files, images and labels.
        headers: What `read_headers` gave of them with the same limit.
        max_pixels: The limit.

    Raises:
        DataError: Names the largest file.
    """
    refused = read_headers([path for path in paths if path not in headers], sys.maxsize)
    large = {path: header.stored for path, header in refused.items() if math.prod(header.size) > max_pixels}
    if large:
        largest = max(large, key=lambda path: math.prod(large[path]))
        height, width = large[largest]
        raise _too_many_pixels(largest, width, height, max_pixels, len(large))


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open a file that holds a single picture of a size and number of channels that are read."""
    try:
        # Given a path, Pillow may map a TIFF into memory with its sides exchanged already, which garbles it.
        with path.open("rb") as file, no_metadata_warnings(), open_unlimited(file) as image:
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
        raise DataError(f"{path}: cannot be decoded ({_one_line(cause)})") from cause


def _too_many_pixels(path: Path, width: int, height: int, most: int, files: int = 1) -> DataError:
    """Make the error for a picture above the limit, the largest of so many files."""
    largest = f" It is the largest of {files} such files." if files > 1 else ""
    return DataError(
        f"{path}: has {width} x {height} px, more than the {most:,} that are read, as a protection against "
        f"decompression bombs.{largest} Where {'they are' if files > 1 else 'it is'} to be trusted, allow "
        f"{'them' if files > 1 else 'it'} in the space's file: [data] max_pixels = {width * height}"
    )


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
        "Images of more than 8 bits per channel in colour, read by the high byte": bits > 8 and not bare.deep,
        "Images with transparency, laid over white": has_alpha(image),
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
    """Return the value of a TIFF's tag."""
    tags = getattr(image, "tag_v2", None)
    return default if tags is None else tags.get(tag, default)


def _tiff_layout(path: Path) -> str:
    """Say what a TIFF holds that Pillow does not know, or nothing where it is none."""
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


def has_alpha(image: Image.Image) -> bool:
    """Return whether a picture has transparency."""
    return image.mode in _ALPHA or "transparency" in image.info


def _one_line(cause: BaseException) -> str:
    return " ".join(str(cause).split()) or type(cause).__name__
