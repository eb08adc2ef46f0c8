"""Training and evaluation batches as tensors.

A training batch is a function of the seed and the step, and of nothing else: a resumed training asks for the next
step and gets what an uninterrupted one would have got. What the images are labelled with is the task's business: it
makes targets of a split's stored arrays, and moves them as the images were moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rfsearch.data.image_set import Split

Target = TypeVar("Target")

# Mean and standard deviation of ImageNet's training images, RGB in 0..1, as published with torchvision's weights
# (torchvision documentation, "Models and pre-trained weights").
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_EPOCH, _STEP = 0, 1  # keep the two streams of random numbers apart


@dataclass(frozen=True)
class Augment:
    """Say how each training image is changed at random; the defaults change nothing.

    Args:
        flip: Whether half of the images are mirrored.
        scale: Bounds of the zoom, log-uniform; above 1 enlarges.
        shift: Largest displacement, as a fraction of the image's side.
        brightness: Largest amount added, 1 = from black to white.
        contrast: Largest relative change about mid-grey.
        crop: H x W px of the window of each image that is seen, anywhere in it. None: all of it.
    """

    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that are none."""
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be bounds 0 < low <= high. Got {self.scale}.")
        if min(self.shift, self.brightness, self.contrast) < 0 or self.contrast >= 1:
            raise ValueError(f"shift and brightness must be >= 0, contrast in 0..1. Got {self}.")

    @property
    def moves(self) -> bool:
        """Whether images are moved, so that targets move with them."""
        return self.flip or self.scale != (1.0, 1.0) or self.shift > 0 or self.crop is not None


@dataclass(frozen=True, eq=False)
class Motion:
    """Say how augmentation has moved each image of a batch.

    Args:
        grid: B x h x w x 2 float32: where each new pixel is read, x then y, as `grid_sample` takes it with
            `align_corners=False`: -1 and 1 are the edges of the old image. Mirroring, zoom, shift and the window are
            all in it; without a window h x w is the image's size, H x W.
        mirrored: B bool: which images are mirrored from left to right.
        zoom: B float32 factors, above 1 where the image is enlarged: by them displacements in px grow.
    """

    grid: Tensor
    mirrored: Tensor
    zoom: Tensor


class Targets(Protocol[Target]):
    """Make the targets of batches, as every task does. See `rfsearch.tasks.Task`."""

    def target(self, stored: Tensor) -> Target:
        """Return a batch of a split's stored targets as the loss takes them."""

    def moved(self, target: Target, motion: Motion) -> Target:
        """Move a target as its images were moved."""


class Batches(Generic[Target]):
    """Draw training batches without end: every epoch is a new permutation, and a batch may reach into the next one.

    Args:
        split: What is drawn from.
        batch_size: Images in a batch.
        seed: Decides the order of the images and their augmentation.
        targets: Makes the targets of the batches.
        augment: How images are changed at random. None: not at all.
        device: Where the tensors are.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        targets: Targets[Target],
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Draw nothing yet."""
        if batch_size < 1 or not len(split):
            raise ValueError(f"A batch and a split need at least 1 image. Got {batch_size=}, {len(split)=}.")
        self._split, self._batch_size, self._seed = split, batch_size, seed
        self._targets, self._augment, self._device = targets, augment or Augment(), torch.device(device)
        self._permutation: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def at(self, step: int) -> tuple[Tensor, Target]:
        """Return the batch of a step, from 0: B x C x H x W float32 images, normalised, and their target."""
        rng = np.random.default_rng((self._seed, _STEP, step))
        images, stored = _fetch(self._split, self._indices(step), self._device)
        scale, offset = _photometry(rng, images.shape[:2], self._augment)
        pixels = torch.addcmul(offset.to(self._device), images.float(), scale.to(self._device))
        target = self._targets.target(stored)
        if not self._augment.moves:
            return pixels, target
        motion = _motion(rng, pixels.shape, self._augment, self._device)
        pixels = grid_sample(pixels, motion.grid, "bilinear", "zeros", align_corners=False)
        return pixels, self._targets.moved(target, motion)

    def epochs(self, step: int) -> float:
        """Return how many times the split has been gone through before this step."""
        return step * self._batch_size / len(self._split)

    def _indices(self, step: int) -> np.ndarray:
        """Return places step * B to (step + 1) * B - 1 of the permutations laid end to end."""
        places = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        epochs, places = np.divmod(places, len(self._split))
        return np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _order(self, epoch: int) -> np.ndarray:
        if self._permutation[0] != epoch:
            rng = np.random.default_rng((self._seed, _EPOCH, epoch))
            self._permutation = (epoch, rng.permutation(len(self._split)))
        return self._permutation[1]


def eval_batches(
    split: Split, batch_size: int, targets: Targets[Target], device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Target]]:
    """Yield every image once, in order and unchanged, as `Batches.at` gives them; the last batch may be smaller."""
    device = torch.device(device)
    for start in range(0, len(split), batch_size):
        images, stored = _fetch(split, slice(start, start + batch_size), device)
        yield _normalised(images), targets.target(stored)


def normalised_images(split: Split, device: torch.device | str = "cpu") -> Tensor:
    """Return all images of a small split as a network takes them: N x C x H x W float32."""
    return _normalised(torch.from_numpy(np.array(split.images)).to(device))


def _normalised(images: Tensor) -> Tensor:
    scale, offset = _photometry(np.random.default_rng(0), (1, images.shape[1]), Augment())
    return torch.addcmul(offset.to(images.device), images.float(), scale.to(images.device))


def _fetch(split: Split, which: np.ndarray | slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a copy of some rows, since torch warns of memory that it must not write, such as a mapped file."""
    images, targets = (np.array(array[which]) for array in (split.images, split.targets))
    return torch.from_numpy(images).to(device), torch.from_numpy(targets).to(device)


def channel_statistics(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel.

    They are those of RGB in turn, or of grey where the channels are no stacked RGB images.
    """
    if channels % len(MEAN):
        return np.full(channels, np.mean(MEAN)), np.full(channels, np.mean(STD))
    return np.tile(MEAN, channels // len(MEAN)), np.tile(STD, channels // len(STD))


def _photometry(rng: np.random.Generator, shape: Sequence[int], augment: Augment) -> tuple[Tensor, Tensor]:
    """Return factor and summand, B x C x 1 x 1, that normalise bytes, brightness and contrast included."""
    count, channels = shape
    contrast = 1 + augment.contrast * rng.uniform(-1, 1, (count, 1))
    brightness = augment.brightness * rng.uniform(-1, 1, (count, 1))
    mean, std = channel_statistics(channels)
    scale = contrast / (255 * std)
    offset = (0.5 - 0.5 * contrast + brightness - mean) / std
    return tuple(torch.from_numpy(x.astype(np.float32)[:, :, None, None]) for x in (scale, offset))  # type: ignore[return-value]


def _motion(rng: np.random.Generator, shape: Sequence[int], augment: Augment, device: torch.device) -> Motion:
    """Draw how each image of a batch of B x C x H x W is moved."""
    count, _, height, width = shape
    mirrored = rng.random(count) < (0.5 if augment.flip else 0.0)
    zoom = np.exp(rng.uniform(np.log(augment.scale[0]), np.log(augment.scale[1]), count))
    shift = 2 * augment.shift * rng.uniform(-1, 1, (2, count))  # the image's side is 2 in grid coordinates
    rows, columns = augment.crop or (height, width)
    top, left = (rng.integers(0, whole - part + 1, count) for whole, part in ((height, rows), (width, columns)))
    grid = torch.empty(count, rows, columns, 2)
    across = _axis(width, zoom, shift[0], left, columns) * np.where(mirrored, -1, 1)[:, None]
    grid[..., 0] = torch.from_numpy(across.astype(np.float32))[:, None, :]
    down = _axis(height, zoom, shift[1], top, rows)
    grid[..., 1] = torch.from_numpy(down.astype(np.float32))[:, :, None]
    factors = torch.from_numpy(zoom.astype(np.float32))
    return Motion(grid.to(device), torch.from_numpy(mirrored).to(device), factors.to(device))


def _axis(length: int, zoom: np.ndarray, shift: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """Return where each output pixel is read, B x count, -1 and 1 being the image's edges.

    Args:
        length: Of the image, px.
        zoom: Of each image.
        shift: Likewise, the image's side being 2.
        first: Pixel with which each image's window begins.
        count: Pixels in a window.
    """
    centres = (2 * (first[:, None] + np.arange(count)) + 1) / length - 1
    result: np.ndarray = (centres - shift[:, None]) / zoom[:, None]
    return result
