"""Inputs that both fuzzers change: the one that Hypothesis drives and the one that coverage leads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CANDIDATE = '{"conv6": [{"dilation": 4, "f": 0.8, "learned": true, "labels": ["nose"]}, {"dilation": 2}]}'
PATCH: dict[str, Any] = {
    "format": "rfsearch-patch", "version": 1, "backbone": "wei-small", "classes": ["a", "b"],
    "sites": {"0": {"dilation": 2, "f": 0.8}}, "settings": {},
}  # fmt: skip


def write_images(root: Path) -> None:
    """Write two labelled images of 8 x 8 px to each of `train` and `val`."""
    for split in ("train", "val"):
        for kind, mode in (("images", "RGB"), ("labels", "L")):
            (root / split / kind).mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng(number).integers(0, 3, (8, 8) if mode == "L" else (8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8), mode).save(root / split / kind / f"{number}.png")
