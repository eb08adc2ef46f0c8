"""Semantic segmentation: cross-entropy over labelled pixels, scored by a metric of class maps."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.data.batches import Motion, eval_batches
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.object_sizes import ObjectSizes, object_sizes
from rfsearch.errors import DataError, SpaceError, TrialError
from rfsearch.layers.one_call import one_call
from rfsearch.outputs import main_output, require_maps
from rfsearch.tasks.base import Scores, Task, TaskKeys
from rfsearch.tasks.class_maps import IGNORE, ClassMaps
from rfsearch.tasks.colours import IGNORED
from rfsearch.tasks.metrics import make_metric, metric_spec
from rfsearch.tasks.pictures import Pictures, of_class_maps


class SegmentationKeys(TaskKeys):
    """Hold what a space file says to segmentation.

    Args:
        metric: A name of `rfsearch.tasks.metrics.METRICS`, or a SPEC.
        class_weights: Weights of the loss: "none", or "sqrt" for weights proportional to the inverse square root of a
            class's share of the training pixels, 1 on average, so that small parts are not drowned.
    """

    metric: str = "mean-iou"
    class_weights: Literal["none", "sqrt"] = "none"

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        try:
            return metric_spec(metric)
        except SpaceError as error:
            raise ValueError(str(error)) from error


class Segmentation(Task[Tensor]):
    """Give each pixel a class. Targets are N x H x W uint8 class ids, and B x H x W int64 labels in training.

    Raises:
        DataError: The targets are no class ids of the images' size.
    """

    Keys = SegmentationKeys

    def __init__(self, keys: SegmentationKeys, data: ImageSet) -> None:
        """Check that the data is labelled with classes."""
        _require_class_ids(data)
        self._metric = make_metric(keys.metric, data)
        self.primary, self.direction = self._metric.primary, self._metric.direction
        self.in_channels, self.out_channels = data.in_channels, data.num_classes
        self._data = data
        self._maps = ClassMaps(data.flip_pairs, data.ignore_index)
        self._weighted = keys.class_weights == "sqrt"
        self._ignored = _ignored_class(data)

    def loss(self, output: object, target: Tensor) -> Tensor:
        """Return the weighted mean cross-entropy over labelled pixels; 0, with a gradient of 0, where none is labelled.

        Args:
            output: B x classes x h x w logits, or whatever a network returns that `main_output` finds them in. Of
                another size than the labels, they are resized to it, bilinear.
            target: B x H x W class ids, IGNORE where a pixel has none.
        """
        return _weighted_cross_entropy(self._at_label_size(output, target.shape), target, self._weights)

    def check_output(self, output: object, batch: int, network: str) -> None:
        """Refuse anything but logits, B x classes x h x w."""
        require_maps(output, batch, self.out_channels, network, "logits")

    def evaluate(self, model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
        """Score a model over a whole split, at the labels' own resolution."""
        self._metric.reset()
        with torch.no_grad():
            for images, labels in eval_batches(split, batch_size, self, device):
                # What is called by the ignored id is missed: whoever uses the network gets no class there.
                self._metric.update(_highest(self._at_label_size(model(images), labels.shape)), labels)
        scores = self._metric.compute()
        primary = scores[self.primary]
        if not math.isfinite(primary):
            raise TrialError(f"{self.primary} is undefined: nothing in the split defines it.")
        return Scores(primary, {name: value for name, value in scores.items() if math.isfinite(value)})

    def target(self, stored: Tensor) -> Tensor:
        """Return labels of stored class ids."""
        return self._maps.target(stored)

    def moved(self, target: Tensor, motion: Motion) -> Tensor:
        """Move labels; those of each flip pair are exchanged in mirrored images."""
        return self._maps.moved(target, motion)

    def empty_target(self, batch: int, device: torch.device) -> Tensor:
        """Return labels of that many images, all of class 0."""
        return torch.zeros(batch, *self._data.image_size, dtype=torch.int64, device=device)

    def pictures(self, model: nn.Module, split: Split, device: torch.device) -> Pictures:
        """Show class maps in the colours of the classes."""
        with torch.no_grad():
            images, labels = next(eval_batches(split, len(split), self, device))
            called = self.predict(model(images), labels.shape)
        truth = torch.where(labels == IGNORE, IGNORED, labels)
        truths, predictions = (ids.cpu().numpy().astype(np.uint8) for ids in (truth, called))
        return of_class_maps(np.asarray(split.images), truths, predictions, self._data.classes)

    def class_ids(self, target: Tensor) -> Tensor:
        """Return the labels themselves."""
        return target

    def object_sizes(self, split: Split) -> ObjectSizes:
        """Measure the connected components of each class."""
        return object_sizes(split, self._data.classes, self._data.ignore_index)

    @cached_property
    def _weights(self) -> Tensor | None:
        """Weights of the classes, which every training label is counted for; None where all weigh the same."""
        return _sqrt_weights(self._data) if self._weighted else None

    def predict(self, output: object, size: torch.Size) -> Tensor:
        """Return B x H x W class ids of a network's output; an ignored id inside the range of classes is never one.

        Args:
            output: As in `loss`.
            size: B x H x W.
        """
        logits = self._at_label_size(output, size)
        if self._ignored is not None:
            ignored = torch.arange(logits.shape[1], device=logits.device) == self._ignored
            logits = logits.masked_fill(ignored[:, None, None], -math.inf)
        return _highest(logits)

    @staticmethod
    def _at_label_size(output: object, size: torch.Size) -> Tensor:
        logits: Tensor = main_output(output)
        if logits.shape[-2:] != size[-2:]:
            logits = F.interpolate(logits, size=size[-2:], mode="bilinear", align_corners=False)
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


def _require_class_ids(data: ImageSet) -> None:
    for title, split in data.splits.items():
        expected = len(split), *data.image_size
        if split.targets.dtype != np.uint8 or split.targets.shape != expected:
            raise DataError(
                f"{data.name}: segmentation needs a class id for each pixel, {' x '.join(map(str, expected))} uint8. "
                f"Got {' x '.join(map(str, split.targets.shape))} {split.targets.dtype} in the split {title}."
            )
    if not data.classes:
        raise DataError(f"{data.name}: segmentation needs classes. The data names none.")


def _ignored_class(data: ImageSet) -> int | None:
    """The ignored id where it is one of those that the network has a channel for."""
    ignored = data.ignore_index
    return ignored if ignored is not None and ignored < data.num_classes else None


def _sqrt_weights(data: ImageSet) -> Tensor:
    """share^-1/2 per class, scaled so that the average pixel weighs 1. A class that does not occur gets 0."""
    labels = data.splits["train"].targets
    counts = np.bincount(np.asarray(labels).reshape(-1), minlength=256)[: data.num_classes].astype(np.float64)
    if (ignored := _ignored_class(data)) is not None:
        counts[ignored] = 0
    share = counts / counts.sum()
    weights = np.divide(1, np.sqrt(share), out=np.zeros_like(share), where=share > 0)
    return torch.from_numpy(weights / (weights * share).sum())
