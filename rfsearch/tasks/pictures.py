"""Example pictures: what a trained network makes of a few images, kept beside its checkpoint for the report.

They are plain RGB, so that whoever shows them needs to know nothing of the task. It imports no torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rfsearch.numbers import number
from rfsearch.tasks import colours

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Show what a network makes of some images.

    Args:
        images, truths, predictions: N x H x W x 3 uint8, RGB.
        captions: How well truth and prediction of each image agree, in a few words, or "".
        legend: What the colours of truths and predictions mean, in the order to show them.
        caption_says: What the captions are, as a sentence, or "".
    """

    images: np.ndarray
    truths: np.ndarray
    predictions: np.ndarray
    captions: tuple[str, ...]
    legend: Mapping[str, Colour]
    caption_says: str = ""

    def __post_init__(self) -> None:
        """Refuse arrays that are no pictures of the same images."""
        shape = self.images.shape
        arrays = self.images, self.truths, self.predictions
        if len(shape) != 4 or shape[-1] != 3 or any(a.shape != shape or a.dtype != np.uint8 for a in arrays):
            got = ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
            raise ValueError(f"images, truths and predictions must be N x H x W x 3 uint8 alike. Got {got}.")
        if len(self.captions) != len(self.images):
            raise ValueError(f"Each image has a caption. Got {len(self.images)} images, {len(self.captions)} captions.")

    def write(self, file: BinaryIO) -> None:
        """Write them to an .npz file that `read` reads."""
        np.savez_compressed(
            file,
            images=self.images,
            truths=self.truths,
            predictions=self.predictions,
            captions=np.array(self.captions, np.str_),
            legend_names=np.array(list(self.legend), np.str_),
            legend_colours=np.array(list(self.legend.values()), np.uint8).reshape(-1, 3),
            caption_says=np.array(self.caption_says, np.str_),
        )


def of_class_maps(images: np.ndarray, truth: np.ndarray, prediction: np.ndarray, classes: Sequence[str]) -> Pictures:
    """Draw class maps in the colours of the classes.

    Args:
        images: N x C x H x W uint8; the first three channels are shown, of fewer the first one in grey.
        truth: N x H x W uint8 class ids, 255 where a pixel has none.
        prediction: Likewise.
        classes: Names in the order of the ids.
    """
    shares = colours.agreements(truth, prediction)
    return Pictures(
        shown(images),
        colours.coloured(truth),
        colours.coloured(prediction),
        tuple("" if share is None else f"{number(100 * share)} %" for share in shares),
        colours.legend((truth, prediction), classes),
        "The figure is the share of pixels where truth and prediction agree.",
    )


def shown(images: np.ndarray) -> np.ndarray:
    """Return images, N x C x H x W uint8, as pictures, N x H x W x 3.

    They show the first three channels, or the first one in grey where there are fewer.
    """
    channels = images[:, :3] if images.shape[1] >= 3 else images[:, :1].repeat(3, axis=1)
    return np.ascontiguousarray(channels.transpose(0, 2, 3, 1))


def read(file: Path, classes: Sequence[str]) -> Pictures | None:
    """Read example pictures; None where there are none, or none that can be read.

    Args:
        file: What `Pictures.write` wrote, or a file of an earlier version, which holds class maps.
        classes: Names in the order of the ids, for those of an earlier version.
    """
    try:
        with np.load(file, allow_pickle=False) as held:
            arrays = {key: np.asarray(held[key]) for key in held.files}
        if "truth" in arrays:
            return _of_earlier_version(arrays, classes)
        names, values = arrays["legend_names"].tolist(), arrays["legend_colours"].tolist()
        return Pictures(
            arrays["images"],
            arrays["truths"],
            arrays["predictions"],
            tuple(arrays["captions"].tolist()),
            {name: (r, g, b) for name, (r, g, b) in zip(names, values, strict=True)},
            str(arrays["caption_says"]),
        )
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _of_earlier_version(arrays: Mapping[str, np.ndarray], classes: Sequence[str]) -> Pictures | None:
    images, truth, prediction = arrays["images"], arrays["truth"], arrays["prediction"]
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        return None
    if not truth.shape == prediction.shape == (len(images), *images.shape[2:]):
        return None
    images, truth, prediction = (array.astype(np.uint8) for array in (images, truth, prediction))
    return of_class_maps(images, truth, prediction, classes)
