"""Draw fields of displacements in the usual colours of optical flow, torchvision's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import flow_to_image

from rfsearch.tasks.pictures import Colour, Pictures, shown

_UNKNOWN = (0, 0, 0)
_DIRECTIONS = {"to the right": (1.0, 0.0), "down": (0.0, 1.0), "to the left": (-1.0, 0.0), "up": (0.0, -1.0)}


def of_fields(images: np.ndarray, flow: Tensor, found: Tensor, known: Tensor, captions: Sequence[str]) -> Pictures:
    """Show fields beside the first image of each pair.

    The colours of a truth and of its prediction mean the same: the longest true displacement of the pair is the most
    saturated, and a longer prediction is drawn as long as that.

    Args:
        images: N x 2C x H x W uint8.
        flow: N x 2 x H x W true displacements, px.
        found: Those that a network gives.
        known: N x 1 x H x W bool: where the truth is known; elsewhere it is black.
        captions: Of each pair: its mean end-point error.
    """
    truths, predictions = [], []
    for true, called, where in zip(flow, found, known, strict=True):
        longest = max(float(torch.linalg.vector_norm(true, dim=0).max()), 1e-3)
        pair = [_drawn(field, longest) for field in (true, called)]
        truths.append(np.where(where[0].numpy()[..., None], pair[0], np.array(_UNKNOWN, np.uint8)))
        predictions.append(pair[1])
    unknown = {} if bool(known.all()) else {"unknown": _UNKNOWN}
    return Pictures(
        shown(images),
        np.stack(truths),
        np.stack(predictions),
        tuple(captions),
        _legend() | unknown,
        "Colours are directions, the more saturated the longer, white where nothing moves. The figure is the mean "
        "end-point error.",
    )


def _drawn(field: Tensor, longest: float) -> np.ndarray:
    """Return a field, 2 x H x W, as H x W x 3 uint8; displacements of that length and above are saturated."""
    length = torch.linalg.vector_norm(field, dim=0, keepdim=True)
    field = (field / length.clamp(min=longest)).nan_to_num(0.0)  # 1 at most
    # One more column holds a vector of length 1: the picture is scaled by the longest of what it shows.
    column = torch.zeros(2, field.shape[1], 1)
    column[0] = 1.0
    drawn = flow_to_image(torch.cat([field.float(), column], dim=2))
    return np.ascontiguousarray(drawn[..., :-1].permute(1, 2, 0).numpy())


def _legend() -> dict[str, Colour]:
    """Return the colours of the four main directions."""
    colours: dict[str, Colour] = {}
    for name, (right, down) in _DIRECTIONS.items():
        r, g, b = _drawn(torch.tensor([[[right]], [[down]]]), math.hypot(right, down))[0, 0].tolist()
        colours[name] = r, g, b
    return colours
