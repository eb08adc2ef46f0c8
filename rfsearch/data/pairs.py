"""Find the images of a folder and the label of each, split by split, whatever their names.

Names are compared in Unicode's composed form (NFC), however the file system writes them. All that is missing or
ambiguous becomes a fault that names its file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.holding_out import in_hashed_order
from rfsearch.data.loading import Item, nfc
from rfsearch.errors import DataError, nearest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
STEM = "{stem}"  # in a pattern of file names: what an image and its label have in common

_MEANT = {"validation": "val", "valid": "val", "dev": "val", "testing": "test"}
_PARTS = ("images", "labels")
_HOLD_OUT = 5  # every 5th training image validates where there is no val folder
_LOSSY_SUFFIXES = (".jpg", ".jpeg")  # found by a pattern that names them, for labels of colours
_LIKELY_FROM = 50  # images from which a pattern of names is guessed


@dataclass(frozen=True)
class Naming:
    """Say how files are named. Each pattern holds `{stem}` once, which is what an image and its label have in common.

    Without an ending, any of those that are read is taken, in capitals too: `{stem}_mask` also finds `7_mask.TIF`.

    Args:
        images: Pattern of image files, such as `{stem}_leftImg8bit.png`.
        labels: Pattern of label files, such as `{stem}_mask.png`.
    """

    images: str = STEM
    labels: str = STEM


PLAIN_NAMES = Naming()


def find_pairs(root: Path, naming: Naming, faults: Faults, notes: list[str]) -> dict[str, list[Item]]:
    """Find the pairs of every split there is, sorted by name.

    Args:
        root: The data set's folder.
        naming: How files are named.
        faults: Gets what is missing or ambiguous.
        notes: Gets what was left out, one sentence each.

    Raises:
        DataError: There is no train split, or a folder is named unlike any split or part of one.
    """
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
        items[title] = _pairs(root, title, naming, faults, notes)
    if "test" not in folders:
        notes.append("There is no folder test: no test split.")
    return items


def _pairs(root: Path, title: str, naming: Naming, faults: Faults, notes: list[str]) -> list[Item]:
    images, labels = _folder_of(root / title, "images"), _folder_of(root / title, "labels")
    by_name, label_of = _by_stem(images, naming.images, SUFFIXES), _by_stem(labels, naming.labels, LABEL_SUFFIXES)
    if not by_name:
        pattern = "" if naming.images == STEM else f" by the name {naming.images!r}"
        below = " Folders below it are not looked into." if any(entry.is_dir() for entry in images.iterdir()) else ""
        raise DataError(f"{images}: no image in it{pattern}. Read are {', '.join(SUFFIXES)}.{below}")
    if not label_of.keys() & by_name.keys() and (likely := _likely_naming(by_name, labels)):
        raise DataError(f"{labels}: none of its files is a label by the name {naming.labels!r}. {likely}")
    for files in by_name.values():
        for file in files[1:]:
            faults.add(f"{file}: has the name of {files[0].name}, so their label would be the same file")
    for name in sorted(label_of.keys() & by_name.keys()):
        for file in label_of[name][1:]:
            faults.add(f"{file}: is a label of {by_name[name][0].name}, and so is {label_of[name][0].name}")
    for name in sorted(by_name.keys() - label_of.keys()):
        suffix = "" if _suffix(naming.labels) else ".png"
        faults.add(f"{by_name[name][0]}: has no label {labels / naming.labels.replace(STEM, name)}{suffix}")
    spare = len(label_of.keys() - by_name.keys())
    if spare:
        notes.append(f"Labels without an image in {title}, left out: {spare}.")
    return [Item(name, (by_name[name][0], label_of[name][0])) for name in sorted(by_name.keys() & label_of.keys())]


def _folder_of(split: Path, name: str) -> Path:
    """Return the folder of a split's images or labels."""
    split = require_folder(split)
    if not (split / name).exists():
        others = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and entry.name not in _PARTS)
        raise DataError(
            f"{split / name}: no such folder. A split has a folder images and a folder labels.{nearest(name, others)}"
        )
    return require_folder(split / name)


def _by_stem(folder: Path, pattern: str, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files whose names fit a pattern, by what is in the place of {stem}, as NFC."""
    start, end = nfc(pattern).split(STEM)
    if suffix := _suffix(pattern):
        end, suffixes = end[: -len(suffix)], [suffix]
    fits = re.compile(f"{re.escape(start)}(.+){re.escape(end)}(?i:{'|'.join(map(re.escape, suffixes))})")
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        match = fits.fullmatch(nfc(file.name))
        if match and not file.name.startswith("."):
            found.setdefault(match[1], []).append(file)
    return found


def _suffix(pattern: str) -> str:
    """Return the ending of a pattern, or nothing where any is taken."""
    suffix = Path(pattern).suffix
    return suffix if suffix.lower() in SUFFIXES + LABEL_SUFFIXES else ""


def _likely_naming(stems: Iterable[str], labels: Path) -> str:
    """Suggest the pattern by which most of a folder's files would be labels of these images."""
    files = [nfc(file.name) for file in labels.iterdir() if not file.name.startswith(".")]
    stems = sorted(stems)[:_LIKELY_FROM]
    tails = {stem[stem.rfind("_") :] if "_" in stem[1:] else "" for stem in stems}
    tail = tails.pop() if len(tails) == 1 else ""
    for cut in dict.fromkeys(("", tail)):  # images may have an ending of their own, such as _leftImg8bit
        bases = {stem.removesuffix(cut) for stem in stems}
        patterns = Counter(
            file.replace(base, STEM, 1)
            for file in files
            for base in bases
            if base in file and file.lower().endswith((*LABEL_SUFFIXES, *_LOSSY_SUFFIXES))
        )
        complete = sorted(pattern for pattern, count in patterns.items() if count == len(bases))
        exact = [pattern for pattern in complete if not pattern.lower().endswith(_LOSSY_SUFFIXES)]
        if complete:
            own = f'images = "{STEM}{cut}" and ' if cut else ""
            listed = " or ".join(f'labels = "{pattern}"' for pattern in exact or complete)
            lossy = "" if exact else ', and a table of colours with colour_match = "nearest": a JPEG changes ids'
            return f"Set in [data] of the space's file: {own}{listed}{lossy}"
    return ""


def hold_out(root: Path, items: dict[str, list[Item]], seed: int, notes: list[str]) -> None:
    """Move every 5th training image to a val split where there is none, in the order of a seeded hash of the names."""
    if "val" in items or not items["train"]:
        return
    if len(items["train"]) < 2:
        raise DataError(f"{root}: there is no folder 'val', and a single training image cannot be divided.")
    order = in_hashed_order((item.name for item in items["train"]), seed)
    held = set(order[::_HOLD_OUT])
    items["val"] = [item for item in items["train"] if item.name in held]
    items["train"] = [item for item in items["train"] if item.name not in held]
    notes.append(
        f"There is no folder val: every {_HOLD_OUT}th training image ({len(held)} of {len(order)}) was held out to "
        f"validate, by a hash with seed {seed}."
    )
