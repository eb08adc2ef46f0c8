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

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.data.image_set import Size
from rfsearch.data.picture_files import MOST_PIXELS, Header, decode, has_alpha
from rfsearch.errors import DataError

_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")


@dataclass(frozen=True)
class PictureRule:
    """Say how pictures are read, beyond what their files say.

    Args:
        white: Value of grey images of more than 8 bits that is read as white. None: the type's largest, 1 of floats.
        max_pixels: Pictures of more pixels are refused.
    """

    white: float | None = None
    max_pixels: int = MOST_PIXELS


PLAIN_PICTURES = PictureRule()


@dataclass(frozen=True)
class Picture:
    """Hold a decoded picture.

    Args:
        path: Its file.
        rgb: The picture, upright.
        orientation: EXIF's, by which it was turned.
    """

    path: Path
    rgb: Image.Image
    orientation: int

    @property
    def size(self) -> Size:
        """Return (H, W) px."""
        return self.rgb.height, self.rgb.width


def open_picture(path: Path, rule: PictureRule = PLAIN_PICTURES) -> Picture:
    """Decode a picture as upright 8-bit RGB by the rules above.

    Raises:
        DataError: The file is missing, damaged, or of a kind that is refused.
    """
    image, header = decode(path, rule.max_pixels)
    return Picture(path, _to_rgb(path, image, header, rule), header.orientation)


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


def _grey_rule(header: Header, rule: PictureRule) -> str:
    white = header.white if rule.white is None else rule.white
    kind = "floating-point grey" if header.mode == "F" else f"grey of {header.bits} bits"
    by = "" if white is None else f", of which 0 to {white:g} is read as 0 to 255"
    return f"Images of {kind}{by}" + (", and more as 255" if rule.white is not None else "")


def _to_rgb(path: Path, image: Image.Image, header: Header, rule: PictureRule) -> Image.Image:
    if header.deep:
        return Image.fromarray(_grey_levels(path, image, header, rule)).convert("RGB")
    if header.bits > 8 and rule.white is not None:
        raise DataError(f"{path}: a white of {rule.white:g} applies to grey; this has {header.bits} bits in colour")
    if has_alpha(image):
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode not in _PLAIN:
        raise DataError(f"{path}: pictures of mode {image.mode} are not read. Save it as RGB or grey.")
    return image.convert("RGB")


def _grey_levels(path: Path, image: Image.Image, header: Header, rule: PictureRule) -> np.ndarray:
    """Return the 8-bit levels of grey of more than 8 bits, H x W."""
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
