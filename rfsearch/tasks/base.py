"""What a network is trained and scored for: the contract of a task.

A task is one class. Its `Keys` are what a space file says to it, checked when the file is read; its methods are all
that the rest of the package asks of it. What a network returns (`output`) and what it is compared with (`target`) pass
through everything else untouched. Tasks are entry points of the group `rfsearch.tasks`, or are named by SPEC:
`path/to/file.py:Class` or `package.module:Class`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor, nn

from rfsearch.data.batches import Motion
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.direction import Direction
from rfsearch.sources import absolute
from rfsearch.tasks.pictures import Pictures

Target = TypeVar("Target")


class TaskKeys(BaseModel):
    """Hold what the `[task]` table of a space file says to one task: the metric, and whatever keys of its own it adds.

    Every task gives `metric` a default. A faulty value is reported with the line of the file that sets it, so a
    validator's ValueError needs to say only what is wrong.

    Example:
        >>> class DepthKeys(TaskKeys):
        ...     metric: Literal["mae", "rmse"] = "mae"
        ...     nearest_m: float = Field(default=0.1, gt=0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str

    @field_validator("metric", mode="before")
    @classmethod
    def _means_the_same_everywhere(cls, metric: object) -> object:
        return absolute(metric) if isinstance(metric, str) else metric  # workers have other working directories


@dataclass(frozen=True)
class Scores:
    """What a network scores on a split.

    Args:
        primary: The score that a search goes by.
        all: Every score by its name, which says how it is averaged; the primary one is among them.
    """

    primary: float
    all: Mapping[str, float]


class Task(ABC, Generic[Target]):
    """Say what a network is trained and scored for, on one data set.

    A task is made as `Kind(keys, data)`, keys being an instance of `Kind.Keys`, and raises a DataError where the set's
    targets are not what it needs. `Target` is what one batch is compared with: a tensor, or any nest of tensors.

    Attributes:
        primary: Name of the score that a search goes by.
        direction: Whether a higher or a lower primary score is the better one.
        in_channels: Channels of the images, C.
        out_channels: Channels of the network's output, which a backbone is built for.
        by_shapes: Whether the cost of a step and of a pass follows from shapes alone. If not, it is forecast from real
            steps, and `loss` need not run on tensors without values.

    Example:
        >>> class Depth(Task[Tensor]):
        ...     class Keys(TaskKeys):
        ...         metric: Literal["mae"] = "mae"
        ...
        ...     def __init__(self, keys: Keys, data: ImageSet) -> None:
        ...         self.primary, self.direction = "mae_pixelmean", "minimize"
        ...         self.in_channels, self.out_channels = data.in_channels, 1
    """

    Keys: ClassVar[type[TaskKeys]]
    by_shapes: ClassVar[bool] = True

    primary: str
    direction: Direction
    in_channels: int
    out_channels: int

    @abstractmethod
    def __init__(self, keys: TaskKeys, data: ImageSet) -> None:
        """Make the task for a data set.

        Raises:
            DataError: Its targets are not what the task needs.
        """

    @classmethod
    def prepare(cls, keys: TaskKeys, data: ImageSet, cache: Path) -> ImageSet:
        """Return the data with what the task needs to know of all of it beforehand; most need nothing.

        It is called once, where a run's data is read. What it adds is part of the data's fingerprint.

        Args:
            keys: What the space file says to the task.
            data: As its layout gave it.
            cache: Folder that a run keeps, for what is costly to find again.
        """
        return data

    @abstractmethod
    def loss(self, output: object, target: Target) -> Tensor:
        """Return the loss of one batch, a scalar that can be differentiated.

        It also runs on tensors without values (the `meta` device), so its sizes depend on no value: no `x[mask]`, no
        `item()`. Where a target says nothing, it is 0 with a gradient of 0.

        Args:
            output: What the network returned, of a form that `check_output` accepts.
            target: What `target`, `moved` or `empty_target` gave.
        """

    @abstractmethod
    def check_output(self, output: object, batch: int, network: str) -> None:
        """Refuse an output that `loss` and `evaluate` cannot take, also one on the `meta` device.

        Args:
            output: What the network returned for `batch` images.
            batch: Number of images.
            network: SPEC of the network, for the message.

        Raises:
            ModelError: Says what an output must look like, and what this one is.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
        """Score a model, in evaluation mode and on the device, over a whole split.

        The scores do not depend on how the split is cut into batches.

        Raises:
            TrialError: The primary score is undefined.
        """

    @abstractmethod
    def target(self, stored: Tensor) -> Target:
        """Return a batch of a split's targets as the loss takes them.

        Args:
            stored: B x ..., of the dtype and shape in which `Split.targets` holds them, on the training's device.
        """

    @abstractmethod
    def moved(self, target: Target, motion: Motion) -> Target:
        """Flip, zoom and shift a target as augmentation has moved its images.

        What comes in from outside the image says nothing. Where nothing is moved, an equal target comes out.
        """

    @abstractmethod
    def empty_target(self, batch: int, device: torch.device) -> Target:
        """Return a target of that many images, of the shape and dtype that `target` gives, for the forecast.

        Args:
            batch: Number of images.
            device: Also `meta`, whose tensors have no values.
        """

    @abstractmethod
    def pictures(self, model: nn.Module, split: Split, device: torch.device) -> Pictures:
        """Show what a model, in evaluation mode and on the device, makes of every image of a small split."""

    def class_ids(self, target: Target) -> Tensor | None:
        """Return B x H x W int64 class ids, negative where a pixel has none; None for a task without classes.

        Loss guidance and a background's weight need them.
        """
        return None

    def object_sizes(self, split: Split) -> ObjectSizes | None:
        """Measure the objects of a split, to hold receptive fields against; None where a target has no objects."""
        return None
