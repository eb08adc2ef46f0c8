"""Where images come from: the contract of a data layout.

A layout is one class. Its fields are its own keys in the `[data]` table of a space file, checked by pydantic when the
file is read, and its one method reads. There are two kinds: a `Layout` reads the folder that `--data` names, an
`Embedded` one makes its images and needs no folder. Both are entry points of the group `rfsearch.layouts`, or are named
by SPEC: `path/to/file.py:Class` or `package.module:Class`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rfsearch.data.image_set import ImageSet, Size
from rfsearch.errors import DataError

_MOST_IMAGES = 10**6  # a bound against slips of the keyboard, far beyond what anyone has drawn

Count = Annotated[int, Field(ge=0, le=_MOST_IMAGES)]
"""How many images of a split are made."""


class DataSource(BaseModel, ABC):
    """Hold what a `[data]` table says to one layout.

    Each field needs a default or is a key that every table with this layout must give. A faulty value is reported with
    the line of the space file that sets it, so a validator's ValueError needs to say only what is wrong.

    Attributes:
        channels: Of the images that it gives, where these are no RGB: what networks of its spaces are tried with before
            any image is read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    channels: ClassVar[int] = 3


class Layout(DataSource):
    """Read a data set as it lies in a folder.

    Example:
        >>> class Arrays(Layout):
        ...     classes: tuple[str, ...]
        ...
        ...     def read(self, root, size, *, cache=None, memory_limit_bytes=None):
        ...         splits = {"train": split_of(root / "train.npz"), "val": split_of(root / "val.npz")}
        ...         return ImageSet(root.name, self.classes, None, splits)
        >>> Arrays(classes=("sky", "ground")).classes
        ('sky', 'ground')
    """

    @abstractmethod
    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read the folder. The same folder gives the same images, in the same order.

        Args:
            root: The folder that `--data` names.
            size: (H, W) px that all images get. None: the images' own.
            cache: Folder for arrays that are memory-mapped because they exceed the limit. None: the user's cache.
            memory_limit_bytes: Size up to which the pixels are held in memory. None: a quarter of this machine's.

        Raises:
            DataError: The folder is no such data set; one message with all its faults, each with its file.
        """


class Embedded(DataSource):
    """Make images without a folder, for spaces that run without `--data`."""

    @abstractmethod
    def held_bytes(self, size: Size | None) -> int:
        """Return the memory that the images of this size take, so that too many are refused before any is made."""

    @abstractmethod
    def make(self, size: Size | None) -> ImageSet:
        """Make the images. The same fields and size give the same images.

        Args:
            size: (H, W) px of an image. None: a size of the layout's own choice.
        """


def split_counts(layout: str, train: int, val: int, test: int, noun: str = "image") -> dict[str, int]:
    """Return how many images of each split are to be made.

    Args:
        layout: What makes them, as an error calls it.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        noun: What is made, in the singular.

    Raises:
        DataError: There are too few.
    """
    counts = {"train": train, "val": val, "test": test}
    if train < 1 or val < 1 or test < 0:
        raise DataError(f"{layout}: train and val need at least 1 {noun}, test 0. Got {counts}.")
    return counts
