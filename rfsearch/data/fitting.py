"""Choose the one size of an image set, and lay pictures of other sizes on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from rfsearch.data.image_set import Size
from rfsearch.data.picture_files import Header

Resize = Literal["stretch", "crop", "pad"]

MEAN_COLOUR = (124, 116, 104)  # 255 x batches.MEAN: 0 once normalised, like what augmentation moves in from outside
PADDED = 255  # the label of padding where nothing else is ignored

_SAME_SHAPE = 1.02  # aspect ratios that differ by less are one


@dataclass(frozen=True)
class Fit:
    """Say how a picture lands on a canvas.

    Args:
        box: Part of the picture that is used, (left, upper, right, lower) px, real numbers.
        size: Size that it gets, (H, W) px.
        corner: Where it lands on the canvas, (left, upper) px.
        canvas: Size of the canvas, (H, W) px.
    """

    box: tuple[float, float, float, float]
    size: Size
    corner: tuple[int, int]
    canvas: Size

    def lay(self, image: Image.Image, how: Image.Resampling, outside: float | tuple[int, ...]) -> Image.Image:
        """Resize a picture, and fill what it leaves of the canvas with `outside`."""
        height, width = self.size
        if image.size != (width, height) or self.box != (0, 0, width, height):
            image = image.resize((width, height), how, self.box)
        if self.size == self.canvas:
            return image
        canvas = Image.new(image.mode, self.canvas[::-1], outside)
        canvas.paste(image, self.corner)
        return canvas


def fit(source: Size, target: Size, resize: Resize) -> Fit:
    """Place a picture of one size on a canvas of another, (H, W) px each.

    stretch: its sides are brought to the canvas's, each by itself. crop: it keeps its shape, covers the canvas, and
    loses what is outside the centre. pad: it keeps its shape and lies whole in the middle of the canvas.
    """
    (height, width), (high, wide) = source, target
    whole = (0.0, 0.0, float(width), float(height))
    if resize == "crop":
        scale = max(high / height, wide / width)
        left, upper = max(0.0, (width - wide / scale) / 2), max(0.0, (height - high / scale) / 2)
        return Fit((left, upper, width - left, height - upper), target, (0, 0), target)
    if resize == "pad":
        scale = min(high / height, wide / width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return Fit(whole, size, ((wide - size[1]) // 2, (high - size[0]) // 2), target)
    return Fit(whole, target, (0, 0), target)


def choose_size(headers: Mapping[Path, Header], asked: Size | None, resize: Resize) -> tuple[Size | None, str]:
    """Choose the size that all images get: the one asked for, or else the one that most of them have.

    Returns:
        (H, W) px, None where no image can be read; and a sentence where that changes an image's shape or size unasked.
    """
    sizes = Counter(header.size for header in headers.values())
    if not sizes:
        return asked, ""
    ranked = sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
    target = asked or ranked[0][0]
    misshapen = {size: count for size, count in ranked if not _same_shape(size, target)}
    effect = _effect(misshapen, target, resize)
    if asked is not None or len(ranked) == 1:
        return target, effect
    others = ", ".join(f"{w} x {h} ({n})" for (h, w), n in ranked[1:4]) + (", ..." if len(ranked) > 4 else "")
    note = (
        f"The images have {len(ranked)} sizes and were all resized to the most common one, "
        f"{target[1]} x {target[0]} px (W x H, {ranked[0][1]} images; others: {others}). Set image_size to choose "
        "another."
    )
    return target, f"{note} {effect}".strip()


def _same_shape(size: Size, other: Size) -> bool:
    ratio = size[0] * other[1] / (size[1] * other[0])
    return 1 / _SAME_SHAPE < ratio < _SAME_SHAPE


def _effect(misshapen: Mapping[Size, int], target: Size, resize: Resize) -> str:
    """Say what resizing does to the images of another shape than the target's, by the most common of their sizes."""
    if not misshapen:
        return ""
    (height, width), total = next(iter(misshapen)), sum(misshapen.values())
    images = f"{total} image{'s' if total > 1 else ''} (most commonly {width} x {height} px, W x H)"
    canvas = f"{target[1]} x {target[0]} px"
    placed = fit((height, width), target, resize)
    if resize == "crop":
        left, upper, right, lower = placed.box
        lost = 1 - (right - left) * (lower - upper) / (height * width)
        return f"{images} lose {lost:.0%} of their area, outside their centre, to {canvas}."
    if resize == "pad":
        share = 1 - placed.size[0] * placed.size[1] / (target[0] * target[1])
        return f"{images} are padded to {canvas}: {share:.0%} of the area is ignored pixels."
    return (
        f"{images} are squashed to {canvas}, which distorts shapes. To keep them, set in [data] of the "
        'space\'s file: resize = "crop" or "pad".'
    )
