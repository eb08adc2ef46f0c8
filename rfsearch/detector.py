"""What a network that detects objects returns, for whoever trains, scores or exports it.

Which boxes a network proposes, how it matches them with objects, what it suppresses and what it is trained for is its
own affair. It maps B x C x H x W images, as every network, to an object that keeps to `Detecting`. `Detector` is a
module that does so as soon as three methods of it are written.

Detections are found within `forward` where the network is in evaluation mode and the images have values, so that what
they cost is metered as part of the pass. Where images are shapes alone, as when a receptive field is traced or a
program exported, a detector ends with its maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import register_pytree_node

from rfsearch.errors import ModelError


class Objects(NamedTuple):
    """Hold what is true of one image.

    Attributes:
        boxes: n x 4 float32, px: x1, y1, x2, y2, where 0 and W are the image's edges.
        labels: n int64 class ids, from 0.
        proposals: p x 4, regions that were proposed for the image beforehand; none where nothing proposes.
    """

    boxes: Tensor
    labels: Tensor
    proposals: Tensor


class Detected(NamedTuple):
    """Hold what a network finds in one image.

    Attributes:
        boxes: n x 4 float, px, as in `Objects`.
        scores: n, higher is surer.
        labels: n int64 class ids, from 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@runtime_checkable
class Detecting(Protocol):
    """Hold what a detector makes of a batch of images.

    Attributes:
        out: B x K x h x w, the map whose receptive field is reported.
    """

    out: Tensor

    def loss(self, objects: Sequence[Objects]) -> Tensor:
        """Return the loss, a scalar, of a network in training mode.

        Args:
            objects: Of each image; an image may have none.
        """

    def detections(self) -> list[Detected]:
        """Return what a network in evaluation mode finds in each image, best first."""


@dataclass(frozen=True)
class Maps:
    """Hold what the convolutions of a detector give, of which the rest follows without any further weight but a head's.

    Attributes:
        named: Everything that the rest is computed from, by name: what an export writes.
        out: The map whose receptive field is reported.
        size: H, W of the images, px.
    """

    named: Mapping[str, Tensor]
    out: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.out.shape[0])


class Detector(nn.Module, ABC):
    """Detect objects: images to maps, and these to a loss or to detections.

    Example:
        >>> output = detector.train()(images)
        >>> output.loss([Objects(boxes, labels, boxes[:0])]).backward()
        >>> detector.eval()(images).detections()[0].scores
    """

    @abstractmethod
    def maps(self, images: Tensor) -> Maps:
        """Return what the convolutions give. It runs on shapes alone too."""

    @abstractmethod
    def find_loss(self, maps: Maps, objects: Sequence[Objects]) -> Tensor:
        """Return the loss of a batch, a scalar."""

    @abstractmethod
    def find_objects(self, maps: Maps, proposals: Sequence[Tensor] | None) -> list[Detected]:
        """Return what is found in each image, best first.

        Args:
            maps: Of the images.
            proposals: p x 4 of each image, None where none are given.
        """

    def forward(self, images: Tensor, proposals: Sequence[Tensor] | None = None) -> DetectorOutput:
        """Map B x C x H x W images to what can be asked for a loss, or in evaluation mode for detections."""
        output = DetectorOutput(self, self.maps(images), proposals)
        if not self.training and has_values(images):
            output.detections()  # metered here, with the pass
        return output


class DetectorOutput:
    """Keep to `Detecting` for a `Detector`.

    Args:
        detector: What made the maps.
        maps: Of a batch of images.
        proposals: Of each image, None where none are given.
    """

    def __init__(self, detector: Detector, maps: Maps, proposals: Sequence[Tensor] | None) -> None:
        self._detector, self._proposals = detector, proposals
        self.maps, self.out = maps, maps.out
        self._found: list[Detected] | None = None

    @property
    def exported(self) -> Mapping[str, Tensor]:
        """Return what an export writes: all that the detections follow from, up to the head's suppression."""
        return self.maps.named

    def loss(self, objects: Sequence[Objects]) -> Tensor:
        """Return the loss of the batch, a scalar."""
        return self._detector.find_loss(self.maps, objects)

    def detections(self) -> list[Detected]:
        """Return what is found in each image, best first."""
        if self._found is None:
            if self._detector.training:
                raise ModelError("A detector finds objects in evaluation mode. Got one in training: call eval() first.")
            with torch.no_grad():
                self._found = self._detector.find_objects(self.maps, self._proposals)
        return self._found


def has_values(images: Tensor) -> bool:
    """Return whether images are more than shapes: neither of the `meta` device nor of a trace or an export."""
    return not (images.is_meta or isinstance(images, FakeTensor) or torch.compiler.is_compiling())


def _tensors_of(output: DetectorOutput) -> tuple[list[Tensor], None]:
    return [output.out, *output.maps.named.values()], None


def _no_way_back(values: object, context: object) -> DetectorOutput:
    raise TypeError("A detector's output is not made of its maps alone.")


# So that whoever looks for tensors in what a network returns, such as for values that are no numbers, finds them.
register_pytree_node(DetectorOutput, _tensors_of, _no_way_back)
