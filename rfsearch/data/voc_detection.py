"""Boxes in the layout of PASCAL VOC's detection.

Everingham, Van Gool, Williams, Winn, Zisserman, "The PASCAL Visual Object Classes (VOC) challenge", IJCV 2010.

    VOC/JPEGImages/<name>.jpg                    VOC: DIR, DIR/VOC2012, DIR/VOC2007 or below DIR/VOCdevkit
    VOC/Annotations/<name>.xml                   objects with name, bndbox and difficult
    VOC/ImageSets/Main/{train,val,test}.txt      a name per line; test may be missing

Pixels count from 1 and a box holds its last one (xmin 1, xmax W: the whole width), unless first_pixel = 0 says that
they count from 0. What becomes of faulty boxes: `rfsearch.data.box_files`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from rfsearch.data.box_files import Annotated, BoxLayout, Photograph, make_set
from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.loading import nfc
from rfsearch.data.threads import attempt, thread_pool
from rfsearch.errors import DataError

_PLACES = ("", "VOC2012", "VOC2007", "VOCdevkit/VOC2012", "VOCdevkit/VOC2007")
_LISTS = "ImageSets/Main"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp")


class VocDetection(BoxLayout):
    """Read boxes as PASCAL VOC lays them out.

    Args:
        first_pixel: What the first pixel is called: 1, as VOC does, or 0.
    """

    first_pixel: Literal[0, 1] = 1

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of PASCAL VOC's detection."""
        home = _home_of(require_folder(Path(root)))
        faults, photographs = Faults(root), {}
        for title, names in _lists(home, faults).items():
            with thread_pool() as pool:
                found = pool.map(attempt(lambda name: _photograph(home, name, self.first_pixel)), names)
                kept = []
                for one in found:
                    if isinstance(one, DataError):
                        faults.add(str(one))
                    else:
                        kept.append(one)
            photographs[title] = kept
        return make_set(
            Path(root).name, photographs, self, size, faults, memory_limit_bytes=memory_limit_bytes, cache=cache
        )


def _home_of(root: Path) -> Path:
    """Return the folder that holds the three that a set consists of.

    Raises:
        DataError: There is none.
    """
    needed = ("JPEGImages", "Annotations", _LISTS)
    for place in _PLACES:
        if all((root / place / part).is_dir() for part in needed):
            return root / place
    missing = [part for part in needed if not (root / part).is_dir()]
    raise DataError(
        f"{root}: PASCAL VOC's detection has the folders {', '.join(needed)}, here or in one of "
        f"{', '.join(_PLACES[1:])}. Missing here: {', '.join(missing)}."
    )


def _lists(home: Path, faults: Faults) -> dict[str, list[str]]:
    """Return the names of each split, and note those that are listed twice."""
    found: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for title in ("train", "val", "test"):
        file = home / _LISTS / f"{title}.txt"
        if not file.is_file():
            if title != "test":
                faults.add(f"{file}: no such file; it lists the images of {title}, a name per line")
            continue
        lines = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        found[title] = [nfc(line[0]) for line in lines if line]
        for name in found[title]:
            if name in seen:
                faults.add(f"{file}: lists {name}, which {seen[name]} lists too")
            seen[name] = f"{title}.txt"
        if not found[title]:
            faults.add(f"{file}: lists no image")
    return found


def _photograph(home: Path, name: str, first_pixel: int) -> Photograph:
    """Read what is written of an image.

    Raises:
        DataError: A file is missing or no annotation.
    """
    source, folder = home / "Annotations" / f"{name}.xml", home / "JPEGImages"
    image = next((path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)
    if image is None:
        raise DataError(f"{folder / name}.jpg: no such file; {_LISTS} lists it")
    try:
        tree = ElementTree.parse(source).getroot()
    except FileNotFoundError as cause:
        raise DataError(f"{source}: no such file; {_LISTS} lists it") from cause
    except (ElementTree.ParseError, UnicodeDecodeError, OSError, ValueError) as cause:
        raise DataError(f"{source}: cannot be read as XML ({' '.join(str(cause).split())})") from cause
    height, width = (_number(tree, f"size/{side}") for side in ("height", "width"))
    known = height >= 1 and width >= 1  # some tools write 0 x 0
    objects = tuple(_annotated(source, one, first_pixel) for one in tree.iter("object"))
    return Photograph(name, image, source, objects, (int(height), int(width)) if known else None)


def _annotated(source: Path, one: ElementTree.Element, first_pixel: int) -> Annotated:
    name = (one.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{source}: an object has no name")
    left, upper, right, lower = (_number(one, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
    # The last pixel is inside: its far edge is one more.
    box = left - first_pixel, upper - first_pixel, right + 1 - first_pixel, lower + 1 - first_pixel
    return Annotated(name, box, _number(one, "difficult") == 1)


def _number(element: ElementTree.Element, place: str) -> float:
    """Return a number written in an element, NaN where there is none."""
    try:
        return float(element.findtext(place) or "nan")
    except ValueError:
        return math.nan
