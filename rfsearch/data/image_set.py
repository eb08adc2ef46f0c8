"""What an image set is.

An image set is a handful of named splits of equally large images, each with its target: most often a class id per
pixel, but of whatever shape and dtype a task takes. The arrays live in memory
or, above a limit, in `.npy` files that are memory-mapped read-only; whoever uses them cannot tell the difference.
"""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rfsearch.errors import DataError

Size = tuple[int, int]  # (H, W), px

_FEW_TO_CHOOSE_ON = 10  # with fewer, one image more or less decides which candidate leads


def evenly(count: int, most: int) -> list[int]:
    """Return at most that many indices of so many, evenly spread."""
    return [round(i * (count - 1) / max(1, most - 1)) for i in range(most)] if most < count else list(range(count))


@dataclass(frozen=True, eq=False)
class Split:
    """Hold images, and what a network is to make of them.

    A memory-mapped array is pickled as the path of its file, so that sending a split to a worker costs nothing.

    Args:
        images: N x C x H x W uint8; C is 3 (RGB) for most tasks.
        targets: N x ..., of any dtype and shape that the task takes: N x H x W uint8 class ids for segmentation.
        names: One for each image.
    """

    images: np.ndarray
    targets: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        n = len(self.names)
        if self.images.ndim != 4 or len(self.images) != n or self.targets.ndim < 1 or len(self.targets) != n:
            raise ValueError(
                "images must be N x C x H x W, targets N x ..., names N. "
                f"Got {self.images.shape=}, {self.targets.shape=}, {len(self.names)=}."
            )
        if self.images.dtype != np.uint8:
            raise ValueError(f"Images must be uint8. Got {self.images.dtype=}.")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def some(self, most: int) -> Split:
        """Return at most that many of the images, spread evenly over the split."""
        if len(self) <= most:
            return self
        chosen = evenly(len(self), most)
        return Split(self.images[chosen], self.targets[chosen], tuple(self.names[i] for i in chosen))

    def __getstate__(self) -> dict[str, Any]:
        """Put paths in the place of mapped arrays."""
        return {"images": _by_path(self.images), "targets": _by_path(self.targets), "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the arrays of paths again."""
        for field, value in state.items():
            object.__setattr__(self, field, map_array(value) if isinstance(value, Path) else value)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Hold images with their targets, to train, choose and report on.

    Args:
        name: Of the data set.
        classes: Names in the order of the ids; empty where the targets are no class ids.
        ignore_index: The id of pixels without a class, or None.
        splits: `train` and `val`, and `test` where there is one.
        rendered: Whether the images are drawings, no photographs.
        flip_pairs: Class ids that a horizontal flip exchanges.
        notice: What a reader of the results must know about the data, in sentences; may be empty.
    """

    name: str
    classes: tuple[str, ...]
    ignore_index: int | None
    splits: dict[str, Split]
    rendered: bool = False
    flip_pairs: tuple[tuple[int, int], ...] = ()
    notice: str = ""

    def __post_init__(self) -> None:
        """Refuse splits that do not belong together."""
        missing = [split for split in ("train", "val") if not len(self.splits.get(split, ()))]
        if missing:
            raise DataError(f"{self.name}: an image set needs a train and a val split. Empty: {', '.join(missing)}.")
        sizes = {split.images.shape[2:] for split in self.splits.values()}
        if len(sizes) > 1:
            raise DataError(f"{self.name}: all images must be of one size. Got (H, W) {sorted(sizes)}.")
        channels = {split.images.shape[1] for split in self.splits.values()}
        if len(channels) > 1:
            raise DataError(f"{self.name}: all images must have the same channels. Got {sorted(channels)}.")
        outside = [pair for pair in self.flip_pairs if not all(0 <= i < self.num_classes for i in pair)]
        if outside:
            raise DataError(f"{self.name}: flip pairs must be class ids in 0..{self.num_classes - 1}. Got {outside}.")

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 where the targets are no class ids."""
        return len(self.classes)

    @property
    def image_size(self) -> Size:
        """(H, W) in px."""
        height, width = self.splits["train"].images.shape[2:]
        return height, width

    @property
    def in_channels(self) -> int:
        """Channels of every image."""
        return int(self.splits["train"].images.shape[1])

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(1, C, H, W): what a network is shown of one image."""
        return 1, self.in_channels, *self.image_size

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that training can see: classes, ignore index, and each split's names and arrays."""
        digest = hashlib.sha256(repr((self.classes, self.ignore_index)).encode())
        for title in sorted(self.splits):
            split = self.splits[title]
            digest.update(repr((title, split.images.shape, split.names)).encode())
            if split.targets.dtype != np.uint8 or split.targets.ndim != 3:  # else equal bytes are equal label maps
                digest.update(repr((split.targets.dtype.str, split.targets.shape)).encode())
            for array in (split.targets, split.images):
                for row in array:  # row by row: a mapped array never has to fit into memory
                    digest.update(np.ascontiguousarray(row).data)
        return digest.hexdigest()

    def summary(self) -> str:
        """Return the set in one line: its classes, size and splits."""
        height, width = self.image_size
        counts = ", ".join(f"{title} {len(split)}" for title, split in self.splits.items())
        kind = "rendered" if self.rendered else "read from files"
        ignored = "" if self.ignore_index is None else f", id {self.ignore_index} ignored"
        classes = f"{self.num_classes} classes{ignored}, " if self.classes else ""
        return f"{self.name}: {classes}{width} x {height} px (W x H), {counts}; {kind}"


def few_to_choose_on(data: ImageSet) -> str:
    """Say that the validation split is too small to choose a candidate on, where it is."""
    count = len(data.splits["val"])
    if count >= _FEW_TO_CHOOSE_ON:
        return ""
    return (
        f"The validation split has {count} image{'s' if count > 1 else ''}, which is too few to choose on: which "
        f"candidate leads is largely chance below {_FEW_TO_CHOOSE_ON}. Move labelled images there."
    )


def with_labels_to_score(data: ImageSet) -> ImageSet:
    """Leave out a test split in which no pixel has a class, as where its labels are withheld, and say so.

    Raises:
        DataError: No pixel of the train or val split has a class: nothing could be learned or scored.
    """
    empty = [title for title, split in data.splits.items() if not _holds_classes(split, data.ignore_index)]
    for title in empty:
        if title != "test":
            raise DataError(
                f"{data.name}: no label pixel of the split {title} has a class: all are the ignored id "
                f"{data.ignore_index}. Check its labels and the ignore_index."
            )
    if not empty:
        return data
    said = "No label pixel of the split test has a class, so it was left out: no test split."
    splits = {title: split for title, split in data.splits.items() if title not in empty}
    return replace(data, splits=splits, notice=f"{data.notice} {said}".strip())


def _holds_classes(split: Split, ignore_index: int | None) -> bool:
    return ignore_index is None or any(bool((label != ignore_index).any()) for label in split.targets)


def _by_path(array: np.ndarray) -> np.ndarray | Path:
    """Return the file's path if the array is a whole mapped file; a slice of one is an ordinary array."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename is not None:
        return Path(array.filename).absolute()
    return np.asarray(array)


def map_array(path: Path) -> np.ndarray:
    """Map a file's array into memory, read-only.

    Raises:
        DataError: The file is gone.
    """
    try:
        result: np.ndarray = np.load(path, mmap_mode="r")
        return result
    except FileNotFoundError as cause:
        raise DataError(
            f"{path}: the mapped pixels are not on this machine. Choose a cache folder that every worker sees, "
            "or raise the memory limit so that the pixels travel with the task."
        ) from cause
