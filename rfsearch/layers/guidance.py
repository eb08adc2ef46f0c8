"""Gradients weighted by what a pixel is labelled: loss guidance for parallel paths, and less weight for background.

Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rfsearch.errors import SpaceError

_IDS = 256  # labels are 8-bit maps


class LabelWeight(nn.Module):
    """Weigh each pixel: `weight` where the label is one of `ids`, 1 elsewhere. even: all pixels weigh the same.

    Labels are known in training only: `guided` shows them. forward((h, w)) returns B x 1 x h x w for a map that spans
    the label map, each unit taking the label nearest to its centre, or None where there is nothing to weigh.
    """

    chosen: Tensor

    def __init__(self, ids: Sequence[int], weight: float) -> None:
        """Refuse ids that no label has, and weights that are none."""
        super().__init__()
        wrong = [i for i in ids if not 0 <= i < _IDS]
        if wrong:
            raise SpaceError(f"A label is an 8-bit class id, 0 to {_IDS - 1}. Got {wrong[0]}.")
        if not 0 <= weight < float("inf"):
            raise SpaceError(f"A weight of gradients is finite and at least 0. Got {weight}.")
        chosen = torch.zeros(_IDS, dtype=torch.bool)
        chosen[list(ids)] = True
        self.register_buffer("chosen", chosen, persistent=False)
        self.weight = weight
        self.even = weight == 1 or not list(ids)
        self.labels: Tensor | None = None

    def forward(self, size: tuple[int, int]) -> Tensor | None:
        """Return the weights for a map of that size, h x w; None where there is nothing to weigh."""
        if self.labels is None or self.even:
            return None
        labels = self.labels
        for axis, (source, target) in enumerate(zip(labels.shape[-2:], size, strict=True), start=1):
            if source != target:
                centres = (torch.arange(target, device=labels.device) + 0.5) * (source / target)
                labels = labels.index_select(axis, centres.long().clamp(max=source - 1))
        labels = labels.long()[:, None]
        inside = self.chosen[labels] & (labels >= 0)  # a pixel of no class may have a negative label
        return torch.where(inside, self.weight, 1.0)

    def extra_repr(self) -> str:
        """Return the ids and the weight, for printing."""
        ids = [] if self.chosen.is_meta else self.chosen.nonzero().flatten().tolist()
        return f"ids={ids}, weight={self.weight:g}"


@contextmanager
def guided(model: nn.Module, labels: Tensor | None) -> Iterator[None]:
    """Show the labels of the present batch to every layer that weighs gradients by them.

    Args:
        model: The network in training.
        labels: B x H x W class ids, integers; None where the targets have no classes.

    Raises:
        SpaceError: A layer weighs gradients by labels, and these are none.
    """
    weights = [module for module in model.modules() if isinstance(module, LabelWeight)]
    if any(not weight.even for weight in weights) and (labels is None or labels.is_floating_point()):
        got = "a task without classes" if labels is None else f"targets of {labels.dtype}"
        raise SpaceError(
            f"Gradients are weighted by what a pixel is labelled, which needs class ids. Got {got}: leave out the "
            "labels of parallel paths, and leave f_background at 1."
        )
    for weight in weights:
        weight.labels = labels
    try:
        yield
    finally:
        for weight in weights:
            weight.labels = None


class WeightedGradient(nn.Module):
    """Pass a map on, and multiply its gradient by W where a pixel's label is in the set S (Wei eq. 12).

    x: B x C x H x W behind the interpolation of one parallel path, returned as it is. ids: S, class ids. weight: W,
    1.2 in the paper. Without labels (see `guided`), so in evaluation, it does nothing.
    """

    def __init__(self, ids: Sequence[int] = (), weight: float = 1.2) -> None:
        """Refuse ids that no label has, and weights that are none."""
        super().__init__()
        self.where = LabelWeight(ids, weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map as it is, its gradient to be weighted."""
        weight = self.where((x.shape[-2], x.shape[-1]))
        if weight is None or not x.requires_grad:
            return x
        output: Tensor = _Weighted.apply(x, weight.to(x.dtype))
        return output


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad * weight, None
