"""Which images of PASCAL VOC 2012 to train, choose and test on, and where their files lie.

VOC/ImageSets/Segmentation/{train,val}.txt           a name a line
VOC/SegmentationClassAug/<name>.png                  optional: VOC and SBD merged, 8-bit ids
VOC/ImageSets/Segmentation/trainaug.txt              optional: what of it to train on; see _LISTS
SBD/cls/<name>.mat  SBD/{train,val}.txt              optional, without SegmentationClassAug; see _SBD_PLACES
SBD/img/<name>.jpg                                   optional: photographs that VOC/JPEGImages lacks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rfsearch.data.faults import Faults
from rfsearch.data.holding_out import hold_out
from rfsearch.data.loading import Item, nfc
from rfsearch.errors import DataError

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
    """Name annotation beyond VOC's own.

    Args:
        title: What messages call it.
        names: The images that it annotates, VOC val and all.
        labels: Folder of its maps.
        suffix: Ending of their files.
        images: Folder of photographs of its own.
    """

    title: str
    names: Listed
    labels: Path
    suffix: str
    images: Path | None = None


def find_items(root: Path, hold_out_seed: int, faults: Faults) -> tuple[dict[str, list[Item]], list[str]]:
    """Find the photograph and the map of every image.

    Args:
        root: Holds VOC, and may hold SBD.
        hold_out_seed: Of the hash by which some training images validate.
        faults: Gets what is missing or listed twice.

    Returns:
        The items of train, val and test, and what was found and divided how, one sentence each.
    """
    voc = _find_voc(root)
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
    items["train"], items["val"] = hold_out(items["train"], hold_out_seed, _HELD_SHARE, _HELD_MOST)
    notes.append(
        f"VOC's test labels are withheld: test is VOC val ({len(items['test']):,} images), and val is "
        f"{len(items['val']):,} of the training images, held out by a hash of their names with seed {hold_out_seed}."
    )
    return items, notes


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
    """Return the images of a list: a line holds a name, or the paths of the photograph and of its map."""
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
    """Return what SegmentationClassAug adds: the images of its list, or without a list all its maps."""
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
    """Return what SBD adds: its train.txt and val.txt together. Its train_noval.txt is part of them."""
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
    """Say which images are trained on, before some are held out."""
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
    """Return the images and maps of these names, VOC's own first. One that is missing is a fault and left out."""
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
    """Return what gives a name's file in the first place that has it. A folder is listed once, for it has thousands."""
    present = [_stems(folder, suffix) for folder, suffix in places]

    def find(name: str) -> Path | None:
        return next((files[name] for files in present if name in files), None)

    return find


def _stems(folder: Path, suffix: str) -> dict[str, Path]:
    """Return the files of a folder by their names without the ending."""
    files = sorted(folder.iterdir())
    return {nfc(file.stem): file for file in files if file.suffix == suffix and not file.name.startswith(".")}
