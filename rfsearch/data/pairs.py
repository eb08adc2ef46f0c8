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

from rfsearch.data.faults import Faults
from rfsearch.data.holding_out import in_hashed_order, split_by_hash
from rfsearch.data.loading import Item, nfc
from rfsearch.data.split_folders import EXPECTED, LabelledFolder, find_labelled_folders
from rfsearch.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
STEM = "{stem}"  # in a pattern of file names: what an image and its label have in common

_HOLD_OUT = 5  # every 5th training image validates where there is no val folder
_PERCENT = {"train": 70, "val": 15, "test": 15}  # of a set without splits
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


def find_pairs(root: Path, naming: Naming, seed: int, faults: Faults, notes: list[str]) -> dict[str, list[Item]]:
    """Find the pairs of train, val and, where there is one, test, sorted by name.

    Args:
        root: The data set's folder.
        naming: How files are named.
        seed: Of the hash by which images are held out, or split, where there are no folders for that.
        faults: Gets what is missing or ambiguous.
        notes: Gets what was guessed, held out or left out, one sentence each.

    Raises:
        DataError: The folder is laid out in another way, or has too few images to be split.
    """
    found = {folder.title: folder for folder in find_labelled_folders(root, notes)}
    items = {title: _pairs(folder, naming, faults, notes) for title, folder in found.items()}
    if "train" not in items:
        return _split(root, items[""], seed, faults, notes)
    _hold_out(root, items, seed, notes)
    return items


def _pairs(folder: LabelledFolder, naming: Naming, faults: Faults, notes: list[str]) -> list[Item]:
    images, labels = folder.images, folder.labels
    by_name, label_of = _by_stem(images, naming.images, SUFFIXES), _by_stem(labels, naming.labels, LABEL_SUFFIXES)
    if not by_name:
        pattern = "" if naming.images == STEM else f" by the name {naming.images!r}"
        below = any(entry.is_dir() for entry in images.iterdir())
        hint = f" Folders below it are not looked into. {EXPECTED}" if below else ""
        raise DataError(f"{images}: no image in it{pattern}. Read are {', '.join(SUFFIXES)}.{hint}")
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
        place = f" in {folder.title}" if folder.title else ""
        notes.append(f"Labels without an image{place}, left out: {spare}.")
    return [Item(name, (by_name[name][0], label_of[name][0])) for name in sorted(by_name.keys() & label_of.keys())]


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


def _hold_out(root: Path, items: dict[str, list[Item]], seed: int, notes: list[str]) -> None:
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


def _split(root: Path, items: Sequence[Item], seed: int, faults: Faults, notes: list[str]) -> dict[str, list[Item]]:
    """Split a set that has no splits, by a seeded hash of each name."""
    if not items:
        faults.check()  # each image lacks its label
    split = split_by_hash(items, seed, _PERCENT)
    shares = ", ".join(f"{title} {share}%" for title, share in _PERCENT.items())
    if empty := [title for title in ("train", "val") if not split[title]]:
        raise DataError(
            f"{root}: there are no folders train, val and test, so that each image's split follows from a hash of its "
            f"name ({shares}). None of the {len(items)} images got into {' and '.join(empty)}, as may happen with so "
            f"few. Add images, or split them yourself, into folders. {EXPECTED}"
        )
    counts = ", ".join(f"{title} {len(split[title])}" for title in _PERCENT)
    notes.append(
        f"There are no folders train, val and test: the {len(items)} images were split by a hash of their names with "
        f"seed {seed} ({counts}; on average {shares}). Images that are nearly alike, such as frames of one video, may "
        "then be in several splits, which makes scores too good: split such images by folders."
    )
    if not split["test"]:
        del split["test"]
    return split
