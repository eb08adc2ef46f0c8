"""Example images with their truth and the winner's prediction, as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.tasks import pictures

_LARGEST_SIDE = 320  # px; larger pictures are reduced, so that the page stays small
_COLOURS_OF_A_PALETTE = 256


@dataclass(frozen=True)
class Picture:
    """Hold one example image of the page.

    Attributes:
        image: The image as a PNG data URI.
        truth: What is true of it, likewise.
        prediction: What the winner makes of it, likewise.
        width: Width of the image as shown, px.
        height: Height of the image as shown, px.
        agreement: How well the last two agree, in words; empty where that cannot be said.
    """

    image: str
    truth: str
    prediction: str
    width: int
    height: int
    agreement: str


@dataclass(frozen=True)
class Gallery:
    """Hold the example images of the page and their legend.

    Attributes:
        pictures: The images.
        legend: Name and colour, as #rrggbb, of whatever has a colour of its own.
        says: What the images' agreement is, as a sentence.
    """

    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...]
    says: str


def gallery(examples: Path, classes: Sequence[str], limit: int = 6) -> Gallery | None:
    """Read a trial's example images.

    Args:
        examples: An .npz file with `images`, N x 3 x H x W uint8, and `truth` and `prediction`, N x H x W uint8: one
            class id per pixel, 255 where it is ignored.
        classes: Names of the classes, by class id.
        limit: How many images are shown.

    Returns:
        The images with their legend; None where the file is missing or cannot be read.
    """
    found = pictures.read(examples, classes)
    if found is None or not found.images.size:
        return None
    shown = zip(found.images, found.truths, found.predictions, found.captions, strict=True)
    return Gallery(
        tuple(_picture(*parts) for parts in list(shown)[:limit]),
        tuple((name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in found.legend.items()),
        found.caption_says,
    )


def _picture(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, caption: str) -> Picture:
    shown = Image.fromarray(image)
    height, width = image.shape[:2]
    return Picture(_uri(shown), _uri(_flat(truth)), _uri(_flat(prediction)), width, height, caption)


def _flat(pixels: np.ndarray) -> Image.Image:
    """Return a picture of few colours with a palette of its own, which takes fewer bytes."""
    red, green, blue = pixels.astype(np.int32).transpose(2, 0, 1)
    codes, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    if len(codes) > _COLOURS_OF_A_PALETTE:
        return Image.fromarray(pixels)
    picture = Image.fromarray(places.reshape(pixels.shape[:2]).astype(np.uint8)).convert("L")
    coloured = Image.frombytes("P", picture.size, picture.tobytes())
    coloured.putpalette([code >> shift & 255 for code in codes.tolist() for shift in (16, 8, 0)])
    return coloured


def _uri(picture: Image.Image) -> str:
    if max(picture.size) > _LARGEST_SIDE:
        scale = _LARGEST_SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        how = Image.Resampling.NEAREST if picture.mode == "P" else Image.Resampling.LANCZOS
        picture = picture.resize(size, how)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
