"""Lay a label map on its picture, whose file may ask to be turned, or which may be of another size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from rfsearch.data.faults import Faults
from rfsearch.data.image_set import Size
from rfsearch.data.picture_files import Header, turn_upright, turned_size
from rfsearch.data.pictures import Picture
from rfsearch.errors import DataError


def align(label: Image.Image, path: Path, picture: Picture, resize: bool | None = None) -> Image.Image:
    """Bring an upright label to the size of its upright picture.

    A label that only matches its picture as stored was drawn by a program that takes no notice of the orientation: it
    is turned with the picture. resize: see LabelRule; None: there is no such setting.

    Raises:
        DataError: The label is of another size.
    """
    size = label.height, label.width
    wanted = picture.size
    stored = turned_size(wanted, picture.orientation)
    if _turns_with_picture(size, wanted, picture.orientation, bool(resize)):
        label = turn_upright(label, picture.orientation)
    elif not _fits(size, wanted, bool(resize)):
        hint = ""
        if resize:
            width = round(size[0] * wanted[1] / wanted[0])
            hint = (
                ". resize_labels is set, but it resizes only labels of their image's shape, which at this height is "
                f"{width} x {size[0]} px: a label of another shape does not show what its image shows. Crop or pad it "
                "as its image was"
            )
        elif resize is not None and (_same_shape(size, wanted) or _same_shape(size, stored)):
            hint = ". To resize such labels by nearest, set resize_labels = true in [data] of the space's file"
        raise DataError(
            f"{path}: is {size[1]} x {size[0]} px (W x H), "
            f"its image {picture.path.name} is {wanted[1]} x {wanted[0]} px{hint}"
        )
    if (label.height, label.width) != wanted:
        label = label.resize(wanted[::-1], Image.Resampling.NEAREST)
    return label


def alignment_notes(
    pairs: Iterable[tuple[Path, ...]],
    headers: Mapping[Path, Header],
    labels: Mapping[Path, Header],
    resize: bool,
    faults: Faults,
) -> list[str]:
    """Say what `align` does to the labels of these (image, label, ...) files, one sentence each.

    Where some labels match only their stored image, none whose size fits either way is guessed at: it is a fault.
    """
    turned, either, resized = [], [], []
    for image_path, label_path, *_ in pairs:
        image, label = headers.get(image_path), labels.get(label_path)
        if image is None or label is None:
            continue
        if _turns_with_picture(label.size, image.size, image.orientation, resize):
            turned.append(label_path)
        elif image.orientation > 1 and label.orientation == 1 and _fits(label.size, image.stored, resize):
            either.append(label_path)
        if _same_shape(label.size, image.size) and label.size != image.size:
            resized.append(label_path)
    notes = []
    if turned and either:
        for path in either:
            faults.add(
                f"{path}: whether it was drawn on the upright or on the stored image cannot be told from its size, "
                f"and {turned[0]} matches only the stored one. Turn the image's pixels upright and take its EXIF "
                "orientation away"
            )
    elif either:
        notes.append(
            "Labels that fit their image both upright and as stored, taken to be drawn on the upright one: "
            f"{len(either)} (first: {either[0].name})."
        )
    if turned:
        notes.append(
            f"Labels that match only the stored image, turned upright with it: {len(turned)} (first: {turned[0].name})."
        )
    if resize and resized:
        notes.append(
            "Labels of another size than their image, resized to it by nearest: "
            f"{len(resized)} (first: {resized[0].name})."
        )
    return notes


def _turns_with_picture(label: Size, picture: Size, orientation: int, resize: bool) -> bool:
    stored = turned_size(picture, orientation)
    return stored != picture and not _fits(label, picture, resize) and _fits(label, stored, resize)


def _fits(label: Size, picture: Size, resize: bool) -> bool:
    return label == picture or (resize and _same_shape(label, picture))


def _same_shape(label: Size, picture: Size) -> bool:
    """Return whether a label is its picture on another scale, to the rounding of its sides to whole pixels."""
    (height, width), (high, wide) = label, picture
    return abs(height - high * width / wide) <= 1 or abs(width - wide * height / high) <= 1
