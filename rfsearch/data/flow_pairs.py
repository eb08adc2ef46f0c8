"""Read pairs of images and the flow between them: what all layouts of optical flow share.

A pair is one image of six channels, the first image's RGB and the second's. Its target is 2 x H x W float32: how far
each pixel of the first image moves to the right and downwards until the second, px of the images as they are read; NaN
where that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from rfsearch.data.base import Layout
from rfsearch.data.brightness import check_brightness
from rfsearch.data.faults import Faults
from rfsearch.data.fitting import MEAN_COLOUR, Fit, Resize, choose_size, fit
from rfsearch.data.holding_out import in_hashed_order
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.loading import Item, load_splits
from rfsearch.data.picture_files import MOST_PIXELS, check_pixels, read_headers
from rfsearch.data.pictures import PictureRule, open_picture, picture_notes
from rfsearch.errors import DataError

_HELD_SHARE = 5  # one group in 5 validates, and one tests
_FLOW_SPREAD = "Flow is resized to the nearest place, and its vectors by the factors of their axes"


class FlowLayout(Layout):
    """Read a folder of image pairs with the flow between them.

    Args:
        resize: How images of another shape are brought to the size: "stretch" distorts them, and their vectors with
            them; "crop" keeps the centre; "pad" adds pixels of unknown flow.
        white: Value of grey images of more than 8 bits that is white. None: their type's largest, 1 of floats.
        max_pixels: Images of more pixels are refused. None: 178,956,970.
    """

    channels: ClassVar[int] = 6

    resize: Resize = "stretch"
    white: float | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)

    @property
    def pictures(self) -> PictureRule:
        """Return how the picture files are decoded."""
        return PictureRule(self.white, self.max_pixels or MOST_PIXELS)


def divide(groups: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Return the split of each group, such as a scene, where a data set has none of its own.

    One in 5 validates and, of five or more, one in 5 tests: the first in the order of a seeded hash of their names.

    Args:
        groups: Their names, at least two.
        seed: Of the hash.
    """
    order = in_hashed_order(groups, seed)
    held = max(1, len(order) // _HELD_SHARE)
    titles = dict.fromkeys(order, "train") | dict.fromkeys(order[:held], "val")
    return titles | dict.fromkeys(order[held : 2 * held] if len(order) >= _HELD_SHARE else (), "test")


def read_pairs(
    name: str,
    items: Mapping[str, Sequence[Item]],
    truth: Callable[[Item], np.ndarray],
    size: Size | None,
    layout: FlowLayout,
    faults: Faults,
    notes: Sequence[str],
    memory_limit_bytes: int | None,
    cache: Path | str | None,
) -> ImageSet:
    """Read the pairs of every split, in memory or mapped; see the module for what they become.

    Args:
        name: Of the data set.
        items: Of each split; the files of an item are the first image, the second, and those of the flow.
        truth: Reads the flow of an item: H x W x 2 float32, NaN where it is unknown.
        size: (H, W) px. None: the most common one of the first images.
        layout: Its keys.
        faults: What was wrong so far; gets what is wrong with files.
        notes: What was found and divided how, one sentence each.
        memory_limit_bytes: See `Layout.read`.
        cache: See `Layout.read`.

    Raises:
        DataError: With all faults, each with its file.
    """
    rule = layout.pictures
    files = [path for split in items.values() for item in split for path in item.files[:2]]
    headers = read_headers(files, rule.max_pixels)
    if len(headers) < len(set(files)):
        check_pixels(files, headers, rule.max_pixels)
    check_brightness(headers, rule)
    size, said = choose_size({path: headers[path] for path in files[::2] if path in headers}, size, layout.resize)
    target = size or (1, 1)  # nothing readable: the faults below say so
    spread = [f"{_FLOW_SPREAD}."] if any(header.size != target for header in headers.values()) else []
    sentences = [*notes, *picture_notes(headers, rule), *([said] if said else []), *spread]

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        first, second = (open_picture(path, rule) for path in item.files[:2])
        if first.size != second.size:
            raise DataError(
                f"{second.path}: the images of a pair are of one size. Got {_by(second.size)} here and "
                f"{_by(first.size)} in {first.path.name} (W x H)"
            )
        flow = truth(item)
        if flow.shape[:2] != first.size:
            raise DataError(
                f"{item.files[2]}: flow is of its images' size, {_by(first.size)} (W x H). Got {_by(flow.shape[:2])}"
            )
        placed = fit(first.size, target, layout.resize)
        pictures = [placed.lay(part.rgb, Image.Resampling.BILINEAR, MEAN_COLOUR) for part in (first, second)]
        return np.concatenate([np.asarray(picture) for picture in pictures], axis=2), lay_flow(flow, placed)

    settings = (name, rule, layout.model_dump_json())
    field = (2, *target), np.float32
    splits = load_splits(
        items, read, target, faults, settings, memory_limit_bytes, cache, target=field, channels=layout.channels
    )
    faults.check()
    return ImageSet(name, (), None, splits, notice=" ".join(sentences))


def lay_flow(flow: np.ndarray, placed: Fit) -> np.ndarray:
    """Bring a field onto a canvas as its images are: H x W x 2 to 2 x H' x W' float32, NaN outside.

    Each pixel gets the vector of the nearest one, never a mixture of two motions, in px of the canvas.
    """
    left, upper, right, lower = placed.box
    factors = placed.size[1] / (right - left), placed.size[0] / (lower - upper)
    planes = [Image.fromarray(np.ascontiguousarray(flow[..., axis], np.float32)) for axis in range(2)]
    laid = [np.asarray(placed.lay(plane, Image.Resampling.NEAREST, float("nan"))) for plane in planes]
    return np.stack([plane * np.float32(factor) for plane, factor in zip(laid, factors, strict=True)])


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]} px"
