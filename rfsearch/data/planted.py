"""Labels with a known answer: a hidden convolution of a given dilation made them, from images that are noise.

Images have the spectrum of photographs, whose amplitude falls with frequency. A teacher of fixed random weights says
which class each pixel has: a 3 x 3 convolution with taps `dilation` px apart, a tanh, and a mixture of its channels.
A network whose convolution reads elsewhere cannot know. The dilation may be a real number: then taps are interpolated.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from rfsearch.data.base import Count, Embedded, split_counts
from rfsearch.data.image_set import ImageSet, Size, Split
from rfsearch.errors import DataError

CLASSES = tuple(f"class {k}" for k in range(1, 7))

_NOTICE = "The labels were made by a hidden convolution: scores say how well it was found, and nothing about images."
_SIZE = (48, 48)  # H, W, px
_CHANNELS, _FEATURES = 3, 12
_SHARPENED = 1.5  # of the teacher's features: a tanh that bends
_SAMPLE = 32  # images whose logits say by how much each class is weighed, so that all are about as frequent
_GREY, _CONTRAST = 128.0, 48.0  # mean and standard deviation of the images


class Planted(Embedded):
    """Make images and labels of which the best receptive field is known.

    Args:
        rendered: Number of images of train, val and test.
        dilation: Distance between the taps of the hidden convolution, px.
        seed: Of all random numbers, the hidden weights among them.
    """

    rendered: tuple[Count, Count, Count] = (256, 64, 128)
    dilation: float = Field(default=4.0, ge=1.0, le=64.0)
    seed: int = Field(default=0, ge=0)

    def held_bytes(self, size: Size | None) -> int:
        """Return the memory that the images will take, in bytes."""
        height, width = size or _SIZE
        return sum(self.rendered) * (_CHANNELS + 1) * height * width

    def make(self, size: Size | None) -> ImageSet:
        """Make the images."""
        return planted(*self.rendered, size=size or _SIZE, dilation=self.dilation, seed=self.seed)


def planted(
    train: int = 256, val: int = 64, test: int = 128, size: Size = _SIZE, dilation: float = 4.0, seed: int = 0
) -> ImageSet:
    """Make images and labels of which the best dilation is known.

    Image i of a split depends on the seed, the split and i alone, not on how many there are.

    Args:
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        size: (H, W) px.
        dilation: Distance between the taps of the hidden convolution, px.
        seed: Of all random numbers.

    Raises:
        DataError: There are too few images, or the hidden convolution reaches from one side to the other.
    """
    counts = split_counts("planted", train, val, test)
    if min(size) <= 2 * dilation:
        raise DataError(f"planted: taps {dilation:g} px apart need sides of more than {2 * dilation:g} px. Got {size}.")
    roots = {title: np.random.SeedSequence(seed, spawn_key=(k,)) for k, title in enumerate(("teacher", *counts))}
    teacher = _Teacher(np.random.default_rng(roots["teacher"]), size, dilation)
    splits = {title: _split(title, roots[title], count, size, teacher) for title, count in counts.items() if count}
    return ImageSet("planted", CLASSES, None, splits, True, (), _NOTICE)


def _split(title: str, root: np.random.SeedSequence, count: int, size: Size, teacher: _Teacher) -> Split:
    images = np.empty((count, _CHANNELS, *size), np.uint8)
    labels = np.empty((count, *size), np.uint8)
    for i, child in enumerate(root.spawn(count)):
        images[i] = _image(np.random.default_rng(child), size)
        labels[i] = teacher.logits(images[i]).argmax(axis=0)
    return Split(images, labels, tuple(f"{title}-{i:05d}" for i in range(count)))


def _image(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Draw C x H x W uint8 noise whose amplitude falls with 1 / frequency, cut out of a wider map, which repeats."""
    height, width = 2 * size[0], 2 * size[1]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = math.inf
    spectrum = np.fft.rfft2(rng.standard_normal((_CHANNELS, height, width))) / frequency
    drawn = np.fft.irfft2(spectrum, s=(height, width))[:, : size[0], : size[1]]
    drawn *= _CONTRAST / drawn.std(axis=(1, 2), keepdims=True)
    return np.clip(drawn + _GREY + 0.5, 0, 255).astype(np.uint8)


class _Teacher:
    """Hold the hidden convolution and what mixes its channels."""

    def __init__(self, rng: np.random.Generator, size: Size, dilation: float) -> None:
        """Draw the weights, and weigh the classes so that all are about as frequent."""
        fan = _CHANNELS * 9
        self._dilation = dilation
        self._taps = _SHARPENED * rng.standard_normal((_FEATURES, _CHANNELS, 3, 3)) / math.sqrt(fan)
        self._mixture = rng.standard_normal((len(CLASSES), _FEATURES)) / math.sqrt(_FEATURES)
        self._mean, self._spread = np.zeros((len(CLASSES), 1, 1)), np.ones((len(CLASSES), 1, 1))
        sample = np.stack([self.logits(_image(rng, size)) for _ in range(_SAMPLE)])
        self._mean = sample.mean(axis=(0, 2, 3))[:, None, None]
        self._spread = sample.std(axis=(0, 2, 3))[:, None, None]

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return K x H x W logits of a C x H x W uint8 image; what lies outside of it is grey."""
        x = (image - _GREY) / _CONTRAST
        reach = math.ceil(self._dilation)
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        features = np.zeros((_FEATURES, *x.shape[1:]))
        for row in range(3):
            for column in range(3):
                read = _shifted(padded, (row - 1) * self._dilation, (column - 1) * self._dilation, reach)
                features += np.einsum("fc,chw->fhw", self._taps[:, :, row, column], read)
        mixed: np.ndarray = np.einsum("kf,fhw->khw", self._mixture, np.tanh(features))
        return (mixed - self._mean) / self._spread


def _shifted(padded: np.ndarray, down: float, across: float, reach: int) -> np.ndarray:
    """Return what lies so many px down and across of each pixel, bilinear between pixels.

    Args:
        padded: C x (H + 2 reach) x (W + 2 reach).
        down: Pixels down, at most `reach` either way.
        across: Pixels to the right, likewise.
        reach: Width of the padding, px.
    """
    height, width = padded.shape[1] - 2 * reach, padded.shape[2] - 2 * reach
    read = np.zeros((len(padded), height, width))
    for top, vertical in _neighbours(down):
        for left, horizontal in _neighbours(across):
            y, x = reach + top, reach + left
            read += vertical * horizontal * padded[:, y : y + height, x : x + width]
    return read


def _neighbours(shift: float) -> list[tuple[int, float]]:
    """Return the whole shifts on either side of a real one, with their shares of it."""
    whole = math.floor(shift)
    share = shift - whole
    return [(whole, 1.0)] if share == 0 else [(whole, 1.0 - share), (whole + 1, share)]
