"""Look through the headers of a data set before any of it is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rfsearch.data.alignment import alignment_notes
from rfsearch.data.brightness import check_brightness
from rfsearch.data.faults import Faults
from rfsearch.data.fitting import Resize, choose_size
from rfsearch.data.image_set import Size
from rfsearch.data.loading import Item
from rfsearch.data.picture_files import Header, check_pixels, read_headers
from rfsearch.data.pictures import PictureRule, picture_notes


def survey(
    items: Mapping[str, Sequence[Item]],
    size: Size | None,
    resize: Resize,
    pictures: PictureRule,
    faults: Faults,
    resize_labels: bool = False,
) -> tuple[Size | None, list[str]]:
    """Choose the size of a set, and say what reading does to its files.

    Args:
        items: Of each split; the first file of an item is its image, the second its label, or one of several.
        size: (H, W) px that was asked for. None: the most common one of the images.
        resize: How images of another shape are brought to the size.
        pictures: How images are read.
        faults: Gets what is wrong between images and labels.
        resize_labels: See `LabelRule.resize`.

    Returns:
        (H, W) px, None where no size was asked for and no image can be read; and sentences for the set's notice.

    Raises:
        DataError: Files have too many pixels, or images of more than 8 bits would be read as almost black.
    """
    files = [item.files for split in items.values() for item in split]
    headers = read_headers([image for image, *_ in files], pictures.max_pixels)
    labels = read_headers([label for _, label, *_ in files], pictures.max_pixels)
    known = headers | labels
    if any(path not in known for image, label, *_ in files for path in (image, label)):
        check_all_pixels(items, known, pictures)
    check_brightness(headers, pictures)
    size, note = choose_size(headers, size, resize)
    notes = [*picture_notes(headers, pictures), *alignment_notes(files, headers, labels, resize_labels, faults)]
    return size, [*notes, note] if note else notes


def check_all_pixels(
    items: Mapping[str, Sequence[Item]], headers: Mapping[Path, Header], pictures: PictureRule
) -> None:
    """Refuse a set with files of too many pixels, with the limit that all of its files need.

    Where a label is of several files, `survey` looks at the first alone: at Helen's 25,000 it would look for 10 s.

    Args:
        items: Of each split.
        headers: What is known of their files.
        pictures: How images are read.
    """
    check_pixels(
        [path for split in items.values() for item in split for path in item.files], headers, pictures.max_pixels
    )
