"""A user's own data: a folder a split, an image and a label map of the same name.

    root/<split>/images/<name>.{jpg,jpeg,png,bmp,webp,tif,tiff}
    root/<split>/labels/<name>.{png,tif,tiff,bmp,gif}    a class id per pixel, or a colour: see `LabelRule`
    root/classes.txt                                     optional: one class name a line, in the order of the ids

`train` must be there; `val` and `test` may be missing. Names are compared in Unicode's composed form (NFC), however the
file system writes them; other names are found by patterns, see `Naming`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from rfsearch.data.fitting import MEAN_COLOUR, Resize, fit
from rfsearch.data.image_set import (
    Faults,
    ImageSet,
    Item,
    Size,
    Split,
    load_splits,
    nfc,
    require_folder,
)
from rfsearch.data.labels import (
    PLAIN_LABELS,
    Colour,
    LabelRule,
    StoredId,
    align,
    check_rule_is_given,
    list_colours,
    list_ids,
    open_label,
    some,
)
from rfsearch.data.pictures import PLAIN_PICTURES, PictureRule, open_picture
from rfsearch.data.survey import survey
from rfsearch.errors import DataError, nearest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
IGNORED = "ignore"  # in a table of colours: what belongs to no class

_MEANT = {"validation": "val", "valid": "val", "dev": "val", "testing": "test"}
_PARTS = ("images", "labels")
_HOLD_OUT = 5  # every 5th training image validates where there is no val folder
_COMMON_IGNORE = 255  # "void" in PASCAL VOC and Cityscapes label maps
_LOSSY_SUFFIXES = (".jpg", ".jpeg")  # found by a pattern that names them, for labels of colours
_STEM = "{stem}"
_LIKELY_FROM = 50  # images from which a pattern of names is guessed

# Labels of so many ids whose lowest and highest hold so much of the area are the smoothed edges of a mask, not classes.
# The classes of VOC with their void, the closest among real sets, hold 0.79.
_SMOOTH_IDS, _SMOOTH_SHARE = 16, 0.9
_RARE = 0.02  # an id of a smaller share of the area may be of an edge, where ids leave gaps that no class fills


@dataclass(frozen=True)
class Naming:
    """How files are named. Each pattern holds `{stem}` once, which is what an image and its label have in common.

    Without an ending, any of those that are read is taken, in capitals too: `{stem}_mask` also finds `7_mask.TIF`.

    Args:
        images: Pattern of image files, such as `{stem}_leftImg8bit.png`.
        labels: Pattern of label files, such as `{stem}_mask.png`.
    """

    images: str = _STEM
    labels: str = _STEM


def read_folder(
    root: Path | str,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    size: Size | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    *,
    naming: Naming = Naming(),
    pictures: PictureRule = PLAIN_PICTURES,
    labels: LabelRule = PLAIN_LABELS,
    colours: Mapping[str, Sequence[Colour]] | None = None,
    resize: Resize = "stretch",
    hold_out_seed: int = 0,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Read a folder of images and label maps; everything that was guessed or left out is said in the set's notice.

    Images are resized bilinearly with anti-aliasing, labels to the nearest. Without a val folder every 5th training
    image is held out, chosen by a hash of its name and `hold_out_seed`.

    Args:
        classes: Names in the order of the ids. None: classes.txt, or the names of `colours`, or else the ids found in
            the training labels, of which 255 is then taken as the ignore index unless one is given.
        ignore_index: Id of pixels that belong to no class, after `labels.map`.
        size: (H, W) px to resize to. None: the images' own size, or their most common one.
        colours: Colours of each class, by name, for colour-coded labels; those of `ignore` belong to no class.
        resize: How images of another shape are brought to the size, see `fit`. `pad` needs an ignore index.

    Raises:
        DataError: With all faults of the folder, each with its file.
    """
    root = require_folder(Path(root))
    if ignore_index is not None and not 0 <= ignore_index <= 255:
        raise DataError(f"{root}: the ignore index must be an 8-bit id, 0..255. Got {ignore_index}.")
    names = _class_names(root, classes, colours)
    if colours:
        ignore_index = _COMMON_IGNORE if ignore_index is None and IGNORED in colours else ignore_index
        labels = replace(labels, colours=_ids_of_colours(root, colours, names or (), ignore_index))
    if resize == "pad" and ignore_index is None:
        raise DataError(f'{root}: padded pixels belong to no class: resize = "pad" needs an ignore index, such as 255.')
    faults = Faults(root)
    notes: list[str] = []
    items = _find(root, naming, faults, notes)
    _hold_out(root, items, hold_out_seed, notes)

    label_files = [item.files[1] for split in items.values() for item in split]
    check_rule_is_given(label_files, labels, pictures.max_pixels)
    size, said = survey(items, size, resize, pictures, faults, labels.resize)
    notes += said
    target = size or (1, 1)  # nothing readable: the faults below say so
    near: dict[str, int] = {}

    def read(item: Item) -> tuple[np.ndarray, np.ndarray]:
        picture = open_picture(item.files[0], pictures)
        ids, count = open_label(item.files[1], labels, pictures.max_pixels)
        if count:
            near[str(item.files[1])] = count
        ids = align(ids, item.files[1], picture, labels.resize)
        placed = fit(picture.size, target, resize)
        return (
            np.asarray(placed.lay(picture.rgb, Image.Resampling.BILINEAR, MEAN_COLOUR)),
            np.asarray(placed.lay(ids, Image.Resampling.NEAREST, ignore_index or 0)),
        )

    settings = ("folder", pictures, labels, resize, ignore_index if resize == "pad" else None)
    splits = load_splits(items, read, target, faults, settings, memory_limit_bytes, cache, near)
    if near:
        worst = max(near, key=lambda path: near[path])
        notes.append(
            f"Label pixels whose colour is not listed, taken for the nearest colour that is: {sum(near.values()):,} in "
            f"{len(near)} labels (most, {near[worst]:,}, in {Path(worst).name})."
        )

    present = {title: _ids(split) for title, split in splits.items()}
    if names is None:
        faults.check()  # ids inferred from part of the labels would accuse the others
        names, ignore_index, note = _infer(root, _areas(splits["train"]), labels.map, ignore_index, faults)
        notes.append(note)
    areas = _areas(splits["train"])
    levels = [] if labels.map or labels.colours else _levels(areas)
    if len(levels) == len(names) and ignore_index not in levels and np.any(areas[len(names) :]):
        faults.add(f"{root / 'train' / 'labels'}: {_mask_rule(areas, levels, names)}")
        faults.check()
    for title, split_items in items.items():
        for item, ids in zip(split_items, present[title], strict=True):
            _check_range(item, ids, len(names), ignore_index, faults)
    faults.check()
    return ImageSet(root.name or str(root), names, ignore_index, splits, False, tuple(flip_pairs), " ".join(notes))


def _class_names(
    root: Path, classes: Sequence[str] | None, colours: Mapping[str, Sequence[Colour]] | None
) -> tuple[str, ...] | None:
    source: Path | str = root
    if classes is None and not (root / "classes.txt").is_file():
        if not colours:
            return None
        classes = [name for name in colours if name != IGNORED]
    if classes is None:
        source = root / "classes.txt"
        try:
            text = source.read_text(encoding="utf-8-sig")
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


def _ids_of_colours(
    root: Path, colours: Mapping[str, Sequence[Colour]], names: Sequence[str], ignore_index: int | None
) -> dict[Colour, int]:
    """The class id of each colour."""
    ids = {name: k for k, name in enumerate(names)}
    if ignore_index is not None:
        ids.setdefault(IGNORED, ignore_index)
    for name in colours:
        if name not in ids:
            raise DataError(f"{root}: colours are given for {name!r}, which is no class.{nearest(name, ids)}")
    return {colour: ids[name] for name, listed in colours.items() for colour in listed}


def _find(root: Path, naming: Naming, faults: Faults, notes: list[str]) -> dict[str, list[Item]]:
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
        items[title] = _pairs(root, title, naming, faults, notes)
    if "test" not in folders:
        notes.append("There is no folder test: no test split.")
    return items


def _pairs(root: Path, title: str, naming: Naming, faults: Faults, notes: list[str]) -> list[Item]:
    images, labels = _folder_of(root / title, "images"), _folder_of(root / title, "labels")
    by_name, label_of = _by_stem(images, naming.images, SUFFIXES), _by_stem(labels, naming.labels, LABEL_SUFFIXES)
    if not by_name:
        pattern = "" if naming.images == _STEM else f" by the name {naming.images!r}"
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
        faults.add(f"{by_name[name][0]}: has no label {labels / naming.labels.replace(_STEM, name)}{suffix}")
    spare = len(label_of.keys() - by_name.keys())
    if spare:
        notes.append(f"Labels without an image in {title}, left out: {spare}.")
    return [Item(name, (by_name[name][0], label_of[name][0])) for name in sorted(by_name.keys() & label_of.keys())]


def _folder_of(split: Path, name: str) -> Path:
    """The folder of a split's images or labels."""
    split = require_folder(split)
    if not (split / name).exists():
        others = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and entry.name not in _PARTS)
        raise DataError(
            f"{split / name}: no such folder. A split has a folder images and a folder labels.{nearest(name, others)}"
        )
    return require_folder(split / name)


def _by_stem(folder: Path, pattern: str, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files whose names fit a pattern, by what stands in the place of {stem}, as NFC."""
    start, end = nfc(pattern).split(_STEM)
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
    """The ending of a pattern, or nothing where any is taken."""
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
            file.replace(base, _STEM, 1)
            for file in files
            for base in bases
            if base in file and file.lower().endswith((*LABEL_SUFFIXES, *_LOSSY_SUFFIXES))
        )
        complete = sorted(pattern for pattern, count in patterns.items() if count == len(bases))
        exact = [pattern for pattern in complete if not pattern.lower().endswith(_LOSSY_SUFFIXES)]
        if complete:
            own = f'images = "{_STEM}{cut}" and ' if cut else ""
            listed = " or ".join(f'labels = "{pattern}"' for pattern in exact or complete)
            lossy = "" if exact else ', and a table of colours with colour_match = "nearest": a JPEG changes ids'
            return f"Set in [data] of the space's file: {own}{listed}{lossy}"
    return ""


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


def _ids(split: Split) -> np.ndarray:
    """N x 256 bool: which ids each label map holds."""
    found = np.zeros((len(split), 256), bool)
    for row, label in zip(found, split.labels, strict=True):
        row[:] = np.bincount(label.ravel(), minlength=256) > 0
    return found


def _areas(split: Split) -> np.ndarray:
    """256 int64: the number of pixels of each id."""
    return np.sum([np.bincount(label.ravel(), minlength=256) for label in split.labels], axis=0)


def _infer(
    root: Path, areas: np.ndarray, mapping: Mapping[StoredId, int], ignore_index: int | None, faults: Faults
) -> tuple[tuple[str, ...], int | None, str]:
    """Number the classes by the ids that a map gives, or else by those that the training labels hold."""
    ids = set(mapping.values()) if mapping else set(np.flatnonzero(areas).tolist())
    guessed = ignore_index is None and _COMMON_IGNORE in ids
    smooth = not mapping and ignore_index is None and _is_smooth(areas)
    ignore_index = _COMMON_IGNORE if guessed else ignore_index
    stored = sorted(ids)
    ids.discard(-1 if ignore_index is None else ignore_index)
    count = max(ids, default=0) + 1
    missing = sorted(set(range(count)).difference(stored))
    where, hint = root / "train" / "labels", f"map = {list_ids(stored)}"
    if count < 2:
        ignored = ", of which the ignored one is no class" if len(stored) > len(ids) else ""
        both = f". If all are classes, set in [data] of the space's file: {hint}" if ignored and ids else ""
        both += " and no ignore_index" if both and not guessed else ""
        held = " and ".join(map(str, stored))
        faults.add(
            f"{where}: the labels hold only id {held}{ignored}, which is less than two classes. Write one id a class, "
            f"0, 1, 2, ...{both}"
        )
    elif mapping and missing:
        faults.add(
            f"{where}: the map gives class ids {some(stored)}, but not {some(missing)}. Number the classes "
            "0, 1, 2, ..., or name all of them in classes.txt"
        )
    elif smooth:
        faults.add(f"{where}: {_mask_rule(areas, [stored[0], stored[-1]])}. If not, name the classes in classes.txt")
    elif len(missing) >= len(ids):
        what = f"the labels hold only ids {', '.join(map(str, stored))}, which would make {count} classes. Say"
        if levels := _levels(areas):
            what = f"{_mask_rule(areas, levels)}. If not, say"
        faults.add(
            f"{where}: {what} which class each is, in [data] of the space's file: {hint}. If the other ids are classes "
            "too, name all of them in classes.txt"
        )
    note = f"Class names were not given: {count} classes were inferred from the training labels' ids, 0..{count - 1}"
    if mapping:
        note = f"Class names were not given: the map's ids are {count} classes, 0..{count - 1}"
    note += f", with {_COMMON_IGNORE} taken as the ignore index" if guessed else ""
    note += f", of which no training label holds {some(missing)}." if missing else "."
    return tuple(f"class {k}" for k in range(count)), ignore_index, note


def _is_smooth(areas: np.ndarray) -> bool:
    """Whether ids are the grey levels of a two-coloured mask whose edges were smoothed."""
    ids = np.flatnonzero(areas)
    return len(ids) > _SMOOTH_IDS and areas[ids[[0, -1]]].sum() > _SMOOTH_SHARE * areas.sum()


def _levels(areas: np.ndarray) -> list[int]:
    """The ids that hold most of the area, where more others hold hardly any: those may be what smoothing or compression
    made of them.
    """
    ids = np.flatnonzero(areas)
    common = ids[areas[ids] >= _RARE * areas.sum()]
    return common.tolist() if 2 <= len(common) < len(ids) / 2 else []


def _mask_rule(areas: np.ndarray, levels: Sequence[int], names: Sequence[str] = ()) -> str:
    """Say that labels look like a mask of these grey levels, and how it is read."""
    share = areas[levels].sum() / areas.sum()
    names = names or (("background", "object") if len(levels) == 2 else [f"class {k}" for k in range(len(levels))])
    listed = list_colours(names, [(level, level, level) for level in levels])
    return (
        f"the labels hold {np.count_nonzero(areas)} ids, but {', '.join(map(str, levels[:-1]))} and {levels[-1]} cover "
        f"{share:.0%} of the area, as in a mask with smoothed edges. If so, set in [data] of the space's file: "
        f'colours = {listed} and colour_match = "nearest"'
    )


def _check_range(item: Item, ids: np.ndarray, num_classes: int, ignore_index: int | None, faults: Faults) -> None:
    outside = [k for k in np.flatnonzero(ids[num_classes:]) + num_classes if k != ignore_index]
    if outside:
        ignored = "no ignore index is set" if ignore_index is None else f"the ignore index is {ignore_index}"
        held = np.flatnonzero(ids).tolist()
        hint = f". To say which class each id is: [data] map = {list_ids(held)}" if len(held) <= num_classes else ""
        if ignore_index is not None and ignore_index < num_classes:
            hint = f". Names are in the order of the ids, from 0 on: the ignored id {ignore_index} has one too"
        faults.add(f"{item.files[1]}: class id {some(outside, 4)} is outside 0..{num_classes - 1}, and {ignored}{hint}")
