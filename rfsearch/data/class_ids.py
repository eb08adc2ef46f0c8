"""Which classes a folder has: as they were named, or as the ids of its label maps say.

Labels that hold a mask's grey levels look like many classes. They are recognised by their areas, and the message says
how such a mask is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rfsearch.data.faults import Faults
from rfsearch.data.image_set import Split
from rfsearch.data.labels import Colour, StoredId, list_colours, list_ids, some
from rfsearch.errors import DataError, nearest

IGNORED = "ignore"  # in a table of colours: what belongs to no class
COMMON_IGNORE = 255  # "void" in PASCAL VOC and Cityscapes label maps

# Labels of so many ids whose lowest and highest hold so much of the area are the smoothed edges of a mask, not classes.
# The classes of VOC with their void, the closest among real sets, hold 0.79.
_SMOOTH_IDS, _SMOOTH_SHARE = 16, 0.9
_RARE = 0.02  # an id of a smaller share of the area may be of an edge, where ids leave gaps that no class fills


def ids_of(split: Split) -> np.ndarray:
    """Return which ids each label map holds, N x 256 bool."""
    found = np.zeros((len(split), 256), bool)
    for row, label in zip(found, split.targets, strict=True):
        row[:] = np.bincount(label.ravel(), minlength=256) > 0
    return found


def areas_of(split: Split) -> np.ndarray:
    """Return the number of pixels of each id, 256 int64."""
    result: np.ndarray = np.sum([np.bincount(label.ravel(), minlength=256) for label in split.targets], axis=0)
    return result


def infer_classes(
    where: Path, areas: np.ndarray, mapping: Mapping[StoredId, int], ignore_index: int | None, faults: Faults
) -> tuple[tuple[str, ...], int | None, str]:
    """Number the classes by the ids that a map gives, or else by those that the training labels hold.

    Args:
        where: The folder of the training labels, for messages.
        areas: Number of training pixels of each id, 256.
        mapping: Class id of each stored id; empty where ids are class ids.
        ignore_index: Id of pixels without a class. None: 255, if it occurs.
        faults: Gets a message where these ids can be no classes.

    Returns:
        Names of the classes, the ignore index, and a sentence that says what was inferred.
    """
    ids = set(mapping.values()) if mapping else set(np.flatnonzero(areas).tolist())
    guessed = ignore_index is None and COMMON_IGNORE in ids
    smooth = not mapping and ignore_index is None and _is_smooth(areas)
    ignore_index = COMMON_IGNORE if guessed else ignore_index
    stored = sorted(ids)
    ids.discard(-1 if ignore_index is None else ignore_index)
    count = max(ids, default=0) + 1
    missing = sorted(set(range(count)).difference(stored))
    hint = f"map = {list_ids(stored)}"
    if count < 2:
        ignored = ", of which the ignored one is no class" if len(stored) > len(ids) else ""
        both = f". If all are classes, set in [data] of the space's file: {hint}" if ignored and ids else ""
        both += " and no ignore_index" if both and not guessed else ""
        held = " and ".join(map(str, stored))
        faults.add(
            f"{where}: the labels hold only id {held}{ignored}, which is less than two classes. Write one id per "
            f"class, 0, 1, 2, ...{both}"
        )
    elif mapping and missing:
        faults.add(
            f"{where}: the map gives class ids {some(stored)}, but not {some(missing)}. Number the classes "
            "0, 1, 2, ..., or name all of them in classes.txt"
        )
    elif smooth:
        faults.add(f"{where}: {mask_rule(areas, [stored[0], stored[-1]])}. If not, name the classes in classes.txt")
    elif len(missing) >= len(ids):
        what = f"the labels hold only ids {', '.join(map(str, stored))}, which would make {count} classes. Say"
        if levels := grey_levels(areas):
            what = f"{mask_rule(areas, levels)}. If not, say"
        faults.add(
            f"{where}: {what} which class each is, in [data] of the space's file: {hint}. If the other ids are classes "
            "too, name all of them in classes.txt"
        )
    note = f"Class names were not given: {count} classes were inferred from the training labels' ids, 0..{count - 1}"
    if mapping:
        note = f"Class names were not given: the map's ids are {count} classes, 0..{count - 1}"
    note += f", with {COMMON_IGNORE} taken as the ignore index" if guessed else ""
    note += f", of which no training label holds {some(missing)}." if missing else "."
    return tuple(f"class {k}" for k in range(count)), ignore_index, note


def _is_smooth(areas: np.ndarray) -> bool:
    """Return whether ids are the grey levels of a two-coloured mask whose edges were smoothed."""
    ids = np.flatnonzero(areas)
    return len(ids) > _SMOOTH_IDS and areas[ids[[0, -1]]].sum() > _SMOOTH_SHARE * areas.sum()


def grey_levels(areas: np.ndarray) -> list[int]:
    """Return the ids that hold most of the area, where more others hold hardly any.

    Those others may be what smoothing or compression made of them.
    """
    ids = np.flatnonzero(areas)
    common = ids[areas[ids] >= _RARE * areas.sum()]
    return common.tolist() if 2 <= len(common) < len(ids) / 2 else []


def mask_rule(areas: np.ndarray, levels: Sequence[int], names: Sequence[str] = ()) -> str:
    """Say that labels look like a mask of these grey levels, and how it is read."""
    share = areas[levels].sum() / areas.sum()
    names = names or (("background", "object") if len(levels) == 2 else [f"class {k}" for k in range(len(levels))])
    listed = list_colours(names, [(level, level, level) for level in levels])
    return (
        f"the labels hold {np.count_nonzero(areas)} ids, but {', '.join(map(str, levels[:-1]))} and {levels[-1]} cover "
        f"{share:.0%} of the area, as in a mask with smoothed edges. If so, set in [data] of the space's file: "
        f'colours = {listed} and colour_match = "nearest"'
    )


def class_names(
    root: Path, classes: Sequence[str] | None, colours: Mapping[str, Sequence[Colour]] | None
) -> tuple[str, ...] | None:
    """Return the names that were given, or else those of classes.txt or of the colours; None where there are none.

    Raises:
        DataError: classes.txt cannot be read, or the names are no 2 to 256 different ones.
    """
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
        raise DataError(f"{source}: 2 to 256 class names are needed, one per line. Got {len(names)}.")
    return names


def ids_of_colours(
    root: Path, colours: Mapping[str, Sequence[Colour]], names: Sequence[str], ignore_index: int | None
) -> dict[Colour, int]:
    """Return the class id of each colour.

    Raises:
        DataError: A name is no class.
    """
    ids = {name: k for k, name in enumerate(names)}
    if ignore_index is not None:
        ids.setdefault(IGNORED, ignore_index)
    for name in colours:
        if name not in ids:
            raise DataError(f"{root}: colours are given for {name!r}, which is no class.{nearest(name, ids)}")
    return {colour: ids[name] for name, listed in colours.items() for colour in listed}
