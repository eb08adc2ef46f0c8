"""A user's own data: a folder a split, an image and an index map of the same name.

    root/<split>/images/<name>.{jpg,jpeg,png,bmp,webp,tif,tiff}
    root/<split>/labels/<name>.png    8 bits a pixel (greyscale or palette): the class id
    root/classes.txt                  optional: one class name a line, in the order of the ids

`train` must be there; `val` and `test` may be missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.data.image_set import (
    Faults,
    ImageSet,
    Item,
    Size,
    Split,
    common_size,
    load_splits,
    open_byte_map,
    open_image,
    require_folder,
    to_array,
)
from rfsearch.errors import DataError, nearest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_MEANT = {"validation": "val", "valid": "val", "dev": "val", "testing": "test"}
_HOLD_OUT = 5  # every 5th training image validates where there is no val folder
_COMMON_IGNORE = 255  # "void" in PASCAL VOC and Cityscapes label maps


def read_folder(
    root: Path | str,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    size: Size | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    *,
    hold_out_seed: int = 0,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Read a folder of images and index maps; everything that was guessed or left out is said in the set's notice.

    classes: names in the order of the ids. None: classes.txt, or else the ids found in the training labels, of which
    255 is then taken as the ignore index unless one is given. size: (H, W) to resize to (images bilinearly with
    anti-aliasing, labels to the nearest); None: the images' own size, or their most common one. Without a val folder
    every 5th training image is held out, chosen by a hash of its name and `hold_out_seed`.
    """
    root = require_folder(Path(root))
    if ignore_index is not None and not 0 <= ignore_index <= 255:
        raise DataError(f"{root}: the ignore index must be an 8-bit id, 0..255. Got {ignore_index}.")
    names = _class_names(root, classes)
    faults = Faults(root)
    notes: list[str] = []
    items = _find(root, faults, notes)
    _hold_out(root, items, hold_out_seed, notes)
    if size is None:
        size, note = common_size([item.files[0] for split in items.values() for item in split])
        notes += [note] if note else []
    target = size or (1, 1)  # nothing readable: the faults below say so
    splits = load_splits(items, lambda item: _read(item, target), target, faults, "folder", memory_limit_bytes, cache)

    present = {title: _ids(split) for title, split in splits.items()}
    if names is None:
        faults.check()  # ids inferred from part of the labels would accuse the others
        names, ignore_index, note = _infer(root, present["train"], ignore_index, faults)
        notes.append(note)
    for title, split_items in items.items():
        for item, ids in zip(split_items, present[title], strict=True):
            _check_range(item, ids, len(names), ignore_index, faults)
    faults.check()
    return ImageSet(root.name or str(root), names, ignore_index, splits, False, tuple(flip_pairs), " ".join(notes))


def _class_names(root: Path, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    source: Path | str = root
    if classes is None:
        source = root / "classes.txt"
        if not source.is_file():
            return None
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source}: class names are read as UTF-8 text. {error}.") from error
        classes = [line.strip() for line in text.splitlines() if line.strip()]
    names = tuple(classes)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{source}: class names must differ. Given twice: {', '.join(twice)}.")
    if not 2 <= len(names) <= 256:
        raise DataError(f"{source}: 2 to 256 class names are needed, one a line. Got {len(names)}.")
    return names


def _find(root: Path, faults: Faults, notes: list[str]) -> dict[str, list[Item]]:
    """The pairs of every split there is, sorted by name."""
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if "train" not in folders:
        raise DataError(f"{root}: there is no folder 'train'.{nearest('train', folders)}")
    for folder in folders:
        meant = _MEANT.get(folder.lower())
        if meant and meant not in folders:
            raise DataError(f"{root / folder}: the {meant} split must be in a folder {meant!r}. Rename this one.")
    items: dict[str, list[Item]] = {}
    for title in ("train", "val", "test"):
        if title not in folders:
            continue
        if title == "test" and not (root / "test" / "labels").is_dir():
            notes.append("The folder test has no labels and was left out: no test split.")
            continue
        items[title] = _pairs(root, title, faults, notes)
    if "test" not in folders:
        notes.append("There is no folder test: no test split.")
    return items


def _pairs(root: Path, title: str, faults: Faults, notes: list[str]) -> list[Item]:
    images, labels = require_folder(root / title / "images"), require_folder(root / title / "labels")
    by_name: dict[str, Path] = {}
    for file in sorted(images.iterdir()):
        if file.suffix.lower() not in SUFFIXES or file.name.startswith("."):
            continue
        if file.stem in by_name:
            faults.add(f"{file}: has the name of {by_name[file.stem].name}, so their label would be the same file")
        by_name.setdefault(file.stem, file)
    if not by_name:
        raise DataError(f"{images}: no image in it. Read are {', '.join(SUFFIXES)}.")
    label_names = {file.stem for file in labels.iterdir() if file.suffix == ".png" and not file.name.startswith(".")}
    for name in sorted(by_name.keys() - label_names):
        faults.add(f"{by_name[name]}: has no label {labels / name}.png")
    spare = len(label_names - by_name.keys())
    if spare:
        notes.append(f"Labels without an image in {title}, left out: {spare}.")
    return [Item(name, (by_name[name], labels / f"{name}.png")) for name in sorted(by_name.keys() & label_names)]


def _hold_out(root: Path, items: dict[str, list[Item]], seed: int, notes: list[str]) -> None:
    """Without a val split, move every 5th training image there, in the order of a seeded hash of the names."""
    if "val" in items or not items["train"]:
        return
    if len(items["train"]) < 2:
        raise DataError(f"{root}: there is no folder 'val', and a single training image cannot be divided.")
    order = sorted(items["train"], key=lambda item: hashlib.sha256(f"{seed}/{item.name}".encode()).digest())
    held = {item.name for item in order[::_HOLD_OUT]}
    items["val"] = [item for item in items["train"] if item.name in held]
    items["train"] = [item for item in items["train"] if item.name not in held]
    notes.append(
        f"There is no folder val: every {_HOLD_OUT}th training image ({len(held)} of {len(order)}) was held out to "
        f"validate, by a hash with seed {seed}."
    )


def _read(item: Item, size: Size) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = item.files
    image = open_image(image_path)
    label = open_byte_map(label_path)
    if label.size != image.size:
        raise DataError(
            f"{label_path}: is {label.width} x {label.height} px (W x H), "
            f"its image {image_path.name} is {image.width} x {image.height} px"
        )
    rgb, (height, width) = image.convert("RGB"), size
    if image.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
        label = label.resize((width, height), Image.Resampling.NEAREST)
    return to_array(rgb), to_array(label)


def _ids(split: Split) -> np.ndarray:
    """N x 256 bool: which ids each label map holds."""
    found = np.zeros((len(split), 256), bool)
    for row, label in zip(found, split.labels, strict=True):
        row[:] = np.bincount(label.ravel(), minlength=256) > 0
    return found


def _infer(
    root: Path, present: np.ndarray, ignore_index: int | None, faults: Faults
) -> tuple[tuple[str, ...], int | None, str]:
    ids = set(np.flatnonzero(present.any(axis=0)).tolist())
    guessed = ignore_index is None and _COMMON_IGNORE in ids
    ignore_index = _COMMON_IGNORE if guessed else ignore_index
    ids.discard(-1 if ignore_index is None else ignore_index)
    count = max(ids, default=0) + 1
    if count < 2:
        seen = f"0 and {_COMMON_IGNORE}" if guessed else "0"
        faults.add(
            f"{root / 'train' / 'labels'}: the labels hold only id {seen}, which is less than two classes. "
            "Write one id a class, 0, 1, 2, ..."
        )
    note = f"Class names were not given: {count} classes were inferred from the training labels' ids, 0..{count - 1}"
    note += f", with {_COMMON_IGNORE} taken as the ignore index." if guessed else "."
    return tuple(f"class {k}" for k in range(count)), ignore_index, note


def _check_range(item: Item, ids: np.ndarray, num_classes: int, ignore_index: int | None, faults: Faults) -> None:
    outside = [k for k in np.flatnonzero(ids[num_classes:]) + num_classes if k != ignore_index]
    if outside:
        listed = ", ".join(map(str, outside[:4])) + (", ..." if len(outside) > 4 else "")
        ignored = "no ignore index is set" if ignore_index is None else f"the ignore index is {ignore_index}"
        faults.add(f"{item.files[1]}: class id {listed} is outside 0..{num_classes - 1}, and {ignored}")
