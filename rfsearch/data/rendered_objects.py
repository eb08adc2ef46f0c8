"""Drawn objects with exact boxes: a small detection set that needs no download.

Made so that the receptive field matters. Each object is a disc, a square, a triangle or a cross of 8 to 80 px, turned
by any angle, and all classes have the same textures and colours, which are stronger than the background's. Within an
object nothing tells its class: its outline does, of which a small field sees one straight or bent edge at a time. Bars
and wedges that are no objects lie about. Objects may hide one another: one of which less than half is seen is
difficult.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from rfsearch.data.base import Count, Embedded, split_counts
from rfsearch.data.box_rows import COLUMNS, padded
from rfsearch.data.image_set import ImageSet, Size, Split
from rfsearch.errors import DataError

CLASSES = ("disc", "square", "triangle", "cross")
MOST_OBJECTS = 6
SMALLEST_PX, LARGEST_PX = 8, 80  # the longer side of an object's box, about

_NOTICE = "The images are rendered drawings of shapes, no photographs: scores on them say nothing about real objects."
_SIZE = (128, 128)  # H, W, px
_LEAST_SEEN, _DIFFICULT_BELOW = 0.2, 0.5  # shares of an object's pixels: below the first it is left out
_GREY, _DULL = 0.5, 0.35  # the background's contrast to grey, as a share of the objects'


class RenderedObjects(Embedded):
    """Draw objects with exact boxes when they are needed: no download.

    Args:
        rendered: Number of images of train, val and test.
        seed: Of all random numbers.
    """

    rendered: tuple[Count, Count, Count] = (512, 128, 256)
    seed: int = Field(default=0, ge=0)

    def held_bytes(self, size: Size | None) -> int:
        """Return the memory that the images will take, in bytes."""
        height, width = size or _SIZE
        return sum(self.rendered) * 3 * height * width

    def make(self, size: Size | None) -> ImageSet:
        """Make the images."""
        return rendered_objects(*self.rendered, size=size or _SIZE, seed=self.seed)


def rendered_objects(train: int = 512, val: int = 128, test: int = 256, size: Size = _SIZE, seed: int = 0) -> ImageSet:
    """Draw up to MOST_OBJECTS objects per image, random in class, size, turn, texture and light; some have none.

    Targets are N x MOST_OBJECTS x 6 rows of boxes (`rfsearch.data.box_rows`). A box holds what of the shape lies in the
    image, also where another object hides it. Image i of a split depends on the seed, the split and i alone, not on how
    many there are.

    Args:
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        size: (H, W) px.
        seed: Of all random numbers.

    Raises:
        DataError: There are too few images, or they are too small for objects of several sizes.
    """
    counts = split_counts("rendered objects", train, val, test)
    if min(size) < 48:
        raise DataError(f"rendered objects: sides are 48 px at least. Got (H, W) {size}.")
    splits = {
        title: _split(title, np.random.SeedSequence(seed, spawn_key=(k,)), count, size)
        for k, (title, count) in enumerate(counts.items())
        if count
    }
    return ImageSet("rendered-objects", CLASSES, None, splits, True, (), _NOTICE)


def _split(title: str, root: np.random.SeedSequence, count: int, size: Size) -> Split:
    images = np.empty((count, 3, *size), np.uint8)
    rows = padded([np.zeros((0, COLUMNS))] * count, MOST_OBJECTS)
    for i, child in enumerate(root.spawn(count)):
        image, found = _draw(np.random.default_rng(child), size)
        images[i] = image.transpose(2, 0, 1)
        rows[i, : len(found)] = found
    return Split(images, rows, tuple(f"{title}-{i:05d}" for i in range(count)))


def _draw(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image, H x W x 3 uint8, and its n x 6 rows of boxes."""
    height, width = size
    down, across = np.mgrid[:height, :width].astype(np.float32) + 0.5
    pixels = _GREY + _DULL * (_texture(rng, across, down) - _GREY)
    for _ in range(rng.integers(1, 4)):
        _clutter(rng, pixels, across, down)
    owner = np.full(size, -1)
    shapes = []
    largest = min(LARGEST_PX, 0.8 * min(size))
    sides = sorted(
        (SMALLEST_PX * (largest / SMALLEST_PX) ** rng.random() for _ in range(rng.integers(0, MOST_OBJECTS + 1))),
        reverse=True,  # a small object in front of a large one hides little of it
    )
    for number, side in enumerate(sides):
        label = int(rng.integers(len(CLASSES)))
        x, y, turn = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 2 * math.pi)
        cos, sin = math.cos(turn), math.sin(turn)
        upper, lower = (int(min(max(edge, 0), height)) for edge in (y - side / 2 - 1, y + side / 2 + 2))
        left, right = (int(min(max(edge, 0), width)) for edge in (x - side / 2 - 1, x + side / 2 + 2))
        window = slice(upper, lower), slice(left, right)
        dx, dy = (across[window] - x) * (2 / side), (down[window] - y) * (2 / side)
        distance = _outline(label, dx * cos + dy * sin, dy * cos - dx * sin) * (side / 2)
        _cover(pixels[window], distance, _texture(rng, across[window], down[window]))
        inside = distance < 0
        owner[window][inside] = number
        lines, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(lines):
            box = left + columns[0], upper + lines[0], left + columns[-1] + 1, upper + lines[-1] + 1
            shapes.append((number, (*map(float, box), float(label)), _AREAS[label] * side * side))
    return _light(rng, pixels), _rows(shapes, owner)


def _rows(shapes: list[tuple[int, tuple[float, ...], float]], owner: np.ndarray) -> np.ndarray:
    """Return n x 6 rows of the objects of which enough is seen.

    Args:
        shapes: Number of each object, its box and class, and the px that all of it would cover.
        owner: H x W number of the object that is in front.
    """
    rows = []
    for number, box, area in shapes:
        seen = int((owner == number).sum()) / area  # what the image's edge cuts off is not seen either
        if seen >= _LEAST_SEEN:
            rows.append((*box, float(seen < _DIFFICULT_BELOW)))
    return np.array(rows, np.float32).reshape(-1, COLUMNS)


def _outline(label: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the signed distance, about, from a shape that fits into the unit circle."""
    if label == 0:
        result: np.ndarray = np.hypot(u, v) - 1
    elif label == 1:
        result = np.maximum(np.abs(u), np.abs(v)) - _HALF_SQUARE
    elif label == 2:
        slanted = np.maximum(math.sqrt(3) / 2 * np.abs(u) - v / 2, v)
        result = slanted - 0.5
    else:
        long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        result = np.maximum(long - _ARM, short - _ARM / 3)
    return result


_HALF_SQUARE = math.sqrt(0.5)
_ARM = 0.95
# Of the square around the unit circle.
_AREAS = (math.pi / 4, 0.5, 3 * math.sqrt(3) / 16, 5 * (2 * _ARM / 3) ** 2 / 4)


def _cover(pixels: np.ndarray, distance: np.ndarray, paint: np.ndarray) -> None:
    """Paint where the signed distance (px) is below 0; the edge is a pixel soft."""
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    pixels += alpha * (paint - pixels)


def _texture(rng: np.random.Generator, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return stripes, checks or cloudy noise of two colours, H x W x 3 in 0..1."""
    one, other = (rng.uniform(0.05, 0.95, 3).astype(np.float32) for _ in range(2))
    turn, pitch = rng.uniform(0, math.pi), rng.uniform(4, 14)
    u = (across * math.cos(turn) + down * math.sin(turn)) * (2 * math.pi / pitch)
    v = (down * math.cos(turn) - across * math.sin(turn)) * (2 * math.pi / pitch)
    kind = rng.integers(3)
    if kind == 0:
        share = np.sin(u)
    elif kind == 1:
        share = np.sin(u) * np.sin(v)
    else:
        share = np.sin(u + 2 * np.sin(0.37 * v)) * np.sin(0.61 * v + np.sin(0.53 * u))
    strength = rng.uniform(0.15, 0.5)
    mixed: np.ndarray = one + (other - one) * (0.5 + strength * share)[..., None].astype(np.float32)
    return mixed


def _clutter(rng: np.random.Generator, pixels: np.ndarray, across: np.ndarray, down: np.ndarray) -> None:
    """Draw a bar or a wedge: edges and textures of objects, without the outline of one."""
    height, width = across.shape
    x, y, turn = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 2 * math.pi)
    u = (across - x) * math.cos(turn) + (down - y) * math.sin(turn)
    v = (down - y) * math.cos(turn) - (across - x) * math.sin(turn)
    if rng.random() < 0.5:
        half, length = rng.uniform(2, 7), rng.uniform(25, 70)
        distance = np.maximum(np.abs(v) - half, np.abs(u) - length)
    else:
        distance = np.maximum(np.abs(v) - 0.25 * u, np.hypot(u, v) - rng.uniform(20, 60))
    _cover(pixels, distance, _texture(rng, across, down))


def _light(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Light an image and add a sensor's noise; H x W x 3 uint8."""
    lit = pixels * rng.uniform(0.7, 1.1) + rng.standard_normal(pixels.shape, np.float32) * rng.uniform(0.01, 0.05)
    return (np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8)
