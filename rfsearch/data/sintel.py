"""MPI Sintel, the training part, whose flow is published.

Butler, Wulff, Stanley, Black, "A naturalistic open source movie for optical flow evaluation", ECCV 2012.

    root/training/clean/<scene>/frame_0001.png ...      without atmospheric effects and blur
    root/training/final/<scene>/frame_0001.png ...      with them
    root/training/flow/<scene>/frame_0001.flo ...       from each frame to the next
    root/training/invalid/<scene>/frame_0001.png ...    optional: not 0 where the flow is not to be scored
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.flo import read_flo
from rfsearch.data.flow_pairs import FlowLayout, divide, read_pairs
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.labels import open_byte_map
from rfsearch.data.loading import Item
from rfsearch.errors import DataError, nearest

_PLACES = ("training", "MPI-Sintel-complete/training", "MPI-Sintel/training", "")


class Sintel(FlowLayout):
    """Read MPI Sintel's training scenes, divided by scene, as no truth is published for its test scenes.

    Args:
        passes: Which renderings: "clean", "final" or both.
        val_scenes: Scenes to validate on. Empty: one in five, by a hash of the names.
        test_scenes: Scenes to test on. Empty: one in five likewise, unless val_scenes are given.
    """

    passes: tuple[Literal["clean", "final"], ...] = Field(default=("clean", "final"), min_length=1)
    val_scenes: tuple[str, ...] = ()
    test_scenes: tuple[str, ...] = ()

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of MPI Sintel."""
        root = require_folder(Path(root))
        folder = next((root / place for place in _PLACES if (root / place / "flow").is_dir()), None)
        if folder is None:
            raise DataError(f"{root}: no MPI Sintel here: there is no folder flow in DIR/training or DIR itself.")
        scenes = sorted(entry.name for entry in (folder / "flow").iterdir() if entry.is_dir())
        titles = self._titles(folder, scenes)
        faults = Faults(root)
        items: dict[str, list[Item]] = {title: [] for title in ("train", "val", "test")}
        for rendering in dict.fromkeys(self.passes):
            for scene in scenes:
                items[titles[scene]] += _pairs(folder, require_folder(folder / rendering), scene, faults)
        held = "; ".join(
            f"{title}: {', '.join(sorted(scene for scene in scenes if titles[scene] == title))}"
            for title in ("val", "test")
            if title in titles.values()
        )
        notes = [f"Scenes of Sintel's {' and '.join(self.passes)} pass, held out whole: {held}."]
        items = {title: split for title, split in items.items() if split or title != "test"}
        max_pixels = self.pictures.max_pixels
        return read_pairs(
            "sintel",
            items,
            lambda item: _truth(item.files[2:], max_pixels),
            size,
            self,
            faults,
            notes,
            memory_limit_bytes,
            cache,
        )

    def _titles(self, folder: Path, scenes: Sequence[str]) -> dict[str, str]:
        """Return the split of each scene.

        Raises:
            DataError: There are too few, one that is named is not there, or one is named twice.
        """
        named = (*self.val_scenes, *self.test_scenes)
        if unknown := sorted(set(named) - set(scenes)):
            raise DataError(f"{folder / 'flow' / unknown[0]}: no such scene.{nearest(unknown[0], scenes)}")
        if both := sorted(set(self.val_scenes) & set(self.test_scenes)):
            raise DataError(f"{folder}: a scene is in one split. In val_scenes and test_scenes: {', '.join(both)}.")
        rest = [scene for scene in scenes if scene not in named]
        if len(rest) < (1 if self.val_scenes else 2):
            raise DataError(f"{folder / 'flow'}: one scene to train on and another to validate are needed.")
        titles = dict.fromkeys(rest, "train") if self.val_scenes else divide(rest)
        if self.test_scenes:
            titles = {scene: "train" if title == "test" else title for scene, title in titles.items()}
        return titles | dict.fromkeys(self.val_scenes, "val") | dict.fromkeys(self.test_scenes, "test")


def _pairs(folder: Path, images: Path, scene: str, faults: Faults) -> list[Item]:
    """Return the pairs of one scene in one rendering; missing files are faults."""
    items = []
    frames = sorted((images / scene).glob("*.png")) if (images / scene).is_dir() else []
    following = {frame.stem: after for frame, after in pairwise(frames)}
    for flow in sorted((folder / "flow" / scene).glob("*.flo")):
        if flow.stem not in following:
            faults.add(f"{flow}: there are no images {images / scene / flow.stem}.png and of the frame behind it")
            continue
        invalid = folder / "invalid" / scene / f"{flow.stem}.png"
        files = images / scene / f"{flow.stem}.png", following[flow.stem], flow
        items.append(Item(f"{images.name}/{scene}/{flow.stem}", (*files, *([invalid] if invalid.is_file() else []))))
    return items


def _truth(files: Sequence[Path], max_pixels: int) -> np.ndarray:
    """Read a field and, where there is one, the map of what is not to be scored."""
    flow = read_flo(files[0])
    for path in files[1:]:
        invalid = np.asarray(open_byte_map(path, max_pixels)) != 0
        if invalid.shape != flow.shape[:2]:
            raise DataError(f"{path}: is of another size than {files[0].name}")
        flow[invalid] = np.nan
    return flow
