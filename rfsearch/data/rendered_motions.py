"""Drawn scenes in motion with exact optical flow: a small set of image pairs that needs no download.

A background and shapes in front of it move, each by an affine motion of its own, between two images. Both images are
drawn from the same continuous textures and outlines, so the flow is known exactly, also of what the second image hides.

Made so that the receptive field matters. Displacements run from parts of a pixel to a good third of the image, so
that a network whose units see little cannot see where a pixel has moved to. Some shapes have next to no texture: their
motion is only seen at their outlines. And a neighbour's motion says little: shapes of 1/8 to 1/2 of the image overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from rfsearch.data.base import Count, Embedded, split_counts
from rfsearch.data.image_set import ImageSet, Size, Split
from rfsearch.errors import DataError

_NOTICE = "The image pairs are rendered drawings in motion: scores on them say nothing about real scenes."
_SIZE = (96, 96)  # H, W, px
_LEAST_SIDE = 32  # px; shapes would be a few pixels large
_WAVES = 7  # plane waves of a texture
_SHORTEST, _LONGEST = 6.0, 32.0  # their wavelengths, px
_MARGIN = 1.5  # px around a shape, in which its edge is soft


class RenderedMotions(Embedded):
    """Draw pairs of images with exact flow when they are needed: no download.

    Args:
        rendered: Number of pairs of train, val and test.
    """

    channels: ClassVar[int] = 6

    rendered: tuple[Count, Count, Count] = (512, 128, 128)

    def held_bytes(self, size: Size | None) -> int:
        """Return the memory that the pairs will take, in bytes."""
        height, width = size or _SIZE
        return sum(self.rendered) * (self.channels + 2 * 4) * height * width

    def make(self, size: Size | None) -> ImageSet:
        """Make the pairs."""
        return rendered_motions(*self.rendered, size=size or _SIZE)


def rendered_motions(train: int = 512, val: int = 128, test: int = 128, size: Size = _SIZE, seed: int = 0) -> ImageSet:
    """Draw pairs of images, 6 x H x W, and their flow, 2 x H x W float32, px.

    Pair i of a split depends on the seed, the split and i alone, not on how many there are. It is equal to the bit on
    one machine; another processor's arithmetic may differ in a last bit of a few pixels.

    Args:
        train: Number of training pairs.
        val: Number of validation pairs.
        test: Number of test pairs.
        size: (H, W) px.
        seed: Of all random numbers.

    Raises:
        DataError: There are too few pairs, or they are too small.
    """
    counts = split_counts("rendered motions", train, val, test, "pair")
    if min(size) < _LEAST_SIDE:
        raise DataError(f"rendered motions: shapes vanish below {_LEAST_SIDE} px. Got (H, W) {size}.")
    splits = {
        title: _split(title, np.random.SeedSequence(seed, spawn_key=(k,)), count, size)
        for k, (title, count) in enumerate(counts.items())
        if count
    }
    return ImageSet("rendered-motions", (), None, splits, True, notice=_NOTICE)


def _split(title: str, root: np.random.SeedSequence, count: int, size: Size) -> Split:
    images = np.empty((count, 6, *size), np.uint8)
    flows = np.empty((count, 2, *size), np.float32)
    for i, child in enumerate(root.spawn(count)):
        pair = draw_pair(np.random.default_rng(child), size)
        images[i, :3], images[i, 3:] = pair.first.transpose(2, 0, 1), pair.second.transpose(2, 0, 1)
        flows[i] = pair.flow.transpose(2, 0, 1)
    return Split(images, flows, tuple(f"{title}-{i:05d}" for i in range(count)))


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """Hold two drawn images and how the first moves to the second.

    Args:
        first, second: H x W x 3 uint8.
        flow: H x W x 2 float32: how far what a pixel of the first shows moves to the right and downwards, px.
        layers: What was drawn, the farthest first.
        top: H x W, the number of the layer that each pixel of the first shows.
    """

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    layers: Sequence[_Layer]
    top: np.ndarray

    @cached_property
    def visible(self) -> np.ndarray:
        """Say for each pixel of the first image whether the second shows it too, H x W bool."""
        height, width = self.top.shape
        x, y = _grid((height, width))
        x, y = x + self.flow[..., 0], y + self.flow[..., 1]
        result: np.ndarray = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        for k, layer in enumerate(self.layers):
            result &= (self.top >= k) | (layer.distance(*layer.motion.back(x, y)) >= 0)
        return result


def draw_pair(rng: np.random.Generator, size: Size) -> DrawnPair:
    """Draw one pair: a background, and three to seven shapes in front of it.

    Args:
        rng: Decides all of it.
        size: (H, W) px.
    """
    short = min(size)
    scene = _Motion.random(rng, (size[1] / 2, size[0] / 2), short, (0.004, 0.15))
    layers = [_Layer(_Texture.random(rng), scene)]
    for _ in range(rng.integers(3, 8)):
        outline = _Outline.random(rng, size)
        own = _Motion.random(rng, (outline.x, outline.y), short, (0.01, 0.38))
        layers.append(_Layer(_Texture.random(rng), own.after(scene), outline))
    first, top = _drawn(layers, size, moved=False)
    second, _ = _drawn(layers, size, moved=True)
    x, y = _grid(size)
    to_x, to_y = np.empty(size), np.empty(size)
    for k, layer in enumerate(layers):
        shown = top == k
        to_x[shown], to_y[shown] = layer.motion.forth(x[shown], y[shown])
    return DrawnPair(first, second, np.stack([to_x - x, to_y - y], axis=2).astype(np.float32), layers, top)


@dataclass(frozen=True)
class _Motion:
    """Move places p to matrix p + shift, px."""

    matrix: tuple[float, float, float, float]
    shift: tuple[float, float]

    @classmethod
    def random(
        cls, rng: np.random.Generator, centre: tuple[float, float], short: int, lengths: tuple[float, float]
    ) -> _Motion:
        """Turn and zoom about a centre, and shift.

        Args:
            rng: Decides all of it.
            centre: (x, y) px.
            short: Shorter side of the image, px.
            lengths: Bounds of the shift as shares of that, log-uniform in between.
        """
        least, most = lengths
        length = short * math.exp(rng.uniform(math.log(least), math.log(most)))
        way, turn, zoom = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.06), math.exp(rng.normal(0, 0.04))
        a, b = zoom * math.cos(turn), zoom * math.sin(turn)
        x, y = centre
        shift = x - a * x + b * y + length * math.cos(way), y - b * x - a * y + length * math.sin(way)
        return cls((a, -b, b, a), shift)

    def after(self, other: _Motion) -> _Motion:
        """Return the motion that does the other one first."""
        (a, b, c, d), (e, f, g, h) = self.matrix, other.matrix
        product = a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h
        x, y = self.forth(np.array(other.shift[0]), np.array(other.shift[1]))
        return _Motion(product, (float(x), float(y)))

    def forth(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where places go."""
        a, b, c, d = self.matrix
        return a * x + b * y + self.shift[0], c * x + d * y + self.shift[1]

    def back(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where places come from."""
        a, b, c, d = self.matrix
        x, y, area = x - self.shift[0], y - self.shift[1], a * d - b * c
        return (d * x - b * y) / area, (a * y - c * x) / area


@dataclass(frozen=True, eq=False)
class _Texture:
    """Colour every place, as a sum of plane waves: colour + cos(waves p + phases) amplitudes."""

    colour: np.ndarray  # 3
    waves: np.ndarray  # 2 x n, radian a px
    phases: np.ndarray  # n
    amplitudes: np.ndarray  # n x 3

    @classmethod
    def random(cls, rng: np.random.Generator) -> _Texture:
        length = np.exp(rng.uniform(math.log(_SHORTEST), math.log(_LONGEST), _WAVES))
        way = rng.uniform(0, 2 * math.pi, _WAVES)
        waves = 2 * math.pi / length * np.stack([np.cos(way), np.sin(way)])
        contrast = 0.02 if rng.random() < 0.25 else rng.uniform(0.06, 0.16)
        colours = rng.normal(0, 0.4, (_WAVES, 3)) + rng.choice((-1, 1), (_WAVES, 1))  # mostly light and dark
        return cls(
            rng.uniform(0.2, 0.8, 3),
            waves,
            rng.uniform(0, 2 * math.pi, _WAVES),
            (contrast * colours).astype(np.float32),
        )

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the colours of places, H x W: H x W x 3."""
        angles = x[..., None] * self.waves[0] + y[..., None] * self.waves[1] + self.phases
        result: np.ndarray = self.colour + np.cos(angles.astype(np.float32)) @ self.amplitudes
        return result


@dataclass(frozen=True)
class _Outline:
    """Bound a shape around a centre, px: a radius that waves as it goes round, wider along one axis."""

    x: float
    y: float
    radius: float
    stretch: float
    angle: float
    lobes: int
    depth: float

    @classmethod
    def random(cls, rng: np.random.Generator, size: Size) -> _Outline:
        radius = min(size) * math.exp(rng.uniform(math.log(0.06), math.log(0.24)))
        return cls(
            x=rng.uniform(0, size[1]),
            y=rng.uniform(0, size[0]),
            radius=radius,
            stretch=rng.uniform(1, 1.6),
            angle=rng.uniform(0, math.pi),
            lobes=int(rng.integers(2, 7)),
            depth=rng.uniform(0, 0.25),
        )

    @property
    def reach(self) -> float:
        """Return how far the shape is from its centre at most, px."""
        return self.radius * self.stretch * (1 + self.depth)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return about how far places are outside, px; below 0 inside."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u = ((x - self.x) * cos + (y - self.y) * sin) / self.stretch
        v = (y - self.y) * cos - (x - self.x) * sin
        bound = self.radius * (1 + self.depth * np.cos(self.lobes * np.arctan2(v, u)))
        result: np.ndarray = np.hypot(u, v) - bound
        return result


@dataclass(frozen=True, eq=False)
class _Layer:
    """Move a textured shape; without an outline it is everywhere. Texture and outline are as in the first image."""

    texture: _Texture
    motion: _Motion
    outline: _Outline | None = None

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.full(x.shape, -np.inf) if self.outline is None else self.outline.distance(x, y)

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Return where the shape's centre is in the second image, px."""
        assert self.outline is not None
        x, y = self.motion.forth(np.array(self.outline.x), np.array(self.outline.y))
        return float(x), float(y)

    def window(self, size: Size, moved: bool) -> tuple[slice, slice]:
        """Return the rows and columns of the image in which the shape lies, before or after its motion."""
        if self.outline is None:
            return slice(0, size[0]), slice(0, size[1])
        x, y = self.centre if moved else (self.outline.x, self.outline.y)
        a, b, *_ = self.motion.matrix
        r = self.outline.reach * (math.hypot(a, b) if moved else 1.0) + _MARGIN
        rows, columns = (
            slice(int(min(max(at - r, 0), side)), int(min(max(at + r + 1, 0), side)))
            for at, side in ((y, size[0]), (x, size[1]))
        )
        return rows, columns


def _grid(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel's centre, H x W each."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return x, y


def _drawn(layers: list[_Layer], size: Size, moved: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw the layers, each over those before it: H x W x 3 uint8, and the number of the one that each pixel shows."""
    pixels, top = np.zeros((*size, 3)), np.zeros(size, np.int64)
    x, y = _grid(size)
    for k, layer in enumerate(layers):
        window = layer.window(size, moved)
        places = x[window], y[window]
        if moved:
            places = layer.motion.back(*places)
        distance = layer.distance(*places)
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]  # a pixel soft; what it shows is not
        pixels[window] += alpha * (layer.texture.at(*places) - pixels[window])
        top[window][distance < 0] = k
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8), top
