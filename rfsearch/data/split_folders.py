"""Find where a folder's images and labels lie: split by split, or as one set that is still to be split.

    root/{train,val,test}/{images,labels}       `train` must be there
    root/{images,labels}                        one set, where there is no `train`

The labels may be in a folder of another name where it is the only one beside `images`. Everything else is refused in
one message: what was found, the nearest thing that works, and what is expected.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfsearch.data.faults import require_folder
from rfsearch.data.labels import some
from rfsearch.errors import DataError

SPLITS = ("train", "val", "test")
EXPECTED = (
    "Expected are DIR/train/images and DIR/train/labels, with val and test likewise, or only DIR/images and "
    "DIR/labels, which are then split; see docs/own_images.md."
)

_MEANT = {"validation": "val", "valid": "val", "dev": "val", "testing": "test"}
_IMAGES, _LABELS = "images", "labels"
_SHOWN = 12


@dataclass(frozen=True)
class LabelledFolder:
    """Name the two folders in which images and their labels lie.

    Args:
        title: Of the split; empty for one set that is still to be split.
        images: The folder of images.
        labels: The folder of labels.
    """

    title: str
    images: Path
    labels: Path


def find_labelled_folders(root: Path, notes: list[str]) -> list[LabelledFolder]:
    """Find the folders of every split, `train` first, or those of one set without splits.

    Args:
        root: The data set's folder.
        notes: Gets what was guessed or left out, one sentence each.

    Raises:
        DataError: The folder is laid out in another way.
    """
    folders = _folders_in(root)
    if "train" in folders:
        found = _splits_of(root, folders, notes)
    else:
        _check_is_one_set(root, folders)
        found = [LabelledFolder("", require_folder(root / _IMAGES), _labels_beside_images(root))]
    guessed = [folder.labels.relative_to(root).as_posix() for folder in found if folder.labels.name != _LABELS]
    if guessed:
        notes.append(f"There is no folder {_LABELS}: labels were read from {', '.join(guessed)}.")
    return found


def _splits_of(root: Path, folders: Collection[str], notes: list[str]) -> list[LabelledFolder]:
    for folder in folders:
        meant = _MEANT.get(folder.lower())
        if meant and meant not in folders:
            raise DataError(f"{root / folder}: the {meant} split must be in a folder {meant!r}. Rename this one.")
    found: list[LabelledFolder] = []
    usual = _LABELS
    for title in (title for title in SPLITS if title in folders):
        split = root / title
        # A test split may have no labels: its other folders are not taken for them unless train's has that name.
        if title == "test" and not any((split / name).is_dir() for name in (_LABELS, usual)):
            notes.append("The folder test has no labels and was left out: no test split.")
            continue
        images, labels = _images_of(split), _labels_beside_images(split, usual)
        usual = labels.name if title == "train" else usual
        found.append(LabelledFolder(title, images, labels))
    if "test" not in folders:
        notes.append("There is no folder test: no test split.")
    return found


def _check_is_one_set(root: Path, folders: Sequence[str]) -> None:
    """Refuse a folder that is neither split nor one set, with the nearest thing that works.

    Raises:
        DataError: It is not one set of images and labels.
    """
    if around := _set_around(root, folders):
        raise DataError(f"{root}: is a part of a data set. Give the whole, which is --data {around}. {EXPECTED}")
    splits = [folder for folder in folders if folder in SPLITS or folder.lower() in _MEANT]
    if _IMAGES in folders and not splits:
        return
    if _IMAGES in folders:
        what = f"there is no folder 'train', but there are {_IMAGES} beside the split {', '.join(splits)}"
        advice = f"Move {_IMAGES} and their labels into a folder 'train'. "
    else:
        what = "there is no folder 'train'" + ("" if splits else f", and no folder {_IMAGES!r} either")
        advice = _renaming("train", folders) or ("" if splits else _renaming(_IMAGES, folders) or _set_within(root))
    raise _refusal(root, what, root, advice)


def _set_around(root: Path, folders: Sequence[str]) -> Path | None:
    """Return the data set of which this folder is a split, or a split's or the set's images or labels."""
    here = root.absolute()
    one_up, two_up = Path(os.path.normpath(root / "..")), Path(os.path.normpath(root / ".." / ".."))
    if here.name in SPLITS and (one_up / "train" / _IMAGES).is_dir():
        return one_up
    if here.parent.name in SPLITS and (two_up / "train" / _IMAGES).is_dir():
        return two_up
    return one_up if not folders and (one_up / _IMAGES).is_dir() else None


def _set_within(root: Path) -> str:
    """Name the folders below which are data sets themselves."""
    sets = [name for name in _folders_in(root) if any((root / name / part).is_dir() for part in ("train", _IMAGES))]
    return f"Did you mean {some((f'--data {root / name}' for name in sets), _SHOWN)}? " if sets else ""


def _images_of(split: Path) -> Path:
    images = require_folder(split) / _IMAGES
    if not images.exists():
        others = [name for name in _folders_in(split) if name != _LABELS]
        raise _refusal(images, "no such folder", split, _renaming(_IMAGES, others))
    return require_folder(images)


def _labels_beside_images(folder: Path, usual: str = _LABELS) -> Path:
    """Return the folder of labels: that name or the usual one, or else the only other one there is."""
    others = [name for name in _folders_in(folder) if name != _IMAGES]
    for name in (_LABELS, usual):
        if (folder / name).exists():
            return require_folder(folder / name)
    if len(others) == 1:
        return folder / others[0]
    advice = f"Rename the one that holds the label maps to {_LABELS!r}. " if others else ""
    raise _refusal(folder / _LABELS, "no such folder", folder, advice)


def _renaming(wanted: str, folders: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in folders}
    close = difflib.get_close_matches(wanted, by_lower, n=1)
    return f"Did you mean {by_lower[close[0]]!r}? Rename it to {wanted!r}. " if close else ""


def _refusal(path: Path, what: str, folder: Path, advice: str) -> DataError:
    """Return the error for a path in a folder, or for the folder itself, with what lies in that folder."""
    folders, where = _folders_in(folder), "In it" if path == folder else "Beside it"
    found = f"{where}: {'folders' if len(folders) > 1 else 'the folder'} {some(folders, _SHOWN)}."
    if not folders:
        files = sum(not entry.name.startswith(".") for entry in folder.iterdir())
        found = f"{where}: {files} files, no folder." if files else f"{where}: nothing."
    return DataError(f"{path}: {what}. {found} {advice}{EXPECTED}")


def _folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in one, without those that programs hide there, such as .git or __MACOSX."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
