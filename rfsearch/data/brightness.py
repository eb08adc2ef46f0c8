"""Find pictures of more than 8 bits that their type would make almost black, or leave without a white."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rfsearch.data.image_set import evenly
from rfsearch.data.picture_files import Header, decode
from rfsearch.data.pictures import PictureRule
from rfsearch.data.threads import attempt, thread_pool
from rfsearch.errors import DataError

_DARK = 16  # an image set that nowhere reaches this part of white would keep fewer than 16 of 256 grey levels
_LOOKED_AT = 64  # images of more than 8 bits that are looked through for their brightest value


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


@dataclass(frozen=True)
class _Extent:
    """Hold the lowest and highest value of an image of more than 8 bits.

    Args:
        path: Its file.
        low: Lowest value.
        high: Highest value.
        white: See `Header`.
    """

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
            f"{what} of {white:g} after the low byte is cut off: almost black. Save them with 8 bits per channel."
        )
    likely = 2 ** int(brightest.high).bit_length() - 1
    raise DataError(
        f"{what}, of {white:g} that are white by their type: they would be read as almost black. Say which value is "
        f"white in the space's file: [data] white = {likely}"
    )


def _check_unranged(seen: Sequence[_Extent]) -> None:
    """Leave out what is below 0 or not finite: it is a fault of its file, and no white would mend it."""
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
