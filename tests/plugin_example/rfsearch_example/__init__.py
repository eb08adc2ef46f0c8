"""One of each kind of plugin: a backbone, a strategy, a task, a layout and spaces here, others beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rfsearch.choices import Candidate, Dilated
from rfsearch.data import ImageSet, Layout, Split
from rfsearch.direction import merit
from rfsearch.errors import DataError
from rfsearch.ledger import Record
from rfsearch.outputs import main_output
from rfsearch.space import Space
from rfsearch.strategies import Description, Exhausted
from rfsearch.tasks.class_maps import IGNORE
from rfsearch.tasks.segmentation import Segmentation


def two_stage(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Two strided convolutions and a wide one: B x in_channels x H x W to logits at a stride of 4 px."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),  # "6", the site of corners.toml
        nn.ReLU(),
        nn.Conv2d(32, num_classes, 1),
    )


class Halving:
    """Bisects the space's dilations, taken for a hill with one top: both ends first, then towards the better one."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._merits: dict[Candidate, float] = {}

    def describe(self) -> Description:
        """Return every dilation's candidate: which of them come to be tried depends on the scores."""
        return Description(tuple(map(self._at, range(len(self._space.dilations)))))

    def suggest(self, pending: Sequence[Candidate]) -> Candidate | Exhausted:
        # All that it knows are the records it was told, so that replaying them resumes it.
        low, high = 0, len(self._space.dilations) - 1
        while True:
            for end in (low, high):
                candidate = self._at(end)
                if candidate not in self._merits:
                    waiting = candidate in pending
                    return candidate if not waiting else Exhausted("the next step depends on what is in training")
            if high - low <= 1:
                return Exhausted("the dilations between the best two have been tried")
            middle = (low + high) // 2
            better_above = self._merits[self._at(high)] > self._merits[self._at(low)]
            low, high = (middle, high) if better_above else (low, middle)

    def observe(self, record: Record) -> None:
        # A trial that failed, or was stopped early, has no score that another could be compared with.
        scored = record.scored and record.val is not None
        reached = merit(record.val, self._space.direction) if scored else float("-inf")
        self._merits[Candidate.from_json(record.candidate)] = reached

    def _at(self, index: int) -> Candidate:
        dilation = sorted(self._space.dilations)[index]
        paths = len(self._space.path_set.manual) if self._space.path_set else 1
        return self._space.uniform([Dilated(dilation)] * paths)


class FocalSegmentation(Segmentation):
    """Segmentation whose loss leaves out what is already sure: Lin et al., "Focal loss", ICCV 2017, eq. 4, gamma 2."""

    def loss(self, output: object, target: Tensor) -> Tensor:
        """output: has logits, B x classes x h x w; target: B x H x W class ids, IGNORE where there is none."""
        logits = nn.functional.interpolate(main_output(output), target.shape[-2:], mode="bilinear", align_corners=False)
        cost = nn.functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        focal = (1 - torch.exp(-cost)) ** 2 * cost  # 0 where cross_entropy has left a pixel out
        return focal.sum() / (target != IGNORE).sum().clamp(min=1)


class Arrays(Layout):
    """DIR/{train,val,test}.npz: `images`, N x H x W x 3 uint8, and what is known of each pixel; test may lack.

    With `classes`, names in the order of the ids and a key of the space file's [data], that is `labels`, N x H x W
    uint8 class ids; without, `depths`, N x H x W floats. The arrays are held in memory.
    """

    classes: tuple[str, ...] = ()

    def read(
        self,
        root: Path,
        size: tuple[int, int] | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        splits = {}
        for title in ("train", "val", "test"):
            file = root / f"{title}.npz"
            if not file.is_file():
                if title != "test":
                    raise DataError(f"{file}: no such file; it holds the {title} images.")
                continue
            splits[title] = self._split(file, size)
        return ImageSet(root.name, self.classes, None, splits)

    def _split(self, file: Path, size: tuple[int, int] | None) -> Split:
        known = "labels" if self.classes else "depths"
        with np.load(file) as arrays:
            if missing := {"images", known} - set(arrays):
                raise DataError(f"{file}: holds no array {' and no array '.join(sorted(missing))}.")
            images, targets = arrays["images"], arrays[known]
        if self.classes and targets.size and targets.max() >= len(self.classes):
            raise DataError(f"{file}: class id {targets.max()} is outside 0..{len(self.classes) - 1}.")
        height, width = images.shape[1:3]
        rows, columns = (
            np.arange(wanted) * own // wanted
            for wanted, own in zip(size or (height, width), (height, width), strict=True)
        )
        nearest = np.ix_(range(len(images)), rows, columns)
        names = tuple(f"{file.stem}-{number}" for number in range(len(images)))
        targets = targets[nearest] if self.classes else targets[nearest][:, None].astype(np.float32)
        return Split(images[nearest].transpose(0, 3, 1, 2), targets, names)


def corners() -> Path:
    """The path of a space file."""
    return Path(__file__).with_name("corners.toml")


def relief() -> Path:
    """Return the path of a space file of a task without classes, which searches kernel sizes too."""
    return Path(__file__).with_name("relief.toml")
