"""The Helen face parsing set in the layout its authors published.

    Smith, Zhang, Brandt, Lin, Yang, "Exemplar-Based Face Parsing", CVPR 2013: 11 soft label maps an image.
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

from rfsearch.data.image_set import (
    Faults,
    ImageSet,
    Item,
    Size,
    common_size,
    load_splits,
    open_byte_map,
    open_image,
    require_folder,
    to_array,
)
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

_SPLIT_FILES = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}


def read_helen(
    root: Path | str,
    size: Size | None = None,
    *,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Helen, its soft maps resized to `size` (H, W) with the images and turned into class ids by arg-max.

    Images and soft maps are resized bilinearly with anti-aliasing, without keeping the aspect ratio. size=None: the
    images' own size, or their most common one (the notice says so). Without testing.txt there is no test split.
    """
    root = require_folder(Path(root))
    images, labels = require_folder(root / "images"), require_folder(root / "labels")
    faults = Faults(root)
    items = _items(root, images, labels, faults)
    notes = [] if "test" in items else [f"There is no {_SPLIT_FILES['test']}: no test split."]
    if size is None:
        size, note = common_size([item.files[0] for split in items.values() for item in split])
        notes += [note] if note else []
    if size is None:
        faults.check()
        raise DataError(f"{root}: none of the images can be read.")
    target = size
    splits = load_splits(items, lambda item: _read(item, target), size, faults, "helen", memory_limit_bytes, cache)
    faults.check()
    return ImageSet("helen", HELEN_CLASSES, None, splits, False, HELEN_FLIP_PAIRS, " ".join(notes))


def _items(root: Path, images: Path, labels: Path, faults: Faults) -> dict[str, list[Item]]:
    """What the split files ask for. An image that is missing, or asked for twice, is a fault and left out."""
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
    """(line number, name) of each line `number , name`."""
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


def _read(item: Item, size: Size) -> tuple[np.ndarray, np.ndarray]:
    height, width = size
    image = open_image(item.files[0]).convert("RGB")
    soft = np.empty((len(HELEN_CLASSES), height, width), np.float32)
    for k, path in enumerate(item.files[1:]):
        probability = open_byte_map(path)
        if probability.mode != "L":
            raise DataError(f"{path}: a soft map must be greyscale; this has a palette")
        if probability.size != image.size:
            raise DataError(
                f"{path}: is {_wh(probability)} px (W x H), its image {item.files[0].name} is {_wh(image)} px"
            )
        soft[k] = to_array(probability.convert("F").resize((width, height), Image.Resampling.BILINEAR))
    return to_array(image.resize((width, height), Image.Resampling.BILINEAR)), soft.argmax(0).astype(np.uint8)


def _wh(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
