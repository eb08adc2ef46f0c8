"""Make image sets of photographs with boxes, whatever file the boxes are written in.

The rules, the same for every layout; what each was applied to is counted in the set's notice:

    a box of no width or height, or reversed    left out
    a box outside of its image                  left out
    a box partly outside, by more than a pixel  clipped to the image
    a box that resizing makes narrower than 1 px, or of which cropping leaves less than a quarter
                                                left out
    a class that `classes` does not name        its objects are left out
    an image without any object                 kept: it teaches what no object is
    a coordinate that is missing or no number   refused, with the file

Without `classes`, all classes that occur are taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from rfsearch.data.base import Layout
from rfsearch.data.box_rows import COLUMNS, padded
from rfsearch.data.brightness import check_brightness
from rfsearch.data.faults import Faults
from rfsearch.data.fitting import MEAN_COLOUR, Fit, Resize, choose_size, fit
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.loading import Item, load_splits
from rfsearch.data.picture_files import MOST_PIXELS, Header, check_pixels, read_headers
from rfsearch.data.pictures import PictureRule, open_picture, picture_notes
from rfsearch.errors import DataError

_LEAST_LEFT = 0.25
_SLACK = 1.0  # px by which annotators overshoot the last pixel

_SAID = {
    "degenerate": "boxes without width or height were left out",
    "outside": "boxes outside of their images were left out",
    "clipped": "boxes were clipped to their images",
    "small": "boxes that resizing made narrower than 1 px, or mostly cropped, were left out",
    "unknown": "objects of classes that are not named were left out",
    "difficult": "objects are difficult, or crowds: they are not trained on and need not be found",
    "empty": "images hold no object",
}


class BoxLayout(Layout):
    """Read a folder of picture files with boxes.

    Args:
        classes: Names in the order of the ids. Objects of others are left out. Empty: all that occur.
        flip_pairs: Class ids that a horizontal flip exchanges.
        resize: How images of another shape are brought to the size: "stretch" distorts them, "crop" keeps the centre,
            "pad" adds grey around them.
        white: Value of grey images of more than 8 bits that is white. None: their type's largest, 1 of floats.
        max_pixels: Images of more pixels are refused. None: 178,956,970.
    """

    classes: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    resize: Resize = "stretch"
    white: float | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Annotated:
    """Hold what is written of one object.

    Attributes:
        name: Of its class.
        box: x1, y1, x2, y2, px of the image, 0 and W being its edges.
        difficult: Whether it need not be found.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False


@dataclass(frozen=True)
class Photograph:
    """Name an image with what is written of it.

    Attributes:
        name: Unlike any other's of the set.
        image: Its file.
        source: File in which its objects are written.
        objects: Its objects.
        size: H, W as written there, None where they are not.
    """

    name: str
    image: Path
    source: Path
    objects: tuple[Annotated, ...]
    size: Size | None = None


def make_set(
    name: str,
    photographs: Mapping[str, Sequence[Photograph]],
    layout: BoxLayout,
    size: Size | None,
    faults: Faults,
    notes: Sequence[str] = (),
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Read the images of a set, and bring their boxes to its size.

    Args:
        name: Of the set.
        photographs: Of each split.
        layout: Classes and how images are read.
        size: (H, W) px that all images get. None: the most common one of the images.
        faults: What was found wrong so far.
        notes: Sentences for the notice.
        memory_limit_bytes: See `Layout.read`.
        cache: Likewise.

    Raises:
        DataError: With all faults.
    """
    faults.check()
    pictures = PictureRule(layout.white, layout.max_pixels or MOST_PIXELS)
    everyone = [one for split in photographs.values() for one in split]
    headers = read_headers([one.image for one in everyone], pictures.max_pixels)
    check_pixels([one.image for one in everyone], headers, pictures.max_pixels)
    check_brightness(headers, pictures)
    size, note = choose_size(headers, size, layout.resize)
    target = size or (1, 1)  # nothing readable: the faults below say so
    counted: Counter[str] = Counter()
    classes = layout.classes or tuple(sorted({o.name for one in everyone for o in one.objects}))
    if not classes:
        raise DataError(f"{name}: no image has an object, so there is no class to be found.")
    rows = {
        id(one): _rows_of(one, headers[one.image], classes, target, layout.resize, counted, faults)
        for one in everyone
        if one.image in headers
    }
    most = max([1, *(len(found) for found in rows.values())])
    items = {title: [Item(one.name, (one.image, one.source)) for one in split] for title, split in photographs.items()}
    by_name = {one.name: rows.get(id(one), np.zeros((0, COLUMNS), np.float32)) for one in everyone}

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        picture = open_picture(item.files[0], pictures)
        placed = fit(picture.size, target, layout.resize)
        image = np.asarray(placed.lay(picture.rgb, Image.Resampling.BILINEAR, MEAN_COLOUR))
        return image, padded([by_name[item.name]], most)[0]

    settings = (type(layout).__name__, layout.model_dump_json(), classes, most)
    splits = load_splits(
        items, read, target, faults, settings, memory_limit_bytes, cache, target=((most, COLUMNS), np.float32)
    )
    faults.check()
    said = [
        *notes,
        *picture_notes(headers, pictures),
        *([note] if note else []),
        *(f"{counted[key]} {what}." for key, what in _SAID.items() if counted[key]),
    ]
    return ImageSet(name, tuple(classes), None, splits, False, layout.flip_pairs, " ".join(said))


def _rows_of(
    one: Photograph,
    header: Header,
    classes: Sequence[str],
    target: Size,
    resize: Resize,
    counted: Counter[str],
    faults: Faults,
) -> np.ndarray:
    """Return n x 6 rows of an image's objects at the size of the set."""
    if one.size is not None and one.size != header.size:
        height, width = one.size
        hint = " It has an EXIF orientation, by which it is turned upright." if header.stored != header.size else ""
        faults.add(
            f"{one.source}: says that {one.image.name} is {width} x {height} px (W x H), and it is "
            f"{header.size[1]} x {header.size[0]}.{hint}"
        )
    placed, rows = fit(header.size, target, resize), []
    for described in one.objects:
        if not all(map(math.isfinite, described.box)):
            faults.add(f"{one.source}: a box of {one.image.name} is {described.box}, which are not four numbers")
            continue
        if described.name not in classes:
            counted["unknown"] += 1
            continue
        box, why = _fitted(described.box, header.size, placed)
        if why:
            counted[why] += 1
        if box is not None:
            rows.append((*box, classes.index(described.name), float(described.difficult)))
            counted["difficult"] += described.difficult
    counted["empty"] += not rows
    return np.array(rows, np.float32).reshape(-1, COLUMNS)


def _fitted(
    box: tuple[float, float, float, float], size: Size, placed: Fit
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Return a box on the canvas, None where it is left out, and by which rule it was changed or left out."""
    left, upper, right, lower = box
    (height, width), why = size, ""
    if right <= left or lower <= upper:
        return None, "degenerate"
    if right <= 0 or lower <= 0 or left >= width or upper >= height:
        return None, "outside"
    if left < -_SLACK or upper < -_SLACK or right > width + _SLACK or lower > height + _SLACK:
        why = "clipped"
    left, upper, right, lower = max(left, 0.0), max(upper, 0.0), min(right, width), min(lower, height)
    area = (right - left) * (lower - upper)
    scale = tuple(
        new / (end - begin) for new, begin, end in zip(placed.size[::-1], placed.box[:2], placed.box[2:], strict=True)
    )
    edges = []
    for axis, (low, high) in enumerate(((left, right), (upper, lower))):
        begin, corner = placed.box[axis], placed.corner[axis]
        most = corner + placed.size[1 - axis]
        low, high = ((value - begin) * scale[axis] + corner for value in (low, high))
        edges.append((min(max(low, corner), most), min(max(high, corner), most)))
    (left, right), (upper, lower) = edges
    kept = (right - left) * (lower - upper) / (scale[0] * scale[1])
    if min(right - left, lower - upper) < 1 or kept < _LEAST_LEFT * area:
        return None, "small"
    return (left, upper, right, lower), why
