"""Boxes in the layout of COCO: one JSON file for each split.

Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; the format is that of cocodataset.org/#format-data.

    DIR/annotations/instances_train2017.json     images, annotations (bbox: x, y, width, height from 0; iscrowd),
    DIR/annotations/instances_val2017.json       categories
    DIR/annotations/instances_test*.json         optional, with annotations
    DIR/train2017/<file_name> ...                or DIR/images/train2017, DIR/images, DIR/train, or beside the JSON

A split's file is the one whose name, or whose folder's, has `train`, `val` (or `valid`) or `test` in it; of several,
one that begins with `instances`. Objects whose `iscrowd` is 1 are difficult. Classes are in the order of their ids.
What becomes of faulty boxes: `rfsearch.data.box_files`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfsearch.data.box_files import Annotated, BoxLayout, Photograph, make_set
from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.errors import DataError

_SPLITS = ("train", "val", "test")


class Coco(BoxLayout):
    """Read boxes as COCO lays them out."""

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of COCO."""
        root = require_folder(Path(root))
        faults, photographs, categories = Faults(root), {}, dict[int, str]()
        for title, file in _files(root, faults).items():
            body = _body(file, faults)
            names = {int(one["id"]): str(one["name"]).strip() for one in body["categories"]}
            for number, name in names.items():
                if categories.setdefault(number, name) != name:
                    faults.add(f"{file}: category {number} is {name!r}, and {categories[number]!r} in another split")
            photographs[title] = _photographs(root, title, file, body, names, faults)
        ordered = tuple(dict.fromkeys(categories[number] for number in sorted(categories)))
        layout = self if self.classes else self.model_copy(update={"classes": ordered})
        return make_set(
            root.name, photographs, layout, size, faults, memory_limit_bytes=memory_limit_bytes, cache=cache
        )


def _files(root: Path, faults: Faults) -> dict[str, Path]:
    """Return the JSON file of each split."""
    known = sorted([*root.glob("annotations/*.json"), *root.glob("*.json"), *root.glob("*/*.json")])
    found: dict[str, Path] = {}
    for title in _SPLITS:
        files = [
            file
            for file in dict.fromkeys(known)
            if title
            in (
                file.stem if file.parent.name == "annotations" or file.parent == root else f"{file.parent.name}"
            ).lower()
        ]
        files = [file for file in files if file.stem.startswith("instances")] or files
        if len(files) == 1:
            found[title] = files[0]
        elif files:
            faults.add(f"{', '.join(str(f.relative_to(root)) for f in files)}: which one is {title}? Keep one of them")
        elif title != "test":
            faults.add(f"no JSON file of {title}: annotations/instances_{title}*.json, or {title}/*.json")
    return found


def _body(file: Path, faults: Faults) -> Mapping[str, Any]:
    """Return what a JSON file holds, with the three lists of COCO's format."""
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as cause:
        faults.add(f"{file}: cannot be read as JSON ({' '.join(str(cause).split())})")
        body = {}
    needed = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}
    sound: dict[str, list[Any]] = {}
    for name, keys in needed.items():
        rows = body.get(name) if isinstance(body, dict) else None
        if body and not isinstance(rows, list):
            faults.add(f"{file}: has no list {name!r}, as COCO's format does")
        rows = rows if isinstance(rows, list) else []
        lacking = [row for row in rows if not (isinstance(row, dict) and all(key in row for key in keys))]
        if lacking:
            faults.add(f"{file}: {len(lacking)} of {name} have no {' and '.join(keys)} (first: {str(lacking[0])[:80]})")
        sound[name] = [row for row in rows if row not in lacking] if lacking else rows
    return sound


def _photographs(
    root: Path, title: str, file: Path, body: Mapping[str, Any], names: Mapping[int, str], faults: Faults
) -> list[Photograph]:
    by_image: dict[int, list[Annotated]] = {}
    for one in body["annotations"]:
        by_image.setdefault(one["image_id"], []).append(
            Annotated(names.get(one["category_id"], ""), _box(one.get("bbox")), bool(one.get("iscrowd", 0)))
        )
    unknown = set(by_image) - {one["id"] for one in body["images"]}
    if unknown:
        faults.add(f"{file}: {len(unknown)} images that are annotated are not in `images` (first: id {min(unknown)})")
    stem = file.stem.removeprefix("instances_")
    folders = [root / stem, root / "images" / stem, root / "images", root / title, file.parent, root]
    found = []
    for one in body["images"]:
        paths = (folder / one["file_name"] for folder in folders)
        image = next((path for path in paths if path.is_file()), None)
        if image is None:
            faults.add(f"{one['file_name']}: no such file in {', '.join(str(folder) for folder in folders[:4])}")
            continue
        size = (int(one["height"]), int(one["width"])) if one.get("height") and one.get("width") else None
        objects = tuple(by_image.get(one["id"], ()))
        found.append(Photograph(f"{title}/{one['file_name']}", image, file, objects, size))
    if not found and not faults:
        raise DataError(f"{file}: lists no image")
    return found


def _box(given: Any) -> tuple[float, float, float, float]:
    """Return x1, y1, x2, y2 of a bbox, NaN where it is none."""
    try:
        left, upper, width, height = map(float, given)
    except (TypeError, ValueError):
        return math.nan, math.nan, math.nan, math.nan
    return left, upper, left + width, upper + height
