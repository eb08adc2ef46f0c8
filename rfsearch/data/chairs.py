"""FlyingChairs in the layout its authors published.

Dosovitskiy et al., "FlowNet: Learning optical flow with convolutional networks", ICCV 2015.

    root/data/<number>_img1.ppm  <number>_img2.ppm  <number>_flow.flo
    root/FlyingChairs_train_val.txt     line n is of pair n: 1 is to be trained on, 2 to be reported on

DIR is that root, a folder that holds it as FlyingChairs_release, or the folder data itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.flo import read_flo
from rfsearch.data.flow_pairs import FlowLayout, read_pairs
from rfsearch.data.holding_out import hold_out
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.loading import Item
from rfsearch.errors import DataError, nearest

_SPLIT_FILE = "FlyingChairs_train_val.txt"
_PLACES = ("data", "FlyingChairs_release/data", "")
_PARTS = ("img1.ppm", "img2.ppm", "flow.flo")
_NAME = re.compile(r"(\d+)_(img1\.ppm|img2\.ppm|flow\.flo)")
_TITLES = {"1": "train", "2": "test"}
_HELD_SHARE, _HELD_MOST = 20, 640  # one training pair in 20 validates, and no more than test


class Chairs(FlowLayout):
    """Read FlyingChairs: pairs of .ppm, .flo and the split file. Test is its validation split, as in the papers."""

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of FlyingChairs."""
        root = require_folder(Path(root))
        faults = Faults(root)
        items, notes = _find_items(root, faults)
        return read_pairs(
            "chairs",
            items,
            lambda item: read_flo(item.files[2]),
            size,
            self,
            faults,
            notes,
            memory_limit_bytes,
            cache,
        )


def _find_items(root: Path, faults: Faults) -> tuple[dict[str, list[Item]], list[str]]:
    """Return the pairs of train, val and test, and how they were divided, in sentences."""
    folder = next((root / place for place in _PLACES if any((root / place).glob("*_flow.flo"))), None)
    if folder is None:
        raise DataError(
            f"{root}: no FlyingChairs here: there is no file NUMBER_flow.flo in DIR/data, "
            "DIR/FlyingChairs_release/data or DIR itself."
        )
    by_number: dict[str, set[str]] = {}
    for file in folder.iterdir():
        if match := _NAME.fullmatch(file.name):
            by_number.setdefault(match[1], set()).add(match[2])
    split_file = _split_file(root, folder)
    lines = split_file.read_text(encoding="utf-8", errors="replace").split()
    items: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for number in sorted(by_number):
        missing = [part for part in _PARTS if part not in by_number[number]]
        for part in missing:
            faults.add(f"{folder / number}_{part}: no such file; the pair's other files are there")
        said = lines[int(number) - 1] if 0 < int(number) <= len(lines) else None
        if said not in _TITLES:
            got = "it ends before" if said is None else f"got {said!r}"
            faults.add(f"{split_file}, line {int(number)}: 1 (train) or 2 (validation) for pair {number}; {got}")
        elif not missing:
            items[_TITLES[said]].append(Item(number, tuple(folder / f"{number}_{part}" for part in _PARTS)))
    if len(items["train"]) < 2:
        faults.check()
        raise DataError(f"{split_file}: at least two pairs are trained on, one of them to validate.")
    items["train"], items["val"] = hold_out(items["train"], 0, _HELD_SHARE, _HELD_MOST)
    notes = [
        f"Test is the validation split of {_SPLIT_FILE} ({len(items['test']):,} pairs), and val is "
        f"{len(items['val']):,} of its training pairs, held out by a hash of their numbers."
    ]
    if not items["test"]:
        del items["test"]
        notes = [f"No pair of the validation split of {_SPLIT_FILE} is here: no test split."]
    return items, notes


def _split_file(root: Path, folder: Path) -> Path:
    """Return the split file, beside the folder of pairs or near it."""
    places = dict.fromkeys([folder.parent, root, folder, folder.parent.parent])
    for place in places:
        if (place / _SPLIT_FILE).is_file():
            return place / _SPLIT_FILE
    texts = [file.name for place in places for file in place.glob("*.txt")]
    raise DataError(
        f"{folder.parent / _SPLIT_FILE}: no such file; its line n says whether pair n is trained on (1) or not (2). It "
        f"is published beside FlyingChairs.{nearest(_SPLIT_FILE, texts)}"
    )
