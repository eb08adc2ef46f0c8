"""Drawn faces with exact labels: a small face parsing set that needs no download.

Made so that the receptive field matters. The two eyes, and the two brows, are drawn by the same routine, each alike
on both its sides, so nothing within an eye tells which one it is: only its place in the face does. Eyes, brows and
mouths without a face, partly on patches of skin colour, lie about in the background and are background. Neck and ears
have the skin's colour and are background too, as in Helen. And the parts are small: an eye is 9 to 17 px wide at 96.

'Left' is the viewer's left: in an upright face the left eye has the smaller column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rfsearch.data.base import Count, Embedded, split_counts
from rfsearch.data.helen import HELEN_CLASSES, HELEN_FLIP_PAIRS
from rfsearch.data.image_set import ImageSet, Size, Split
from rfsearch.errors import DataError

_NOTICE = "The images are rendered drawings of faces, no photographs: scores on them say nothing about real faces."

_BACKGROUND, _SKIN, _LEFT_BROW, _RIGHT_BROW, _LEFT_EYE, _RIGHT_EYE = range(6)
_NOSE, _UPPER_LIP, _INNER, _LOWER_LIP, _HAIR = range(6, 11)

_SKIN_TONES = ((0.98, 0.84, 0.74), (0.90, 0.71, 0.58), (0.78, 0.57, 0.43), (0.58, 0.40, 0.29), (0.38, 0.25, 0.18))
_HAIR_TONES = ((0.08, 0.07, 0.07), (0.25, 0.16, 0.10), (0.45, 0.29, 0.16), (0.80, 0.66, 0.40), (0.55, 0.24, 0.12),
               (0.66, 0.65, 0.64), (0.25, 0.30, 0.55))  # fmt: skip

_SIZE = (96, 96)  # H, W, px

Rgb = np.ndarray
Window = tuple[slice, slice]


class RenderedFaces(Embedded):
    """Draw faces with exact labels when they are needed: no download.

    Args:
        rendered: Number of images of train, val and test.
    """

    rendered: tuple[Count, Count, Count] = (512, 128, 128)

    def held_bytes(self, size: Size | None) -> int:
        """Return the memory that the images will take, in bytes."""
        height, width = size or _SIZE
        return sum(self.rendered) * 4 * height * width

    def make(self, size: Size | None) -> ImageSet:
        """Make the images."""
        return rendered_faces(*self.rendered, size=size or _SIZE)


def rendered_faces(train: int = 512, val: int = 128, test: int = 128, size: Size = _SIZE, seed: int = 0) -> ImageSet:
    """Draw one face per image, in Helen's 11 classes, random in pose, size, place, hair, expression, light and clutter.

    Image i of a split depends on the seed, the split and i alone, not on how many there are. It is equal to the bit on
    one machine; another processor's arithmetic may differ in a last bit of a few pixels.

    Args:
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        size: (H, W) px. A face is 62 % to 95 % of the shorter side high.
        seed: Of all random numbers.

    Raises:
        DataError: There are too few images, or they are too small for a face's parts.
    """
    counts = split_counts("rendered faces", train, val, test)
    if min(size) < 32:
        raise DataError(f"rendered faces: the parts vanish below 32 px. Got (H, W) {size}.")
    splits = {
        title: _split(title, np.random.SeedSequence(seed, spawn_key=(k,)), count, size)
        for k, (title, count) in enumerate(counts.items())
        if count
    }
    return ImageSet("rendered-faces", HELEN_CLASSES, None, splits, True, HELEN_FLIP_PAIRS, _NOTICE)


def _split(title: str, root: np.random.SeedSequence, count: int, size: Size) -> Split:
    images = np.empty((count, 3, *size), np.uint8)
    labels = np.empty((count, *size), np.uint8)
    for i, child in enumerate(root.spawn(count)):
        image, labels[i] = _draw(np.random.default_rng(child), size)
        images[i] = image.transpose(2, 0, 1)
    return Split(images, labels, tuple(f"{title}-{i:05d}" for i in range(count)))


class _Canvas:
    """Hold what is drawn: `pixels`, H x W x 3 in 0..1, and `labels`, H x W class ids."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.pixels = np.zeros((*size, 3), np.float32)
        self.labels = np.zeros(size, np.uint8)

    def cover(self, window: Window, distance: np.ndarray, colour: Rgb, part: int | None = None) -> None:
        """Paint where the signed distance (px) is below 0; the image's edge is a pixel soft, the label's is not."""
        alpha = np.minimum(np.maximum(0.5 - distance, 0), 1)[..., None]  # np.clip takes longer to call than to clip
        pixels = self.pixels[window]
        pixels += alpha * (colour - pixels)
        if part is not None:
            self.labels[window][distance < 0] = part


@dataclass(frozen=True)
class _Frame:
    """Place what is drawn: (x, y) px of its origin, px per unit, and its turn against the image (radian)."""

    x: float
    y: float
    unit: float
    angle: float

    def at(self, u: float, v: float, turn: float = 0.0) -> _Frame:
        """Return this frame with its origin moved to (u, v) and turned."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = self.x + self.unit * (u * cos - v * sin), self.y + self.unit * (u * sin + v * cos)
        return _Frame(x, y, self.unit, self.angle + turn)

    def window(self, size: Size, reach: float) -> tuple[Window, np.ndarray, np.ndarray]:
        """Return the pixels within `reach` units of the origin along the image's axes, and their frame coordinates."""
        r = reach * self.unit + 1.5
        top, bottom = (int(min(max(edge, 0), size[0])) for edge in (self.y - r, self.y + r + 1))
        left, right = (int(min(max(edge, 0), size[1])) for edge in (self.x - r, self.x + r + 1))
        dx = (np.arange(left, right, dtype=np.float32) - self.x) / self.unit
        dy = (np.arange(top, bottom, dtype=np.float32) - self.y)[:, None] / self.unit
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (slice(top, bottom), slice(left, right)), dx * cos + dy * sin, dy * cos - dx * sin


Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]  # frame coordinates -> signed distance in units


def _ellipse(a: float, b: float) -> Shape:
    return lambda u, v: (np.hypot(u / a, v / b) - 1) * min(a, b)


def _bar(half_width: float, half_height: float, bend: float = 0.0) -> Shape:
    """Return the shape of a rounded bar, its middle raised against its ends by `bend`."""

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        along = np.maximum(np.abs(u) - (half_width - half_height), 0)
        result: np.ndarray = np.hypot(along, v - (bend / half_width**2) * u * u) - half_height
        return result

    return distance


def _lens(half_width: float, half_height: float) -> Shape:
    """Return the shape of a lens, pointed at both ends like an opened eye."""

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.abs(v) - half_height * (1 - (u / half_width) ** 2)
        return result

    return distance


def _paint(canvas: _Canvas, frame: _Frame, reach: float, shape: Shape, colour: Rgb, part: int | None = None) -> None:
    window, u, v = frame.window(canvas.size, reach)
    canvas.cover(window, shape(u, v) * frame.unit, colour, part)


@dataclass(frozen=True)
class _Look:
    """Say what the parts of one face look like. Lengths are in units, half a head's height."""

    skin: Rgb
    hair: Rgb
    iris: Rgb
    lip: Rgb
    eye_width: float
    eye_height: float
    gaze: float
    brow_width: float
    brow_height: float
    brow_bend: float
    mouth_width: float
    opening: float
    lips: tuple[float, float]
    smile: float
    teeth: bool

    @classmethod
    def random(cls, rng: np.random.Generator) -> _Look:
        tone = rng.uniform(0, len(_SKIN_TONES) - 1)
        low = min(int(tone), len(_SKIN_TONES) - 2)
        skin = np.array(_SKIN_TONES[low]) * (low + 1 - tone) + np.array(_SKIN_TONES[low + 1]) * (tone - low)
        skin = skin + rng.uniform(-0.04, 0.04, 3)
        hair = np.array(_HAIR_TONES[rng.integers(len(_HAIR_TONES))]) + rng.uniform(-0.05, 0.05, 3)
        red = np.array((0.75, 0.25, 0.28))
        eye_width = rng.uniform(0.165, 0.2)
        return cls(
            skin=_colour(skin),
            hair=_colour(hair),
            iris=_colour(np.array((0.25, 0.20, 0.15)) + rng.uniform(-0.15, 0.30, 3)),
            lip=_colour(skin * 0.9 + (red - skin) * rng.uniform(0.2, 0.75)),
            eye_width=eye_width,
            eye_height=eye_width * rng.uniform(0.5, 0.75),
            gaze=rng.uniform(-0.35, 0.35),
            brow_width=rng.uniform(0.18, 0.24),
            brow_height=rng.uniform(0.05, 0.08),
            brow_bend=rng.uniform(0.0, 0.07),
            mouth_width=rng.uniform(0.22, 0.34),
            opening=0.0 if rng.random() < 0.5 else rng.uniform(0.05, 0.17),
            lips=(rng.uniform(0.07, 0.1), rng.uniform(0.08, 0.12)),
            smile=rng.uniform(-0.05, 0.10),
            teeth=bool(rng.random() < 0.6),
        )


def _colour(rgb: np.ndarray) -> Rgb:
    result: Rgb = np.clip(rgb, 0.02, 0.98).astype(np.float32)
    return result


def _eye(canvas: _Canvas, frame: _Frame, look: _Look, part: int | None) -> None:
    a, b = look.eye_width, look.eye_height
    white = _colour(np.array((0.93, 0.92, 0.90)) * 0.9 + look.skin * 0.1)
    window, u, v = frame.window(canvas.size, a * 1.25)
    unit = frame.unit
    opening = _lens(a, b)(u, v) * unit
    canvas.cover(window, opening - 0.02 * unit, look.skin * 0.45)  # the lids' shadow
    canvas.cover(window, opening, white, part)
    offset = look.gaze * a
    ball = np.hypot(u - offset, v)
    canvas.cover(window, np.maximum((ball - 0.9 * b) * unit, opening), look.iris)
    canvas.cover(window, np.maximum((ball - 0.45 * b) * unit, opening), np.full(3, 0.03, np.float32))


def _brow(canvas: _Canvas, frame: _Frame, look: _Look, part: int | None) -> None:
    shape = _bar(look.brow_width, look.brow_height, look.brow_bend)
    _paint(canvas, frame, look.brow_width * 1.2, shape, look.hair * 0.8, part)


def _mouth(canvas: _Canvas, frame: _Frame, look: _Look, parts: tuple[int, int, int] | None) -> None:
    """Draw a mouth; parts are the ids of upper lip, inner mouth and lower lip. A closed mouth has no inner mouth."""
    upper, inner, lower = parts or (None, None, None)
    w, gap, unit = look.mouth_width, look.opening / 2, frame.unit
    window, u, v = frame.window(canvas.size, w * 1.15)
    across = u / w
    rise = 1 - across * across
    v = v + look.smile * (across * across - 0.5)  # the corners go up
    bow = look.lips[0] * (1 - 0.25 * np.exp(-((across * 6) ** 2)))  # the dip in the middle
    canvas.cover(window, np.maximum(-v - (gap + bow) * rise, v) * unit, look.lip * 0.85, upper)
    canvas.cover(window, np.maximum(v - (gap + look.lips[1]) * rise, -v) * unit, look.lip, lower)
    hole = (np.abs(v) - gap * rise) * unit
    if look.opening:
        canvas.cover(window, hole, np.array((0.20, 0.05, 0.05), np.float32), inner)
        if look.teeth:
            teeth = np.maximum(hole + 0.3, (v + 0.1 * gap) * unit)
            canvas.cover(window, teeth, np.array((0.92, 0.90, 0.85), np.float32))
    else:
        line = np.maximum(np.abs(v) * unit - 0.5, (np.abs(across) - 1) * w * unit)
        canvas.cover(window, line, look.lip * 0.4)


def _nose(canvas: _Canvas, frame: _Frame, look: _Look, length: float, width: float, lit: float) -> None:
    """Draw a nose from between the eyes (v = 0) to below the nostrils (v = length); `lit` shifts its shadow."""

    def outline(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        share = np.clip(v / length, 0, 1)
        side = np.abs(u) - width * (0.38 + 0.62 * share**2)
        end = v - length + (0.35 * length / width**2) * u * u
        result: np.ndarray = np.maximum(np.maximum(side, end), -v)
        return result

    window, u, v = frame.at(0, length / 2).window(canvas.size, length * 0.75)
    v = v + length / 2
    unit = frame.unit
    shade = 1 + 0.10 * np.clip(u / width + lit, -1, 1) * math.copysign(1, lit)
    canvas.cover(window, outline(u, v) * unit, np.clip(look.skin * shade[..., None] * 0.94, 0, 1), _NOSE)
    for side in (-1, 1):
        nostril = frame.at(side * width * 0.45, length * 0.86)
        _paint(canvas, nostril, 0.08, _ellipse(0.05, 0.03), look.skin * 0.4)


def _background(canvas: _Canvas, rng: np.random.Generator, look: _Look) -> None:
    """Draw a gradient, plain shapes, and parts of faces where no face is."""
    height, width = canvas.size
    short = min(height, width)
    here, there = (rng.uniform(0.05, 0.95, 3).astype(np.float32) for _ in range(2))
    across = bool(rng.random() < 0.5)
    ramp = np.linspace(0, 1, width if across else height, dtype=np.float32)
    canvas.pixels[:] = here + (there - here) * ramp.reshape((1, -1, 1) if across else (-1, 1, 1))

    def somewhere(low: float, high: float, turn: float) -> _Frame:
        unit = rng.uniform(low, high) * short
        return _Frame(rng.uniform(0, width), rng.uniform(0, height), unit, rng.uniform(-turn, turn))

    for _ in range(rng.integers(3, 8)):
        a, b = rng.uniform(0.3, 1.0), rng.uniform(0.3, 1.0)
        shape = _ellipse(a, b) if rng.random() < 0.5 else _bar(1.0, 0.25 * a, rng.uniform(-0.3, 0.3))
        colour = look.skin if rng.random() < 0.25 else _colour(rng.uniform(0, 1, 3))
        _paint(canvas, somewhere(0.06, 0.22, math.pi), 1.1, shape, colour)
    for _ in range(rng.integers(2, 6)):
        decoy = look if rng.random() < 0.6 else _Look.random(rng)
        frame = somewhere(0.22, 0.47, 0.6)  # the size and turn of a face's parts
        if rng.random() < 0.6:
            _paint(canvas, frame, 0.6, _ellipse(rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.45)), decoy.skin)
        kind = rng.integers(4)
        if kind == 0:
            _mouth(canvas, frame, decoy, None)
        if kind in (1, 2):
            _eye(canvas, frame.at(0, 0.08), decoy, None)
        if kind in (2, 3):
            _brow(canvas, frame.at(0, -0.12), decoy, None)


def _streaks(u: np.ndarray, v: np.ndarray, hair: Rgb, rng: np.random.Generator) -> np.ndarray:
    """Return the hair's colour in strands."""
    turn, pitch = rng.uniform(0, math.pi), rng.uniform(14, 30)
    wave = np.sin(pitch * (u * math.cos(turn) + v * math.sin(turn)) + 2 * v)
    result: np.ndarray = np.clip(hair + rng.uniform(0.02, 0.09) * wave[..., None], 0, 1)
    return result


def _draw(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image, H x W x 3 uint8, and its label, H x W uint8."""
    canvas, look = _Canvas(size), _Look.random(rng)
    height, width = size
    _background(canvas, rng, look)

    unit = rng.uniform(0.62, 0.95) * min(size) / 2
    angle = max(-0.54, min(rng.normal(0, 0.22), 0.54))  # 31 degrees
    room_x, room_y = max(width / 2 - 0.62 * unit, 0), max(height / 2 - 0.9 * unit, 0)
    x, y = width / 2 + rng.uniform(-room_x, room_x), height / 2 + rng.uniform(-room_y, room_y)
    face = _Frame(x - 0.5, y - 0.5, unit, angle)
    yaw = rng.uniform(-1, 1)

    half, taper = rng.uniform(0.68, 0.78), rng.uniform(0.05, 0.22)
    window, u, v = face.window(size, 1.75)
    strands = _streaks(u, v, look.hair, rng)
    style = rng.choice(("none", "short", "full", "long", "bun"), p=(0.08, 0.32, 0.25, 0.25, 0.10))

    # Behind the face: hair, shoulders, neck, ears.
    if style in ("full", "long"):
        canvas.cover(window, _ellipse(half * 1.28, 1.16)(u, v + 0.08) * unit, strands, _HAIR)
    if style == "long":
        reach = rng.uniform(0.9, 1.5)
        curtain = np.maximum(np.abs(u) - half * 1.25, np.abs(v - 0.1) - (reach - 0.1))
        canvas.cover(window, np.maximum(curtain, -v) * unit, strands, _HAIR)
    if style == "bun":
        knot = (np.hypot(u, v + 1.15) - 0.3) * unit
        canvas.cover(window, knot, strands, _HAIR)
    torso = face.at(0, 0.6, -0.5 * angle)
    _paint(canvas, torso.at(0, 1.55), 1.3, _ellipse(1.25, 0.85), _colour(rng.uniform(0, 1, 3)), _BACKGROUND)
    _paint(canvas, torso, 0.85, _ellipse(half * 0.55, 0.85), look.skin * 0.82, _BACKGROUND)
    if style not in ("full", "long"):
        for side in (-1, 1):
            ear = face.at(side * half, 0.02)
            _paint(canvas, ear, 0.3, _ellipse(0.11, 0.2), look.skin * 0.88, _BACKGROUND)

    # The face: narrower towards the chin, darker towards its edge.
    breadth = half * (1 - taper * np.clip(v, 0, 1) ** 2)
    radius = np.hypot(u / breadth, v)
    rim = 1.03 - 0.16 * radius**4
    canvas.cover(window, (radius - 1) * half * unit, np.clip(look.skin * rim[..., None], 0, 1), _SKIN)

    # The features, shifted and narrowed by the turn of the head.
    shift = 0.17 * yaw
    spread = rng.uniform(0.29, 0.35) * (1 - 0.12 * abs(yaw))
    eye_v, brow_gap = rng.uniform(-0.16, -0.06), rng.uniform(0.17, 0.25)
    for side, brow, eye in ((-1, _LEFT_BROW, _LEFT_EYE), (1, _RIGHT_BROW, _RIGHT_EYE)):
        centre = shift + side * spread
        _brow(canvas, face.at(centre, eye_v - brow_gap, rng.uniform(-0.2, 0.2)), look, brow)
        _eye(canvas, face.at(centre, eye_v, rng.uniform(-0.12, 0.12)), look, eye)
    length, lit = rng.uniform(0.38, 0.48), rng.uniform(0.1, 0.6) * (-1 if rng.random() < 0.5 else 1)
    _nose(canvas, face.at(shift * 1.3, eye_v - 0.01), look, length, rng.uniform(0.15, 0.2), lit)
    mouth = face.at(shift * 1.1, eye_v + length + rng.uniform(0.22, 0.28))
    _mouth(canvas, mouth, look, (_UPPER_LIP, _INNER, _LOWER_LIP))

    # In front of the face: the hair above the hairline.
    if style != "none":
        line = rng.uniform(-0.68, -0.52)
        sweep, arch = rng.uniform(-0.25, 0.25), rng.uniform(0.1, 0.9)
        hairline = line + sweep * u + arch * u * u
        scalp = (np.hypot(u / (half * 1.1), v + 0.03) - 1.07) * half
        canvas.cover(window, np.maximum(scalp, v - hairline) * unit, strands, _HAIR)

    return _light(canvas.pixels, rng), canvas.labels


def _light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light an image: gain, a gradient across it, a colour cast, and a sensor's noise; H x W x 3 uint8."""
    height, width, _ = pixels.shape
    turn, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.35)
    across = np.linspace(-1, 1, width, dtype=np.float32) * (strength * math.cos(turn))
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * (strength * math.sin(turn))
    cast = (rng.uniform(0.65, 1.15) * rng.uniform(0.88, 1.12, 3)).astype(np.float32)
    lit = pixels * ((1 + across + down)[..., None] * cast)
    lit += rng.standard_normal(pixels.shape, np.float32) * rng.uniform(0.008, 0.05)
    return (np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8)
