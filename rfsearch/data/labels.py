"""Read a label map from a file: ids as they are stored, mapped to class ids, or found by colour.

A file of ids has one channel: PNG, TIFF, BMP or GIF, of 1 to 16 bits. A palette's index is the id, whatever its
colours; grey of fewer than 8 bits is not stretched, so that a mask of 1 bit holds ids 0 and 1. A file of colours has
any of these formats, and with the nearest colour JPEG too; its transparency is left out of account.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from rfsearch.data.image_set import evenly
from rfsearch.data.picture_files import MOST_PIXELS, Header, decode, read_headers
from rfsearch.errors import DataError

Colour = tuple[int, int, int]
StoredId = int | Literal["other"]

OTHER: Final = "other"  # in a map of ids: those that it does not list
LARGEST_ID = 65_535  # what 16 bits hold
LARGEST_CLASS = 255  # what a byte per pixel holds
_SHOWN = 12
_CODE = np.array([65_536, 256, 1], np.int32)  # a colour as one number
_LOSSY = ("JPEG", "MPO")
_SINGLE = ("1", "L", "P")
_SHADE = 48  # a colour no farther from another in any channel may be what smoothing or compression made of it
_LOOKED_AT, _OFFERED = 64, 40  # labels that are looked through, and what of them is offered at most


@dataclass(frozen=True)
class LabelRule:
    """Say how the ids of label files become class ids.

    Args:
        map: Class id of each stored id, and of all others as `other`. Empty: ids are class ids.
        colours: Class id of each colour (red, green, blue). Empty: files hold ids.
        nearest: A colour that is not listed is taken for the nearest one that is, instead of being a fault.
        resize: A label of another size than its image is resized to it, by nearest, instead of being a fault.
    """

    map: Mapping[StoredId, int] = field(default_factory=dict)
    colours: Mapping[Colour, int] = field(default_factory=dict)
    nearest: bool = False
    resize: bool = False


PLAIN_LABELS = LabelRule()


def open_label(path: Path, rule: LabelRule, max_pixels: int = MOST_PIXELS) -> tuple[Image.Image, int]:
    """Read a label file.

    Returns:
        Its class ids as an upright image of mode L, and the number of pixels whose colour was only near a listed one.

    Raises:
        DataError: The file cannot be read, is of another kind, or holds an id or colour that the rule does not know.
    """
    image, header = decode(path, max_pixels)
    if header.kind in _LOSSY and not (rule.colours and rule.nearest):
        raise DataError(f"{path}: a JPEG changes the values of pixels, so that they are no ids. Save labels as PNG.")
    if rule.colours:
        ids, near = _ids_of_colours(path, image, header, rule)
    else:
        ids, near = _class_ids(path, _stored_ids(path, image, header), rule.map), 0
    return Image.fromarray(ids), near


def check_rule_is_given(paths: Sequence[Path], rule: LabelRule, max_pixels: int = MOST_PIXELS) -> None:
    """Refuse labels of colours, or of ids above 255, that no rule reads, and offer the rule with all that they hold.

    The first label says of which kind they are; at most 64 of them, evenly spread, are looked through.

    Raises:
        DataError: With the table of colours or the map of ids, as a space file takes it.
    """
    headers = read_headers(paths[:1], max_pixels).values()
    if rule.map or rule.colours or not headers:
        return
    (first,) = headers
    if first.mode in _SINGLE or first.mode == "F" or first.kind in _LOSSY:
        return
    held: Counter[int] = Counter()
    for path in [paths[i] for i in evenly(len(paths), _LOOKED_AT)]:
        try:
            image, header = decode(path, max_pixels)
        except DataError:
            continue  # reported when it is read
        if header.deep == first.deep:
            codes = np.asarray(image) if header.deep else np.asarray(image.convert("RGB")).astype(np.int32) @ _CODE
            held.update(dict(zip(*(part.tolist() for part in np.unique(codes, return_counts=True)), strict=True)))
    if first.deep and max(held, default=0) > 255:
        offer = f"which class each is: [data] map = {list_ids(sorted(held)[:_OFFERED])}"
        what = "ids above 255"
    elif not first.deep and held:
        offer = f"which colours each class has: [data] {_offered_colours(held)}"
        what = f"{_kind(first)}, colours and no ids"
    else:
        return
    more = f" These are {_OFFERED} of {len(held)}." if len(held) > _OFFERED and first.deep else ""
    raise DataError(
        f"{paths[0].parent}: labels such as {paths[0].name} hold {what}. Say in the space's file {offer}.{more}"
    )


def _offered_colours(held: Counter[int]) -> str:
    """Write a table of these colours, given with their areas.

    Of too many, which are shades of others where masks were smoothed or compressed, it holds the most common ones that
    are far from each other.
    """
    by_area = [np.array((code >> 16, code >> 8 & 255, code & 255)) for code, _ in held.most_common()]
    few = len(by_area) <= _OFFERED
    chosen: list[np.ndarray] = []
    for colour in by_area:
        if len(chosen) < _OFFERED and (few or all(np.abs(colour - other).max() > _SHADE for other in chosen)):
            chosen.append(colour)
    colours = sorted((int(red), int(green), int(blue)) for red, green, blue in chosen)
    table = f"colours = {list_colours((f'class {k}' for k in range(len(colours))), colours)}"
    if few:
        return table
    return f'{table} and colour_match = "nearest", since there are {len(held):,} colours, of which most may be shades'


def open_byte_map(path: Path, max_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode a PNG with one byte for each pixel, upright: mode L, or P where the byte indexes a palette.

    A greyscale PNG of 1, 2 or 4 bits is refused too: decoders stretch its values to 0..255, which changes class ids.
    """
    image, header = decode(path, max_pixels)
    if header.kind == "PNG" and header.mode == "P":
        return image
    if header.kind != "PNG" or header.mode != "L" or header.bits != 8:
        raise DataError(f"{path}: a label must be a PNG of a single channel of 8 bits; this is {_kind(header)}")
    return image


def list_colours(names: Iterable[str], colours: Iterable[Colour]) -> str:
    """Write a table of colours as a space file takes it."""
    return "{ " + ", ".join(f'"{name}" = {list(colour)}' for name, colour in zip(names, colours, strict=False)) + " }"


def list_ids(ids: Iterable[int]) -> str:
    """Write a map of ids to 0, 1, 2 ... as a space file takes it."""
    return inline_table(f"{stored} = {k}" for k, stored in enumerate(ids))


def inline_table(entries: Iterable[str]) -> str:
    """Write entries as a table on one line of a space file."""
    return "{ " + ", ".join(entries) + " }"


def some(values: Iterable[object], most: int = _SHOWN) -> str:
    """Name the first few values."""
    values = list(values)
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def _kind(header: Header) -> str:
    return f"{header.kind} {header.mode}" + (f", {header.bits} bit" if header.kind == "PNG" else "")


def _holds_wide_ids(header: Header) -> bool:
    return header.deep and header.mode != "F"


def _stored_ids(path: Path, image: Image.Image, header: Header) -> np.ndarray:
    """Return the ids as the file stores them, H x W, uint8 or wider."""
    if header.mode not in _SINGLE and not _holds_wide_ids(header):
        hint = "" if header.deep else "; labels of colours are read by the table [data] colours of the space's file"
        raise DataError(f"{path}: a label must have a single channel of ids; this is {_kind(header)}{hint}")
    if header.inverted:
        raise DataError(f"{path}: a TIFF in which 0 is white leaves open what its ids are. Save it with black as 0.")
    values = np.asarray(image)
    if header.mode == "L" and header.bits < 8 and header.kind in ("PNG", "TIFF"):
        values = values // (255 // (2**header.bits - 1))  # undo the stretching to 0..255
    return values.astype(np.uint8) if header.mode == "1" else values


def _class_ids(path: Path, stored: np.ndarray, mapping: Mapping[StoredId, int]) -> np.ndarray:
    """Return class ids, H x W uint8."""
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > LARGEST_ID:
        raise DataError(f"{path}: ids from 0 to {LARGEST_ID} are read; this holds {low} to {high}")
    if not mapping:
        if high > 255:
            raise DataError(f"{path}: holds ids up to {high}; ids above 255 are read by [data] map of the space's file")
        return stored.astype(np.uint8)
    table = np.full(LARGEST_ID + 1, mapping.get(OTHER, -1), np.int16)
    for key, value in mapping.items():
        if key != OTHER:
            table[int(key)] = value
    ids = table[stored]
    if (ids < 0).any():
        unknown = np.unique(stored[ids < 0]).tolist()
        raise DataError(
            f"{path}: holds ids that the map does not list: {some(unknown)}. Add them to [data] map, or all at once as "
            f"{OTHER} = ID"
        )
    result: np.ndarray = ids.astype(np.uint8)
    return result


def _ids_of_colours(path: Path, image: Image.Image, header: Header, rule: LabelRule) -> tuple[np.ndarray, int]:
    """Return class ids, H x W uint8, and the number of pixels whose colour is not in the table."""
    if header.deep:
        raise DataError(f"{path}: [data] colours are of 8 bits; this is {_kind(header)}")
    rgb = np.asarray(image.convert("RGB"))
    codes, where = np.unique(rgb.astype(np.int32) @ _CODE, return_inverse=True)  # far faster than by rows
    colours = codes[:, None] // _CODE % 256
    listed, ids = np.array(list(rule.colours), np.int32), np.array(list(rule.colours.values()), np.uint8)
    distances = ((colours[:, None] - listed[None]) ** 2).sum(-1)
    counts = np.bincount(where.ravel(), minlength=len(colours))
    off = distances.min(1) > 0
    near = int(counts[off].sum())
    if near and not rule.nearest:
        common = sorted(zip(counts[off].tolist(), colours[off].tolist(), strict=True), reverse=True)
        most = some((f"{colour} ({count})" for count, colour in common), 5)
        raise DataError(
            f"{path}: {near} of {counts.sum()} pixels ({near / counts.sum():.2%}) have a colour that [data] colours "
            f'does not list: {most}. Add it, or take the nearest listed one: colour_match = "nearest"'
        )
    return ids[distances.argmin(1)][where].reshape(rgb.shape[:2]), near
