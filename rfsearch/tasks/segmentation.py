"""Semantic segmentation: cross-entropy over labelled pixels, scored by a metric of class maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.data import IGNORE, ImageSet, Split, eval_batches
from rfsearch.errors import SpaceError, TrialError
from rfsearch.layers.one_call import one_call
from rfsearch.outputs import main_output
from rfsearch.tasks.metrics import make_metric


@dataclass(frozen=True)
class Scores:
    """primary: the score a search goes by. all: every score by name, its averaging in the name."""

    primary: float
    all: Mapping[str, float]


class Segmentation:
    """Loss and score of a segmentation network.

    metric: a name of `metrics.METRICS`, or a SPEC. data: gives the classes and the ignored label. class_weights:
    "none", or "sqrt" for weights proportional to the inverse square root of a class's share of the training pixels, 1
    on average.
    """

    def __init__(self, metric: str, data: ImageSet, class_weights: Literal["none", "sqrt"] = "none") -> None:
        self._metric = make_metric(metric, data)
        self.primary = self._metric.primary
        if self._metric.direction != "maximize":
            raise SpaceError(f"metric {metric!r}: lower is better, and a search goes for higher scores. Turn it round.")
        self._data = data
        self._weights = _sqrt_weights(data) if class_weights == "sqrt" else None
        self._ignored = _ignored_class(data)

    def loss(self, logits: Any, labels: Tensor) -> Tensor:
        """Weighted mean cross-entropy over labelled pixels; 0, with a gradient of 0, where none is labelled.

        logits: B x classes x h x w, or whatever a network returns that `main_output` finds them in; labels: B x H x W
        class ids, -100 where ignored. Logits of another size are resized to the labels, bilinear.
        """
        return _weighted_cross_entropy(self._at_label_size(logits, labels), labels, self._weights)

    def predict(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """B x H x W class ids; an ignored id inside the range of classes is never one of them."""
        logits = self._at_label_size(model(images), labels)
        if self._ignored is not None:
            ignored = torch.arange(logits.shape[1], device=logits.device) == self._ignored
            logits = logits.masked_fill(ignored[:, None, None], -math.inf)
        return _highest(logits)

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
        """Scores over a whole split, at the labels' own resolution."""
        self._metric.reset()
        for images, labels in eval_batches(split, batch_size, self._data.ignore_index, device):
            # What is called by the ignored id is missed: whoever uses the network gets no class there.
            self._metric.update(_highest(self._at_label_size(model(images), labels)), labels)
        scores = self._metric.compute()
        primary = scores[self.primary]
        if not math.isfinite(primary):
            raise TrialError(f"{self.primary} is undefined: nothing in the split defines it.")
        return Scores(primary, {name: value for name, value in scores.items() if math.isfinite(value)})

    @staticmethod
    def _at_label_size(output: Any, labels: Tensor) -> Tensor:
        logits: Tensor = main_output(output)
        if logits.shape[-2:] != labels.shape[-2:]:
            logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return logits


@one_call
def _weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    counted = labels != IGNORE
    if weights is not None:
        weights = weights.to(logits.device, logits.dtype)
        counted = counted & (weights[labels.clamp(min=0)] > 0)
        labels = labels.where(counted, IGNORE)  # weighs nothing, and alone it would be divided by nothing
    loss = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE)
    return torch.where(counted.any(), loss, torch.zeros_like(loss))


def _highest(logits: Tensor) -> Tensor:
    return logits.max(dim=1).indices  # on a CPU several times as fast as argmax, which gives the same


def _ignored_class(data: ImageSet) -> int | None:
    """The ignored id where it is one of those that the network has a channel for."""
    ignored = data.ignore_index
    return ignored if ignored is not None and ignored < data.num_classes else None


def _sqrt_weights(data: ImageSet) -> Tensor:
    """share^-1/2 per class, scaled so that the average pixel weighs 1. A class that does not occur gets 0."""
    labels = data.splits["train"].labels
    counts = np.bincount(np.asarray(labels).reshape(-1), minlength=256)[: data.num_classes].astype(np.float64)
    if (ignored := _ignored_class(data)) is not None:
        counts[ignored] = 0
    share = counts / counts.sum()
    weights = np.divide(1, np.sqrt(share), out=np.zeros_like(share), where=share > 0)
    return torch.from_numpy(weights / (weights * share).sum())
