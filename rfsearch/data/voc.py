"""PASCAL VOC 2012 segmentation, with the additional annotation of SBD where it is there.

Everingham, Van Gool, Williams, Winn, Zisserman, "The PASCAL Visual Object Classes (VOC) challenge", IJCV 2010.
SBD: Hariharan, Arbelaez, Bourdev, Maji, Malik, "Semantic contours from inverse detectors", ICCV 2011.

    VOC/JPEGImages/<name>.jpg                            VOC: DIR, DIR/VOC2012 or DIR/VOCdevkit/VOC2012
    VOC/SegmentationClass/<name>.png                     a palette's index is the class id, 255 is void
    VOC/ImageSets/Segmentation/{train,val}.txt           a name a line
    VOC/SegmentationClassAug/<name>.png                  optional: VOC and SBD merged, 8-bit ids
    VOC/ImageSets/Segmentation/trainaug.txt              optional: what of it to train on; see _LISTS
    SBD/cls/<name>.mat  SBD/{train,val}.txt              optional, without SegmentationClassAug; see _SBD_PLACES
    SBD/img/<name>.jpg                                   optional: photographs that VOC/JPEGImages lacks

torchvision's VOCSegmentation and SBDataset unpack to these layouts, which are read here without them: they insist on
one folder name and stop at the first fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from rfsearch.data.fitting import MEAN_COLOUR, Resize, fit
from rfsearch.data.image_set import Faults, ImageSet, Item, Size, load_splits, nfc, require_folder
from rfsearch.data.labels import align, open_byte_map
from rfsearch.data.pictures import PLAIN_PICTURES, PictureRule, open_picture
from rfsearch.data.survey import survey
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

_PAPERS_TRAIN_ON = 10_582  # VOC train and SBD without VOC val
_HELD_SHARE, _HELD_MOST = 20, 500  # one training image in 20 validates, and no more than 500

_NEEDED = (
    "JPEGImages",
    "SegmentationClass",
    "ImageSets/Segmentation/train.txt",
    "ImageSets/Segmentation/val.txt",
)
_VOC_PLACES = ("", "VOC2012", "VOCdevkit/VOC2012")
_LISTS = tuple(
    f"{folder}{name}.txt"
    for name in ("trainaug", "train_aug", "aug")  # aug: without VOC train, which is added anyway
    for folder in ("ImageSets/Segmentation/", "ImageSets/SegmentationAug/", "SegmentationAug/", "list/", "")
)
_SBD_NEEDED = ("cls", "train.txt", "val.txt")
_SBD_PLACES = ("sbd", "SBD", "benchmark_RELEASE/dataset", "VOCaug/dataset")

Listed = dict[str, str]  # an image's name -> where it is asked for


@dataclass(frozen=True)
class _Source:
    """Annotation beyond VOC's own. names: what is to train on, VOC val and all. images: photographs of its own."""

    title: str
    names: Listed
    labels: Path
    suffix: str
    images: Path | None = None


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
    """VOC 2012 with 21 classes. `test` is VOC val, on which papers report; `val` is held out of the training images.

    Training images: VOC train and what SegmentationClassAug, or else SBD, adds to it, without VOC val; VOC's own
    annotation is taken where there is one. One in 20 of them, at most 500, is held out, chosen by a hash of its name
    and `hold_out_seed`. size: (H, W) to resize to (images bilinearly with anti-aliasing, labels to the nearest); None:
    the images' most common size. resize: how images of another shape are brought to it, see `fit`; padding is void. The
    notice says what was found and divided how.
    """
    root = require_folder(Path(root))
    voc = _find_voc(root)
    faults = Faults(root)
    train, test = (_listed(voc / f"ImageSets/Segmentation/{title}.txt", faults) for title in ("train", "val"))
    for name in sorted(train.keys() & test.keys()):
        faults.add(f"{train[name]}: image {name!r} is already listed in {test[name]}")
    more = _augmented(voc, faults) or _sbd(root, voc, faults)
    notes = [_training_note(train, test, more)]

    items = {
        "train": _items(voc, train, None, faults),
        "test": _items(voc, test, None, faults),
    }
    if more is not None:
        added = {name: where for name, where in more.names.items() if name not in train and name not in test}
        items["train"] = sorted(items["train"] + _items(voc, added, more, faults), key=lambda item: item.name)
    if len(items["train"]) < 2 or not items["test"]:
        faults.check()
        raise DataError(f"{root}: at least two training images are needed, one of them to validate.")
    items["train"], items["val"] = _hold_out(items["train"], hold_out_seed)
    notes.append(
        f"VOC's test labels are withheld: test is VOC val ({len(items['test']):,} images), and val is "
        f"{len(items['val']):,} of the training images, held out by a hash of their names with seed {hold_out_seed}."
    )

    read_mat = _mat_reader([item.files[1] for item in items["train"] + items["val"]])
    size, said = survey(items, size, resize, pictures, faults)
    notes += said
    target = size or (1, 1)  # nothing readable: the faults below say so

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        return _read(item, target, resize, pictures, read_mat)

    splits = load_splits(items, read, target, faults, ("voc", pictures, resize), memory_limit_bytes, cache)
    faults.check()
    return ImageSet("voc", VOC_CLASSES, VOC_IGNORE, splits, False, (), " ".join(notes))


def _find_voc(root: Path) -> Path:
    lacking = {
        folder: [part for part in _NEEDED if not (folder / part).exists()]
        for folder in (root / place for place in _VOC_PLACES)
    }
    closest = min(lacking, key=lambda folder: len(lacking[folder]))
    if not lacking[closest]:
        return closest
    partly = len(lacking[closest]) < len(_NEEDED)
    raise DataError(
        f"{root}: no PASCAL VOC 2012 here"
        + (f"; {closest} lacks {', '.join(lacking[closest])}" if partly else "")
        + ". DIR is read in two layouts: (a) DIR, DIR/VOC2012 or DIR/VOCdevkit/VOC2012 holds JPEGImages/, "
        "SegmentationClass/ and ImageSets/Segmentation/train.txt and val.txt, and may hold SegmentationClassAug/, "
        "VOC's and SBD's annotation merged; (b) that without SegmentationClassAug/, and SBD's cls/, train.txt and "
        f"val.txt in a folder {', '.join(_SBD_PLACES[:-1])} or {_SBD_PLACES[-1]} in DIR or beside VOC2012 or VOCdevkit."
    )


def _listed(path: Path, faults: Faults) -> Listed:
    """The images of a list: a line holds a name, or the paths of the photograph and of its map."""
    listed: Listed = {}
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        fields, where = line.split(), f"{path}, line {number}"
        if not fields:
            continue
        names = {nfc(PurePosixPath(part).stem) for part in fields}
        if len(fields) > 2 or len(names) > 1:
            faults.add(f"{where}: expected a name, or the paths of an image and its map, got {line.strip()!r}")
            continue
        name = names.pop()
        if name in listed:
            faults.add(f"{where}: image {name!r} is already listed in {listed[name]}")
        listed.setdefault(name, where)
    if not text.strip():
        faults.add(f"{path}: lists no image")
    return listed


def _augmented(voc: Path, faults: Faults) -> _Source | None:
    """What SegmentationClassAug adds: the images of its list, or without a list all its maps."""
    labels = voc / "SegmentationClassAug"
    if not labels.is_dir():
        return None
    title = "SegmentationClassAug"
    for place in _LISTS:
        if (voc / place).is_file():
            return _Source(f"{title} ({place})", _listed(voc / place, faults), labels, ".png")
    names = {name: f"{labels / name}.png" for name in sorted(_stems(labels, ".png"))}
    if not names:
        faults.add(f"{labels}: holds no PNG")
    return _Source(f"{title} (no list of it was found: all its maps)", names, labels, ".png")


def _sbd(root: Path, voc: Path, faults: Faults) -> _Source | None:
    """What SBD adds: its train.txt and val.txt together. Its train_noval.txt is part of them."""
    beside = voc.absolute().parent
    bases = dict.fromkeys([root.absolute(), beside, *([beside.parent] if beside.name == "VOCdevkit" else [])])
    found = [folder for base in bases for place in _SBD_PLACES if (folder := base / place).is_dir()]
    if not found:
        return None
    lacking = {folder: [part for part in _SBD_NEEDED if not (folder / part).exists()] for folder in found}
    sbd = min(found, key=lambda folder: len(lacking[folder]))
    if lacking[sbd]:
        raise DataError(f"{sbd}: SBD is read from cls/, train.txt and val.txt. Missing: {', '.join(lacking[sbd])}.")
    names = _listed(sbd / "val.txt", faults) | _listed(sbd / "train.txt", faults)
    return _Source(f"SBD ({sbd})", names, sbd / "cls", ".mat", sbd / "img")


def _training_note(train: Mapping[str, str], test: Mapping[str, str], more: _Source | None) -> str:
    """Which images are trained on, before some are held out."""
    if more is None:
        return (
            "There is neither SegmentationClassAug nor SBD beside it: the training images are VOC train alone, "
            f"{len(train):,}; the papers train on {_PAPERS_TRAIN_ON:,}."
        )
    left_out = len(more.names.keys() & test.keys())
    added = len(more.names.keys() - train.keys() - test.keys())
    note = f"Training images: {len(train):,} of VOC train and {added:,} that are added by {more.title}"
    note += f"; {left_out:,} more of it are in VOC val and were left out." if left_out else "."
    total = len(train) + added
    if total != _PAPERS_TRAIN_ON:
        note += f" These are {total:,}; the papers train on {_PAPERS_TRAIN_ON:,}."
    return note


def _items(voc: Path, names: Listed, more: _Source | None, faults: Faults) -> list[Item]:
    """The images and maps of these names, VOC's own first. One that is not there is a fault and left out."""
    images, labels = [(voc / "JPEGImages", ".jpg")], [(voc / "SegmentationClass", ".png")]
    if more is not None:
        images += [(more.images, ".jpg")] if more.images is not None and more.images.is_dir() else []
        labels += [(more.labels, more.suffix)]
    find_image, find_label = _finder(images), _finder(labels)
    items = []
    for name in sorted(names):
        image, label = find_image(name), find_label(name)
        if image is None:
            faults.add(f"{names[name]}: there is no {images[0][0] / name}.jpg")
        if label is None:
            folder, suffix = labels[-1]
            faults.add(f"{names[name]}: image {name!r} has no label {folder / name}{suffix}")
        if image is not None and label is not None:
            items.append(Item(name, (image, label)))
    return items


def _finder(places: Sequence[tuple[Path, str]]) -> Callable[[str], Path | None]:
    """Gives a name's file in the first place that has it. A folder is listed once: a data set has thousands."""
    present = [_stems(folder, suffix) for folder, suffix in places]

    def find(name: str) -> Path | None:
        return next((files[name] for files in present if name in files), None)

    return find


def _stems(folder: Path, suffix: str) -> dict[str, Path]:
    """The files of a folder by their names without the ending."""
    files = sorted(folder.iterdir())
    return {nfc(file.stem): file for file in files if file.suffix == suffix and not file.name.startswith(".")}


def _hold_out(items: Sequence[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """(train, val): the first ones in the order of a seeded hash of the names validate."""
    order = sorted(items, key=lambda item: hashlib.sha256(f"{seed}/{item.name}".encode()).digest())
    held = {item.name for item in order[: min(max(len(order) // _HELD_SHARE, 1), _HELD_MOST)]}
    return [item for item in items if item.name not in held], [item for item in items if item.name in held]


def _mat_reader(labels: Sequence[Path]) -> Callable[..., dict[str, Any]] | None:
    """scipy's reader of MATLAB files, if one of these is such a file."""
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
    """H x W ids of the field Segmentation of SBD's structure GTcls."""
    try:
        ids = np.asarray(read_mat(path, variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0])
    except Exception as cause:  # of any kind: scipy lets through whatever a torn file leads its parser to
        why = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise DataError(f"{path}: cannot be read as SBD's GTcls.Segmentation ({why})") from cause
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataError(f"{path}: GTcls.Segmentation must be H x W integers. Got {ids.shape=}, {ids.dtype=}")
    return ids
