"""How large the objects of a data set are, in px of the images that the network sees.

A network can only see an object whole whose extent its receptive field covers, so these sizes say which fields are
worth searching for which class.

An object is a connected component of one class, 8-connected: touching objects of one class count as one, an occluded
object as several, and one that the image's edge cuts has the size that is left of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rfsearch.data.image_set import Split, evenly

BACKGROUND = "background"
_EIGHT = np.ones((3, 3), dtype=bool)
# Fewer px of one class are a stray stroke of annotation or of resizing, no object.
SMALLEST_AREA = 4
# Bins of the histogram an octave.
_PER_OCTAVE = 2


@dataclass(frozen=True)
class Extent:
    """Hold how many objects one class has, and the 10, 50 and 90 % quantiles of their sizes, px."""

    count: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Compare a receptive field with the objects of each class.

    Attributes:
        rf_px: The receptive field, px.
        larger: Classes whose median object is larger than the field.
        smaller: Classes whose median object is not.
        absent: Classes without objects.
        noun: What an object is called.
    """

    rf_px: int
    larger: tuple[str, ...]
    smaller: tuple[str, ...]
    absent: tuple[str, ...]
    noun: str = "object"

    def __str__(self) -> str:
        said = []
        if self.larger:
            larger = ", ".join(self.larger)
            said.append(f"The median {self.noun} is larger than a field of {self.rf_px} px for {larger}.")
        if self.smaller:
            said.append(f"A field of {self.rf_px} px covers the median {self.noun} of {', '.join(self.smaller)}.")
        if self.absent:
            said.append(f"No {self.noun}s: {', '.join(self.absent)}.")
        return " ".join(said)


@dataclass(frozen=True, eq=False)
class ObjectSizes:
    """Hold the sizes of objects.

    Attributes:
        px: Sizes by class, ascending: the longer side of each bounding box, px.
        images: Number of images that were looked at.
        noun: What an object is called, in the singular.
    """

    px: Mapping[str, np.ndarray]
    images: int
    noun: str = "object"

    def extents(self) -> dict[str, Extent]:
        """Return the extent of every class that has objects."""
        return {
            name: Extent(len(sizes), *(float(q) for q in np.quantile(sizes, (0.1, 0.5, 0.9))))
            for name, sizes in self.px.items()
            if len(sizes)
        }

    def compare(self, rf_px: int) -> Comparison:
        """Return which classes have objects that a receptive field of rf_px px does not cover, and which it does."""
        medians = {name: extent.median for name, extent in self.extents().items()}
        ordered = sorted(medians, key=lambda name: medians[name])
        return Comparison(
            rf_px,
            tuple(name for name in ordered if medians[name] > rf_px),
            tuple(name for name in ordered if medians[name] <= rf_px),
            tuple(name for name in self.px if name not in medians),
            self.noun,
        )

    def histogram(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Count sizes in bins of half an octave from 1 px: K + 1 edges, px, and K counts by class.

        The edges are 1, 1.4, 2, 2.8, 4 ... and the last one is above every size. A size on an edge is in the upper bin.
        """
        largest = max((sizes[-1] for sizes in self.px.values() if len(sizes)), default=1)
        bins = int(np.floor(np.log2(largest) * _PER_OCTAVE + 1e-9)) + 1
        edges = 2.0 ** (np.arange(bins + 1) / _PER_OCTAVE)
        return edges, {name: np.histogram(sizes, edges)[0] for name, sizes in self.px.items()}


def object_sizes(
    split: Split | np.ndarray,
    classes: Sequence[str],
    ignore_index: int | None = None,
    leave_out: Collection[str] = (BACKGROUND,),
    most_images: int = 512,
) -> ObjectSizes:
    """Measure the objects of a split, or of label maps, N x H x W class ids.

    classes: names in order of id. ignore_index: the id of pixels without a class. leave_out: classes that are no
    objects. At most `most_images` images, evenly spread. Components of less than SMALLEST_AREA px are dropped.
    """
    from scipy import ndimage  # slow to import, and workers measure no objects

    labels = split.targets if isinstance(split, Split) else split
    if labels.ndim != 3:
        raise ValueError(f"Label maps must be N x H x W. Got {labels.shape=}.")
    wanted = {i: name for i, name in enumerate(classes) if i != ignore_index and name not in leave_out}
    found: dict[str, list[int]] = {name: [] for name in wanted.values()}
    chosen = evenly(len(labels), most_images)
    for index in chosen:
        # One more than the id: find_objects gives the bounding box of each id from 1 on.
        ids = np.asarray(labels[index]).astype(np.int32) + 1
        for i, box in enumerate(ndimage.find_objects(ids, max_label=len(classes))):
            if box is not None and i in wanted:
                components, _ = ndimage.label(ids[box] == i + 1, _EIGHT)
                found[wanted[i]] += _sizes(components, ndimage.find_objects(components))
    return ObjectSizes({name: np.sort(np.array(sizes, dtype=np.int64)) for name, sizes in found.items()}, len(chosen))


def _sizes(components: np.ndarray, boxes: Sequence[tuple[slice, ...]]) -> list[int]:
    """Return the longer side of each component's bounding box, px."""
    areas = np.bincount(components.ravel(), minlength=len(boxes) + 1)[1:]
    return [
        max(side.stop - side.start for side in box)
        for box, area in zip(boxes, areas, strict=True)
        if area >= SMALLEST_AREA
    ]
