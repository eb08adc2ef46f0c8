"""What a metric is: three methods, as torchmetrics has them, and what its scores mean."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from rfsearch.direction import Direction


class Metric(ABC):
    """Score predictions against what is true, over all batches of a data set.

    Attributes:
        primary: Name of the score that a search goes by, with its averaging in it.
        direction: Whether a higher or a lower primary score is the better one.

    Example:
        >>> import torch
        >>> from rfsearch.tasks.metrics.iou import MeanIou
        >>> metric = MeanIou(num_classes=2, ignored=None)
        >>> metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]]))
        >>> metric.update(torch.tensor([[[0, 0]]]), torch.tensor([[[0, 1]]]))
        >>> metric.compute()["iou_1"]
        0.5
    """

    primary: str
    direction: Direction = "maximize"

    @abstractmethod
    def reset(self) -> None:
        """Forget all batches."""

    @abstractmethod
    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Take in a batch.

        Args:
            predicted: B x ..., what the network says; of class maps B x H x W class ids, int64.
            target: B x ..., what is true; of class maps likewise, IGNORE where a pixel has no class.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return every score of what was taken in by its name, NaN where nothing defines it."""
