"""The Helen face parsing set in the layout its authors published.

    Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013: 11 soft label maps per image.
    Le, Brandt, Lin, Bourdev, Huang, "Interactive Facial Feature Localization", ECCV 2012: the photographs.

    root/images/<id>.jpg
    root/labels/<id>/<id>_lbl00.png ... <id>_lbl10.png    8-bit, 255 = probability 1
    root/exemplars.txt (train)  root/tuning.txt (val)  root/testing.txt (test)    lines `1 , 100032540_1`

The authors' readme names the parts 'left' and 'right' without saying whose; ids are passed on as published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.data.alignment import align
from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.fitting import MEAN_COLOUR, PADDED, Resize, fit
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.labels import open_byte_map
from rfsearch.data.loading import Item, load_splits
from rfsearch.data.picture_layout import PictureLayout
from rfsearch.data.pictures import PLAIN_PICTURES, PictureRule, open_picture
from rfsearch.data.survey import check_all_pixels, survey
from rfsearch.errors import DataError, nearest

HELEN_CLASSES = (
    "background",
    "face skin",
    "left eyebrow",
    "right eyebrow",
    "left eye",
    "right eye",
    "nose",
    "upper lip",
    "inner mouth",
    "lower lip",
    "hair",
)
HELEN_FLIP_PAIRS = ((2, 3), (4, 5))

_OUTSIDE = -1.0  # of a soft map where it is padded
_SPLIT_FILES = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}


class Helen(PictureLayout):
    """Read the Helen face parsing set as its authors published it: split files, photographs, eleven soft maps each."""

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of Helen."""
        return read_helen(
            root,
            size,
            pictures=self.pictures,
            resize=self.resize,
            memory_limit_bytes=memory_limit_bytes,
            cache=cache,
        )


def read_helen(
    root: Path | str,
    size: Size | None = None,
    *,
    pictures: PictureRule = PLAIN_PICTURES,
    resize: Resize = "stretch",
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Read Helen, its soft maps resized with the images and turned into class ids by arg-max.

    Images and soft maps are resized bilinearly with anti-aliasing. Without testing.txt there is no test split.

    Args:
        root: Holds images, labels and the split files.
        size: (H, W) px. None: the images' own size, or their most common one, which the notice says.
        pictures: How images are decoded.
        resize: How images of another shape are brought to the size, see `fit`; what is padded gets the id 255 and is
            ignored.
        memory_limit_bytes: See `Layout.read`.
        cache: See `Layout.read`.

    Raises:
        DataError: With all faults of the folder, each with its file.
    """
    root = require_folder(Path(root))
    images, labels = require_folder(root / "images"), require_folder(root / "labels")
    faults = Faults(root)
    items = _items(root, images, labels, faults)
    notes = [] if "test" in items else [f"There is no {_SPLIT_FILES['test']}: no test split."]
    size, said = survey(items, size, resize, pictures, faults)
    notes += said
    if size is None:
        faults.check()
        raise DataError(f"{root}: none of the images can be read.")
    target = size

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        return _read(item, target, resize, pictures)

    try:
        splits = load_splits(items, read, size, faults, ("helen", pictures, resize), memory_limit_bytes, cache)
        faults.check()
    except DataError:
        check_all_pixels(items, {}, pictures)
        raise
    ignored = PADDED if resize == "pad" else None
    return ImageSet("helen", HELEN_CLASSES, ignored, splits, False, HELEN_FLIP_PAIRS, " ".join(notes))


def _items(root: Path, images: Path, labels: Path, faults: Faults) -> dict[str, list[Item]]:
    """Return what the split files ask for. An image that is missing, or asked for twice, is a fault and left out."""
    present = {file.stem for file in images.iterdir() if file.suffix == ".jpg"}
    items: dict[str, list[Item]] = {}
    used: dict[str, str] = {}
    for title, file_name in _SPLIT_FILES.items():
        path = root / file_name
        if not path.is_file():
            if title != "test":
                texts = [file.name for file in root.glob("*.txt")]
                faults.add(f"{path}: no such file; it lists the {title} images.{nearest(file_name, texts)}")
            continue
        items[title] = []
        for number, name in _listed(path, faults):
            where = f"{path}, line {number}"
            if name in used:
                faults.add(f"{where}: image {name!r} is already listed in {used[name]}")
            elif name not in present:
                faults.add(f"{where}: there is no {images / name}.jpg")
            else:
                maps = tuple(labels / name / f"{name}_lbl{k:02d}.png" for k in range(len(HELEN_CLASSES)))
                items[title].append(Item(name, (images / f"{name}.jpg", *maps)))
            used.setdefault(name, where)
        if not items[title] and not faults:
            faults.add(f"{path}: lists no image")
    if not any(items.values()):
        faults.check()
    return items


def _listed(path: Path, faults: Faults) -> list[tuple[int, str]]:
    """Return the line number and the name of each line `number , name`."""
    listed = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = [field.strip() for field in line.split(",")]
        if fields == [""]:
            continue
        if len(fields) != 2 or not fields[1]:
            faults.add(f"{path}, line {number}: expected `number , name`, got {line.strip()!r}")
            continue
        listed.append((number, fields[1]))
    return listed


def _read(item: Item, size: Size, resize: Resize, pictures: PictureRule) -> tuple[np.ndarray, np.ndarray]:
    picture = open_picture(item.files[0], pictures)
    placed = fit(picture.size, size, resize)
    soft = np.empty((len(HELEN_CLASSES), *size), np.float32)
    for k, path in enumerate(item.files[1:]):
        probability = open_byte_map(path, pictures.max_pixels)
        if probability.mode != "L":
            raise DataError(f"{path}: a soft map must be greyscale; this has a palette")
        probability = align(probability, path, picture)
        soft[k] = np.asarray(placed.lay(probability.convert("F"), Image.Resampling.BILINEAR, _OUTSIDE))
    label = np.where(soft[0] == _OUTSIDE, PADDED, soft.argmax(0)).astype(np.uint8)
    return np.asarray(placed.lay(picture.rgb, Image.Resampling.BILINEAR, MEAN_COLOUR)), label
