"""Example images with their truth and the winner's prediction, as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.numbers import number

IGNORED = 255
_LARGEST_SIDE = 320  # px; larger pictures are reduced, so that the page stays small

# Class 0 is most often background: a quiet grey. The others differ in hue and in lightness, for eyes that see few.
PALETTE = (
    (58, 62, 70), (230, 159, 0), (0, 114, 178), (0, 170, 120), (213, 80, 30), (204, 121, 167), (86, 190, 240),
    (240, 228, 66), (128, 60, 160), (160, 20, 70), (150, 210, 120), (120, 95, 45), (255, 180, 170), (0, 80, 110),
    (170, 170, 230), (140, 150, 0), (255, 100, 150), (0, 220, 210), (200, 190, 160), (20, 120, 20), (90, 70, 220),
    (190, 90, 240), (255, 235, 200), (0, 60, 255),
)  # fmt: skip
_IGNORED_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class Picture:
    """Hold one example image of the page.

    Attributes:
        image: The image as a PNG data URI.
        truth: Its true classes, likewise.
        prediction: The predicted classes, likewise.
        width: Width of the image as shown, px.
        height: Height of the image as shown, px.
        agreement: Share of the labelled pixels that are predicted right, in words; empty without labelled pixels.
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
        legend: Name and colour, as #rrggbb, of each class that occurs; ignored pixels come last.
    """

    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...]


def colour(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class. Beyond the palette the colours repeat, darker."""
    if class_id == IGNORED:
        return _IGNORED_COLOUR
    r, g, b = PALETTE[class_id % len(PALETTE)]
    rounds = class_id // len(PALETTE)
    return (r, g, b) if rounds == 0 else (r * 2 // (2 + rounds), g * 2 // (2 + rounds), b * 2 // (2 + rounds))


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
    try:
        with np.load(examples, allow_pickle=False) as archive:
            images, truth, prediction = (np.asarray(archive[key])[:limit] for key in ("images", "truth", "prediction"))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        return None
    if not truth.shape == prediction.shape == (len(images), *images.shape[2:]):
        return None
    present = sorted(set(np.unique(truth).tolist()) | set(np.unique(prediction).tolist()))
    return Gallery(
        tuple(_picture(*arrays) for arrays in zip(images, truth, prediction, strict=True)),
        tuple((_class_name(i, classes), "#{:02x}{:02x}{:02x}".format(*colour(i))) for i in present),
    )


def _class_name(class_id: int, classes: Sequence[str]) -> str:
    if class_id == IGNORED:
        return "ignored"
    return classes[class_id] if class_id < len(classes) else f"class {class_id}"


def _picture(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> Picture:
    labelled = truth != IGNORED
    right = number(100 * float((truth == prediction)[labelled].mean())) + " %" if labelled.any() else ""
    shown = Image.fromarray(np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0)))
    return Picture(_uri(shown), _uri(_map(truth)), _uri(_map(prediction)), shown.width, shown.height, right)


def _map(labels: np.ndarray) -> Image.Image:
    """Return a class map as a picture with its own palette."""
    picture = Image.fromarray(np.ascontiguousarray(labels.astype(np.uint8))).convert("L")
    coloured = Image.frombytes("P", picture.size, picture.tobytes())
    coloured.putpalette([channel for class_id in range(256) for channel in colour(class_id)])
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
