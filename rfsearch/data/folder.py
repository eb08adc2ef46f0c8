"""A user's own data: a folder for each split, or one set; an image and a label map of the same name.

    root/<split>/images/<name>.{jpg,jpeg,png,bmp,webp,tif,tiff}
    root/<split>/labels/<name>.{png,tif,tiff,bmp,gif}    a class id per pixel, or a colour: see `LabelRule`
    root/classes.txt                                     optional: one class name a line, in the order of the ids

`val` and `test` may be missing. Without `train`, root/images and root/labels are one set, which is split by a hash of
names. The only folder beside `images` holds the labels, whatever its name. Names of files are compared in Unicode's
composed form (NFC), however the file system writes them; other names are found by patterns, see `Naming`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from rfsearch.data.alignment import align
from rfsearch.data.class_ids import (
    COMMON_IGNORE,
    IGNORED,
    areas_of,
    class_names,
    grey_levels,
    ids_of,
    ids_of_colours,
    infer_classes,
    mask_rule,
)
from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.fitting import MEAN_COLOUR, Resize, fit
from rfsearch.data.id_range import check_id_range
from rfsearch.data.image_set import ImageSet, Size, Split
from rfsearch.data.labels import (
    LARGEST_CLASS,
    LARGEST_ID,
    OTHER,
    PLAIN_LABELS,
    Colour,
    LabelRule,
    StoredId,
    check_rule_is_given,
    open_label,
)
from rfsearch.data.loading import Item, load_splits
from rfsearch.data.pairs import PLAIN_NAMES, STEM, Naming, find_pairs
from rfsearch.data.picture_layout import Byte, PictureLayout
from rfsearch.data.pictures import PLAIN_PICTURES, PictureRule, open_picture
from rfsearch.data.survey import survey
from rfsearch.errors import DataError, nearest


def _as_several(colours: Any) -> Any:
    """Read a single [red, green, blue] as a row of colours."""
    single = isinstance(colours, (list, tuple)) and colours and not isinstance(colours[0], (list, tuple))
    return [colours] if single else colours


def _as_stored_id(key: Any) -> Any:
    """Read a key of the map of ids: TOML and JSON write numbers as text there."""
    number = int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 9 else key
    if key == OTHER or (isinstance(number, int) and 0 <= number <= LARGEST_ID):
        return number
    raise ValueError(
        f"a key is an id that the labels hold, at least 0 and less than or equal to {LARGEST_ID}, or `{OTHER}` for all "
        f"ids that are not listed. Got {key!r}"
    )


def _as_class_id(value: Any) -> Any:
    """Read a value of the map of ids."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_CLASS:
        return value
    raise ValueError(
        f"a value is the id of a class, a whole number of at least 0 and less than or equal to {LARGEST_CLASS}. "
        f"Got {value!r}"
    )


_StoredId = Annotated[StoredId, BeforeValidator(_as_stored_id)]
_ClassId = Annotated[int, BeforeValidator(_as_class_id)]
_OneOrSeveral = Annotated[tuple[tuple[Byte, Byte, Byte], ...], BeforeValidator(_as_several)]


class Folder(PictureLayout):
    """Read any folder of labelled images: DIR/{train,val,test}/{images,labels}, or DIR/{images,labels}.

    `classes` left out: the folder's classes.txt, else the names of `colours`, else the ids of the training labels.

    Args:
        images: How image files are named, such as "{stem}_leftImg8bit"; without an ending, any.
        labels: How label files are named, such as "{stem}_mask.png".
        map: Class id of each id that labels hold, and of all others as `other`.
        colours: Colours of each class by name, one [red, green, blue] or several, for labels that hold colours; those
            of `ignore` have no class.
        colour_match: Other colours are a fault ("exact"), or taken for the nearest one ("nearest").
        resize_labels: Labels of another size than their image are resized instead of being a fault.
    """

    images: str = STEM
    labels: str = STEM
    map: dict[_StoredId, _ClassId] = Field(default={})
    colours: dict[str, _OneOrSeveral] = Field(default={})
    colour_match: Literal["exact", "nearest"] = "exact"
    resize_labels: bool = False

    @field_validator("images", "labels")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        if value.count(STEM) != 1 or "/" in value or "\\" in value:
            raise ValueError(f'a file\'s name that holds {STEM} once, without a folder, such as "{STEM}_mask.png"')
        return value

    @field_validator("resize")
    @classmethod
    def _has_an_id_for_padding(cls, value: Resize, info: ValidationInfo) -> Resize:
        if value == "pad" and info.data.get("ignore_index") is None:
            raise ValueError(
                "padded pixels have no class: set ignore_index too, to an id that is no class, such as 255"
            )
        return value

    @field_validator("map")
    @classmethod
    def _gives_class_ids(cls, value: dict[StoredId, int], info: ValidationInfo) -> dict[StoredId, int]:
        count, ignored = len(info.data.get("classes", ())), info.data.get("ignore_index")
        outside = sorted({k for k in value.values() if count <= k != ignored}) if count else []
        if outside:
            raise ValueError(f"class ids are 0..{count - 1} and the ignore_index. Got {', '.join(map(str, outside))}")
        return value

    @field_validator("colours")
    @classmethod
    def _tells_classes_apart(
        cls, value: dict[str, tuple[Colour, ...]], info: ValidationInfo
    ) -> dict[str, tuple[Colour, ...]]:
        classes = info.data.get("classes", ())
        unknown = [name for name in value if classes and name not in (*classes, IGNORED)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no class.{nearest(unknown[0], (*classes, IGNORED))}")
        if value and info.data.get("map"):
            raise ValueError("labels hold ids or colours: give a map or colours")
        several = [colour for listed in value.values() for colour in listed]
        if twice := [list(colour) for colour in dict.fromkeys(several) if several.count(colour) > 1]:
            raise ValueError(f"each colour stands for one class. Given twice: {', '.join(map(str, twice))}")
        return value

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder of images and labels."""
        return read_folder(
            root,
            self.classes or None,
            self.ignore_index,
            size,
            self.flip_pairs,
            naming=Naming(self.images, self.labels),
            pictures=self.pictures,
            labels=LabelRule(map=self.map, nearest=self.colour_match == "nearest", resize=self.resize_labels),
            colours=self.colours,
            resize=self.resize,
            memory_limit_bytes=memory_limit_bytes,
            cache=cache,
        )


def read_folder(
    root: Path | str,
    classes: Sequence[str] | None = None,
    ignore_index: int | None = None,
    size: Size | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    *,
    naming: Naming = PLAIN_NAMES,
    pictures: PictureRule = PLAIN_PICTURES,
    labels: LabelRule = PLAIN_LABELS,
    colours: Mapping[str, Sequence[Colour]] | None = None,
    resize: Resize = "stretch",
    hold_out_seed: int = 0,
    memory_limit_bytes: int | None = None,
    cache: Path | str | None = None,
) -> ImageSet:
    """Read a folder of images and label maps; the set's notice says what was guessed or left out.

    Images are resized bilinearly with anti-aliasing, labels to the nearest. Without a val folder every 5th training
    image is held out, chosen by a hash of its name. Images that are not in splits at all are split by a hash of their
    names: 70% train, 15% val, 15% test.

    Args:
        root: The data set's folder.
        classes: Names in the order of the ids. None: classes.txt, or the names of `colours`, or else the ids found in
            the training labels, of which 255 is then taken as the ignore index unless one is given.
        ignore_index: Id of pixels that belong to no class, after `labels.map`.
        size: (H, W) px to resize to. None: the images' own size, or their most common one.
        flip_pairs: Class ids that a horizontal flip exchanges.
        naming: How files are named.
        pictures: How images are decoded.
        labels: How the ids of label files become class ids.
        colours: Colours of each class, by name, for colour-coded labels; those of `ignore` belong to no class.
        resize: How images of another shape are brought to the size, see `fit`. `pad` needs an ignore index.
        hold_out_seed: Of the hash by which training images are held out, or images are split.
        memory_limit_bytes: See `Layout.read`.
        cache: See `Layout.read`.

    Raises:
        DataError: With all faults of the folder, each with its file.
    """
    root = require_folder(Path(root))
    if ignore_index is not None and not 0 <= ignore_index <= 255:
        raise DataError(f"{root}: the ignore index must be an 8-bit id, 0..255. Got {ignore_index}.")
    names = class_names(root, classes, colours)
    if colours:
        ignore_index = COMMON_IGNORE if ignore_index is None and IGNORED in colours else ignore_index
        labels = replace(labels, colours=ids_of_colours(root, colours, names or (), ignore_index))
    if resize == "pad" and ignore_index is None:
        raise DataError(f'{root}: padded pixels belong to no class: resize = "pad" needs an ignore index, such as 255.')
    faults = Faults(root)
    notes: list[str] = []
    items = find_pairs(root, naming, hold_out_seed, faults, notes)

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

    names, ignore_index = _settled_classes(root, names, ignore_index, labels, items, splits, faults, notes)
    return ImageSet(root.name or str(root), names, ignore_index, splits, False, tuple(flip_pairs), " ".join(notes))


def _settled_classes(
    root: Path,
    names: tuple[str, ...] | None,
    ignore_index: int | None,
    labels: LabelRule,
    items: Mapping[str, Sequence[Item]],
    splits: Mapping[str, Split],
    faults: Faults,
    notes: list[str],
) -> tuple[tuple[str, ...], int | None]:
    """Return the names of the classes and the ignore index, inferred where they were not given.

    Raises:
        DataError: Labels hold ids that are none of these, or grey levels rather than ids.
    """
    present = {title: ids_of(split) for title, split in splits.items()}
    areas = areas_of(splits["train"])
    where = next((item.files[1].parent for item in items["train"]), root)
    inferred = names is None
    if names is None:
        faults.check()  # ids inferred from part of the labels would accuse the others
        names, ignore_index, note = infer_classes(where, areas, labels.map, ignore_index, faults)
        notes.append(note)
    levels = [] if labels.map or labels.colours else grey_levels(areas)
    if len(levels) == len(names) and ignore_index not in levels and np.any(areas[len(names) :]):
        faults.add(f"{where}: {mask_rule(areas, levels, names)}")
        faults.check()
    files = [item.files[1] for title in items for item in items[title]]
    held = zip(files, np.concatenate([present[title] for title in items]), strict=True)
    check_id_range(held, len(names), ignore_index, faults, mapped=bool(labels.map), inferred=inferred)
    faults.check()
    return names, ignore_index
