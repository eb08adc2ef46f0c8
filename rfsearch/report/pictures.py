"""Example images with their truth and predictions, as data URIs, so that the page needs no other file."""

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
_OURS_RIGHT, _THEIRS_RIGHT, _BOTH_WRONG = (30, 100, 200), (224, 115, 29), (70, 75, 82)


@dataclass(frozen=True)
class Part:
    """Hold one picture of an example image.

    Attributes:
        caption: What it shows, in a few words.
        uri: The picture as a PNG data URI.
        flat: Whether it is a map, of which pixels are shown as they are.
    """

    caption: str
    uri: str
    flat: bool


@dataclass(frozen=True)
class Gallery:
    """Hold the example images of the page and their legend.

    Attributes:
        images: The pictures of each image: itself, its truth, the predictions, and where these differ.
        legend: Name and colour, as #rrggbb, of whatever has a colour of its own.
        says: What the images' agreement is, as a sentence.
        compared: Whether the last picture of each is that of the differences.
    """

    images: tuple[tuple[Part, ...], ...]
    legend: tuple[tuple[str, str], ...]
    says: str
    compared: bool


def gallery(
    examples: Path, classes: Sequence[str], other: Path | None = None, other_name: str = "", limit: int = 6
) -> Gallery | None:
    """Read a trial's example images.

    Args:
        examples: What `rfsearch.tasks.pictures` wrote for the trial.
        classes: Names of the classes, by class id.
        other: The same of another trial, to compare with; None, missing or of other images where there is none.
        other_name: What that trial is called.
        limit: How many images are shown.

    Returns:
        The images with their legend; None where the file is missing or cannot be read.
    """
    found = pictures.read(examples, classes)
    if found is None or not found.images.size:
        return None
    theirs = pictures.read(other, classes) if other else None
    if theirs is not None and not np.array_equal(theirs.truths, found.truths):
        theirs = None
    legend = {**(theirs.legend if theirs else {}), **found.legend}
    return Gallery(
        tuple(_parts(found, theirs, other_name, k) for k in range(min(limit, len(found.images)))),
        tuple((name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in legend.items()),
        found.caption_says,
        theirs is not None and bool(found.legend),
    )


def _parts(found: pictures.Pictures, theirs: pictures.Pictures | None, name: str, k: int) -> tuple[Part, ...]:
    ours, truth = found.predictions[k], found.truths[k]
    agreement = f", {found.captions[k]}" if found.captions[k] else ""
    parts = [
        Part("image", picture_uri(Image.fromarray(found.images[k])), False),
        Part("truth", picture_uri(_flat(truth)), True),
        Part(f"recommended{agreement}", picture_uri(_flat(ours)), True),
    ]
    if theirs is not None:
        agreement = f", {theirs.captions[k]}" if theirs.captions[k] else ""
        parts.append(Part(f"{name}{agreement}", picture_uri(_flat(theirs.predictions[k])), True))
        if found.legend:  # pixels have one of few values, so that equal ones mean something
            parts.append(
                Part("difference", picture_uri(_difference(found.images[k], truth, ours, theirs.predictions[k])), False)
            )
    return tuple(parts)


def _difference(image: np.ndarray, truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> Image.Image:
    """Show where two predictions differ on a dimmed image: in blue where ours is true, in orange where theirs is."""
    grey = image.astype(float).mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    shown = (grey * 0.35 + 150).astype(np.uint8)
    differ = (ours != theirs).any(axis=-1)
    shown[differ] = _BOTH_WRONG
    shown[differ & (ours == truth).all(axis=-1)] = _OURS_RIGHT
    shown[differ & (theirs == truth).all(axis=-1)] = _THEIRS_RIGHT
    return Image.fromarray(shown)


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


def picture_uri(picture: Image.Image) -> str:
    """Return a picture as a PNG data URI, reduced where it is large."""
    if max(picture.size) > _LARGEST_SIDE:
        scale = _LARGEST_SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        how = Image.Resampling.NEAREST if picture.mode == "P" else Image.Resampling.LANCZOS
        picture = picture.resize(size, how)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
