"""KITTI's flow of 2012 and 2015, the training part, whose sparse truth is published.

Geiger, Lenz, Urtasun, "Are we ready for autonomous driving?", CVPR 2012; Menze, Geiger, "Object scene flow for
autonomous vehicles", CVPR 2015.

    root/training/image_2/<number>_10.png  <number>_11.png     2015; colored_0 or image_0 in 2012
    root/training/flow_occ/<number>_10.png                     with occluded pixels; flow_noc without

A field is a PNG of 16 bits: the displacement to the right is (R - 2^15) / 64 px, downwards (G - 2^15) / 64 px, and it
is known where B is not 0 (readme of the development kit).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from rfsearch.data.faults import Faults, require_folder
from rfsearch.data.flow_pairs import FlowLayout, divide, read_pairs
from rfsearch.data.image_set import ImageSet, Size
from rfsearch.data.loading import Item
from rfsearch.errors import DataError

_IMAGES = ("image_2", "colored_0", "image_0")
_TRUTHS = {"occ": "flow_occ", "noc": "flow_noc"}
_ZERO, _STEPS = 2**15, 64.0
_VERBS = {"val": "validate", "test": "test"}


class Kitti(FlowLayout):
    """Read KITTI's training pairs, some held out, as no truth is published for its test pairs.

    Args:
        truth: "occ": also of pixels that are occluded in the second image; "noc": without them.
    """

    truth: Literal["occ", "noc"] = "occ"

    def read(
        self,
        root: Path,
        size: Size | None,
        *,
        cache: Path | str | None = None,
        memory_limit_bytes: int | None = None,
    ) -> ImageSet:
        """Read a folder in the layout of KITTI's flow."""
        root = require_folder(Path(root))
        truths = _TRUTHS[self.truth]
        folder = next((root / place for place in ("training", "") if (root / place / truths).is_dir()), None)
        if folder is None:
            raise DataError(f"{root}: no KITTI flow here: there is no folder {truths} in DIR/training or DIR itself.")
        images = next((folder / name for name in _IMAGES if (folder / name).is_dir()), None)
        if images is None:
            raise DataError(f"{folder}: there is no folder of images: {', '.join(_IMAGES[:-1])} or {_IMAGES[-1]}.")
        faults = Faults(root)
        pairs = _pairs(folder / truths, images, faults)
        if len(pairs) < 2:
            faults.check()
            raise DataError(f"{folder / truths}: one pair to train on and another to validate are needed.")
        titles = divide([item.name for item in pairs])
        items = {title: [item for item in pairs if titles[item.name] == title] for title in ("train", "val", "test")}
        items = {title: split for title, split in items.items() if split}
        held = " and ".join(f"{len(items[title]):,} to {verb}" for title, verb in _VERBS.items() if title in items)
        notes = [f"KITTI publishes no truth of its test pairs: of its training pairs {held} are held out by a hash."]
        return read_pairs(
            "kitti",
            items,
            lambda item: read_kitti_flow(item.files[2]),
            size,
            self,
            faults,
            notes,
            memory_limit_bytes,
            cache,
        )


def _pairs(truths: Path, images: Path, faults: Faults) -> list[Item]:
    """Return the pairs that have a truth; missing images are faults."""
    found = []
    for flow in sorted(truths.glob("*_10.png")):
        name = flow.stem.removesuffix("_10")
        files = images / f"{name}_10.png", images / f"{name}_11.png"
        missing = [file for file in files if not file.is_file()]
        for file in missing:
            faults.add(f"{flow}: there is no image {file}")
        if not missing:
            found.append(Item(name, (*files, flow)))
    return found


def read_kitti_flow(path: Path) -> np.ndarray:
    """Read a field: H x W x 2 float32, to the right and downwards, px; NaN where it is unknown.

    Raises:
        DataError: The file is missing, damaged, or no PNG of three channels of 16 bits.
    """
    from torchvision.io import ImageReadMode, decode_png  # slow to import, and other layouts need none of it

    try:
        body = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        values = decode_png(body, ImageReadMode.UNCHANGED)
    except OSError as cause:
        raise DataError(f"{path}: {'no such file' if not path.exists() else cause.strerror or cause}") from cause
    except (RuntimeError, ValueError) as cause:
        raise DataError(f"{path}: cannot be decoded as PNG ({next(iter(str(cause).splitlines()), '')})") from cause
    if values.dtype != torch.uint16 or values.shape[0] != 3:
        raise DataError(
            f"{path}: KITTI's flow is a PNG of 3 channels of 16 bits. Got {values.shape[0]} of "
            f"{8 * values.element_size()} bits"
        )
    right, down, known = values.numpy().astype(np.float32)
    flow = np.stack([(right - _ZERO) / _STEPS, (down - _ZERO) / _STEPS], axis=2)
    flow[known == 0] = np.nan
    return flow
