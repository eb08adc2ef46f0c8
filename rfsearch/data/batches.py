"""Training and evaluation batches as tensors.

A training batch is a function of the seed and the step, and of nothing else: a resumed training asks for the next
step and gets what an uninterrupted one would have got.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rfsearch.data.image_set import Split

IGNORE = -100  # the label of pixels without a class: the default `ignore_index` of torch.nn.CrossEntropyLoss

# Mean and standard deviation of ImageNet's training images, RGB in 0..1, as published with torchvision's weights
# (torchvision documentation, "Models and pre-trained weights").
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_EPOCH, _STEP = 0, 1  # keep the two streams of random numbers apart


@dataclass(frozen=True)
class Augment:
    """How each training image is changed at random; the defaults change nothing.

    flip: half of the images are mirrored, and the labels of each flip pair exchanged. scale: bounds of the zoom,
    log-uniform; above 1 enlarges. shift: largest displacement, as a fraction of the image's side. brightness: largest
    amount added, 1 = from black to white. contrast: largest relative change about mid-grey.
    """

    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must be bounds 0 < low <= high. Got {self.scale}.")
        if min(self.shift, self.brightness, self.contrast) < 0 or self.contrast >= 1:
            raise ValueError(f"shift and brightness must be >= 0, contrast in 0..1. Got {self}.")

    @property
    def moves(self) -> bool:
        return self.flip or self.scale != (1.0, 1.0) or self.shift > 0


class Batches:
    """An endless row of training batches; every epoch is a new permutation, and a batch may reach into the next one.

    flip_pairs: pairs of class ids that a mirrored image exchanges. ignore_index: the split's id of pixels without a
    class; they, and what augmentation moves in from outside the image, become IGNORE.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        flip_pairs: Sequence[tuple[int, int]] = (),
        ignore_index: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1 or not len(split):
            raise ValueError(f"A batch and a split need at least 1 image. Got {batch_size=}, {len(split)=}.")
        self._split, self._batch_size, self._seed = split, batch_size, seed
        self._augment, self._device = augment or Augment(), torch.device(device)
        self._lookup = _label_lookup(flip_pairs, ignore_index).to(self._device)
        self._permutation: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of this step, from 0: B x 3 x H x W float32 images, normalised; B x H x W int64 labels."""
        rng = np.random.default_rng((self._seed, _STEP, step))
        images, labels = _fetch(self._split, self._indices(step), self._device)
        scale, offset = _photometry(rng, len(images), self._augment)
        pixels = torch.addcmul(offset.to(self._device), images.float(), scale.to(self._device))
        if not self._augment.moves:
            return pixels, self._lookup[0][labels.int() + 1]
        mirrored, grid = _geometry(rng, pixels.shape, self._augment)
        grid = grid.to(self._device)
        pixels = grid_sample(pixels, grid, "bilinear", "zeros", align_corners=False)
        # One more than the id, so that the zeros sampled outside the image say just that.
        ids = grid_sample(labels[:, None].float() + 1, grid, "nearest", "zeros", align_corners=False)[:, 0].int()
        row = torch.from_numpy(mirrored.astype(np.int32) * self._lookup.shape[1]).to(self._device)
        return pixels, self._lookup.flatten()[ids + row[:, None, None]]

    def epochs(self, step: int) -> float:
        """How often the split has been gone through before this step."""
        return step * self._batch_size / len(self._split)

    def _indices(self, step: int) -> np.ndarray:
        """Places step * B ... of the permutations, one after the other."""
        places = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        epochs, places = np.divmod(places, len(self._split))
        return np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _order(self, epoch: int) -> np.ndarray:
        if self._permutation[0] != epoch:
            rng = np.random.default_rng((self._seed, _EPOCH, epoch))
            self._permutation = (epoch, rng.permutation(len(self._split)))
        return self._permutation[1]


def eval_batches(
    split: Split, batch_size: int, ignore_index: int | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order and unchanged, as Batches.at gives them; the last batch may be smaller."""
    device = torch.device(device)
    lookup = _label_lookup((), ignore_index)[0].to(device)
    scale, offset = _photometry(np.random.default_rng(0), 1, Augment())
    scale, offset = scale.to(device), offset.to(device)
    for start in range(0, len(split), batch_size):
        images, labels = _fetch(split, slice(start, start + batch_size), device)
        yield torch.addcmul(offset, images.float(), scale), lookup[labels.int() + 1]


def _fetch(split: Split, which: np.ndarray | slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Copies, for torch warns of memory it must not write, and a mapped file is such."""
    images, labels = (np.array(array[which]) for array in (split.images, split.labels))
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def _label_lookup(flip_pairs: Sequence[tuple[int, int]], ignore_index: int | None) -> Tensor:
    """2 x 257 int64: [0, k + 1] is the label of id k, [1, k + 1] that in a mirrored image, [:, 0] that of outside."""
    table = torch.arange(-1, 256).repeat(2, 1)
    for left, right in flip_pairs:
        table[1, left + 1], table[1, right + 1] = right, left
    table[:, 0] = IGNORE
    if ignore_index is not None:
        table[:, ignore_index + 1] = IGNORE
    return table


def _photometry(rng: np.random.Generator, count: int, augment: Augment) -> tuple[Tensor, Tensor]:
    """B x 3 x 1 x 1 factor and summand that take bytes to normalised values, brightness and contrast included."""
    contrast = 1 + augment.contrast * rng.uniform(-1, 1, (count, 1))
    brightness = augment.brightness * rng.uniform(-1, 1, (count, 1))
    mean, std = np.array(MEAN), np.array(STD)
    scale = contrast / (255 * std)
    offset = (0.5 - 0.5 * contrast + brightness - mean) / std
    return tuple(torch.from_numpy(x.astype(np.float32)[:, :, None, None]) for x in (scale, offset))  # type: ignore[return-value]


def _geometry(rng: np.random.Generator, shape: Sequence[int], augment: Augment) -> tuple[np.ndarray, Tensor]:
    """(B bool: which images are mirrored, B x H x W x 2 sampling grid of grid_sample, align_corners=False)."""
    count, _, height, width = shape
    mirrored = rng.random(count) < (0.5 if augment.flip else 0.0)
    zoom = np.exp(rng.uniform(np.log(augment.scale[0]), np.log(augment.scale[1]), count))
    shift = 2 * augment.shift * rng.uniform(-1, 1, (2, count))  # the image's side is 2 in grid coordinates
    grid = torch.empty(count, height, width, 2)
    across = _axis(width, zoom, shift[0]) * np.where(mirrored, -1, 1)[:, None]
    grid[..., 0] = torch.from_numpy(across.astype(np.float32))[:, None, :]
    grid[..., 1] = torch.from_numpy(_axis(height, zoom, shift[1]).astype(np.float32))[:, :, None]
    return mirrored, grid


def _axis(length: int, zoom: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """B x length: where each output pixel is read, -1 and 1 being the image's edges."""
    centres = (2 * np.arange(length) + 1) / length - 1
    return (centres[None] - shift[:, None]) / zoom[:, None]
