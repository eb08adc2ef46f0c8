"""PASCAL VOC 2012 segmentation, with the additional annotation of SBD where it is there.

Everingham, Van Gool, Williams, Winn, Zisserman, "The PASCAL Visual Object Classes (VOC) challenge", IJCV 2010.
SBD: Hariharan, Arbelaez, Bourdev, Maji, Malik, "Semantic contours from inverse detectors", ICCV 2011.

    VOC/JPEGImages/<name>.jpg              VOC: DIR, DIR/VOC2012 or DIR/VOCdevkit/VOC2012
    VOC/SegmentationClass/<name>.png       a palette's index is the class id, 255 is void

Which images they are, and what SBD adds, is read by `voc_lists`.
torchvision's VOCSegmentation and SBDataset unpack to these layouts, which are read here without them: they insist on
one folder name and stop at the first fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rfsearch.data.alignment import align
from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.fitting import MEAN_COLOUR, Resize, fit
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.labels import open_byte_map
from rfsearch.data.loading import Item, load_splits
from rfsearch.data.picture_layout import PictureLayout
from rfsearch.data.pictures import PLAIN_PICTURES, PictureRule, open_picture
from rfsearch.data.survey import survey
from rfsearch.data.voc_lists import find_items
from rfsearch.errors import DataError

# Names and order of the development kit (VOCinit.m), background in front.
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
VOC_IGNORE = 255  # void: the outlines of objects, and what is hard to tell


class Voc(PictureLayout):
    """Read PASCAL VOC 2012 as it unpacks, with SegmentationClassAug or SBD beside it where they are available."""

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of PASCAL VOC."""
        return read_voc(
            root,
            size,
            pictures=self.pictures,
            resize=self.resize,
            memory_limit_bytes=memory_limit_bytes,
            cache=cache,
        )


def read_voc(
    root: Path | str,
    size: Size | None = None,
    *,
    pictures: PictureRule = PLAIN_PICTURES,
    resize: Resize = "stretch",
    hold_out_seed: int = 0,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Read VOC 2012 with 21 classes.

    `test` is VOC val, on which papers report; `val` is held out of the training images. These are VOC train and what
    SegmentationClassAug, or else SBD, adds to it, without VOC val; VOC's own annotation is taken where there is one.
    One in 20 of them, at most 500, is held out. The notice says what was found and divided how.

    Args:
        root: Holds VOC, and may hold SBD.
        size: (H, W) px to resize to: images bilinearly with anti-aliasing, labels to the nearest. None: the images'
            most common size.
        pictures: How images are decoded.
        resize: How images of another shape are brought to the size, see `fit`; padding is void.
        hold_out_seed: Of the hash of an image's name by which it is held out.
        memory_limit_bytes: See `Layout.read`.
        cache: See `Layout.read`.

    Raises:
        DataError: With all faults of the folder, each with its file.
    """
    root = require_folder(Path(root))
    faults = Faults(root)
    items, notes = find_items(root, hold_out_seed, faults)
    read_mat = _mat_reader([item.files[1] for item in items["train"] + items["val"]])
    size, said = survey(items, size, resize, pictures, faults)
    notes += said
    target = size or (1, 1)  # nothing readable: the faults below say so

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        return _read(item, target, resize, pictures, read_mat)

    splits = load_splits(items, read, target, faults, ("voc", pictures, resize), memory_limit_bytes, cache)
    faults.check()
    return ImageSet("voc", VOC_CLASSES, VOC_IGNORE, splits, False, (), " ".join(notes))


def _mat_reader(labels: Sequence[Path]) -> Callable[..., dict[str, Any]] | None:
    """Return SciPy's reader of MATLAB files, if one of these is such a file."""
    mat = next((path for path in labels if path.suffix == ".mat"), None)
    if mat is None:
        return None
    from scipy.io import loadmat

    reader: Callable[..., dict[str, Any]] = loadmat
    return reader


def _read(
    item: Item,
    size: Size,
    resize: Resize,
    pictures: PictureRule,
    read_mat: Callable[..., dict[str, Any]] | None,
) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = item.files
    picture = open_picture(image_path, pictures)
    if label_path.suffix == ".mat" and read_mat is not None:
        ids = _mat_ids(label_path, read_mat)
    else:
        ids = np.asarray(open_byte_map(label_path, pictures.max_pixels))
    known = (ids >= 0) & (ids < len(VOC_CLASSES)) | (ids == VOC_IGNORE)
    if not known.all():
        outside = np.unique(ids[~known])
        listed = ", ".join(map(str, outside[:4])) + (", ..." if len(outside) > 4 else "")
        raise DataError(
            f"{label_path}: class id {listed} is outside 0..{len(VOC_CLASSES) - 1}, "
            f"and the ignore index is {VOC_IGNORE}"
        )
    label = align(Image.fromarray(ids.astype(np.uint8)), label_path, picture)
    placed = fit(picture.size, size, resize)
    return (
        np.asarray(placed.lay(picture.rgb, Image.Resampling.BILINEAR, MEAN_COLOUR)),
        np.asarray(placed.lay(label, Image.Resampling.NEAREST, VOC_IGNORE)),
    )


def _mat_ids(path: Path, read_mat: Callable[..., dict[str, Any]]) -> np.ndarray:
    """Return the ids in the field Segmentation of SBD's structure GTcls, H x W."""
    try:
        ids = np.asarray(read_mat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0])
    except Exception as cause:  # of any kind: scipy lets through whatever a torn file leads its parser to
        why = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise DataError(f"{path}: cannot be read as SBD's GTcls.Segmentation ({why})") from cause
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataError(f"{path}: GTcls.Segmentation must be H x W integers. Got {ids.shape=}, {ids.dtype=}")
    return ids
