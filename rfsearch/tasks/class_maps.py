"""Targets that give each pixel a class: what they are in training, and how a flip, a zoom and a shift move them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rfsearch.data.batches import Motion

IGNORE = -100  # the label of pixels without a class: the default `ignore_index` of torch.nn.CrossEntropyLoss


class ClassMaps:
    """Turn stored class ids, a byte for each pixel, into labels, B x H x W int64.

    Args:
        flip_pairs: Pairs of class ids that a mirrored image exchanges.
        ignore_index: The stored id of pixels without a class. They, and what augmentation moves in from outside the
            image, become IGNORE.
    """

    def __init__(self, flip_pairs: Sequence[tuple[int, int]] = (), ignore_index: int | None = None) -> None:
        """Make the tables that ids are looked up in."""
        self._labels = torch.arange(256)
        if ignore_index is not None:
            self._labels[ignore_index] = IGNORE
        # [m, k + 1]: the label of class k, m = 1 in a mirrored image; [:, 0]: of pixels without a class.
        self._moved = torch.arange(-1, 256).repeat(2, 1)
        for left, right in flip_pairs:
            self._moved[1, left + 1], self._moved[1, right + 1] = right, left
        self._moved[:, 0] = IGNORE

    def target(self, stored: Tensor) -> Tensor:
        """Return labels of stored ids; see `rfsearch.tasks.base.Task.target`."""
        self._to(stored.device)
        return self._labels[stored.int()]

    def moved(self, target: Tensor, motion: Motion) -> Tensor:
        """Move labels as their images were moved; see `rfsearch.tasks.base.Task.moved`."""
        self._to(target.device)
        # One more than the class, so that the zeros sampled outside the image say just that.
        ids = (target + 1).clamp(min=0)[:, None].float()
        ids = grid_sample(ids, motion.grid, "nearest", "zeros", align_corners=False)[:, 0].int()
        row = motion.mirrored.int() * self._moved.shape[1]
        return self._moved.flatten()[ids + row[:, None, None]]

    def _to(self, device: torch.device) -> None:
        self._labels, self._moved = self._labels.to(device), self._moved.to(device)
