"""Weigh the network of a trial: what one image's pass takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rfsearch.training.meter import Meter, Metered
from rfsearch.untouched import restored


def weigh(model: nn.Module, input_shape: Sequence[int]) -> Metered:
    """Return FLOP and peak bytes of one image's pass, in the precision that the model is in, and leave it as it was.

    Args:
        model: The model.
        input_shape: 1 x C x its axes.
    """
    first = next(model.parameters())
    with restored(model), Meter() as meter, torch.no_grad():
        model.eval()
        model(torch.zeros(*input_shape, device=first.device, dtype=first.dtype))
    result: Metered = meter.metered
    return result
