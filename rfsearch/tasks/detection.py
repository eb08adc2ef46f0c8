"""Object detection: boxes with classes, scored by average precision.

Targets are rows of boxes (`rfsearch.data.box_rows`). A network maps images to an object that can be asked for its loss
and for its detections (`rfsearch.detector.Detecting`): proposals, matching, suppression and what it is trained for are
its own affair. Such are torchvision's detectors, `torchvision:fasterrcnn_resnet50_fpn`, `retinanet_resnet50_fpn`,
`fcos_resnet50_fpn` and `ssdlite320_mobilenet_v3_large`, and `rfsearch.backbones.rfcn`.

What is difficult (VOC), or a crowd (COCO), is left out of the loss and need not be found.

What a detector costs depends on what it sees. Its steps are metered as they run, as every network's; what they will
cost is forecast from real steps on the first images, with the weights that a training begins with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rfsearch.data.batches import Motion, eval_batches
from rfsearch.data.box_rows import CLASS, COLUMNS, DIFFICULT, NOTHING, PROPOSAL, split_rows
from rfsearch.data.image_set import ImageSet, Split, evenly
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.detector import Detected, Detecting, Objects
from rfsearch.errors import DataError, ModelError, TrialError, described
from rfsearch.tasks.base import Scores, Task, TaskKeys
from rfsearch.tasks.box_pictures import of_boxes
from rfsearch.tasks.boxes import moved_rows
from rfsearch.tasks.metrics.average_precision import Found, Truth, voc_scores
from rfsearch.tasks.metrics.coco import coco_scores, require_coco
from rfsearch.tasks.pictures import Pictures
from rfsearch.tasks.proposals import with_proposals

_PRIMARY = {
    "voc-map": "map50_classmean",
    "voc-map-11": "map50_11pt_classmean",
    "coco-map": "map_coco",
    "coco-map-50": "map50_coco",
}
_MEASURED_IMAGES = 512


class DetectionKeys(TaskKeys):
    """Hold what a space file says to detection.

    Args:
        metric: The score that a search goes by. "voc-map": mean average precision at an intersection over union of 0.5,
            the area below the curve; "voc-map-11": by 11 points of it, as VOC did up to 2009; "coco-map": COCO's, over
            0.5 to 0.95; "coco-map-50": COCO's at 0.5.
        coco: Report COCO's averages too; `metric` implies it where it is one of them.
        min_visible: Share of a box's area that augmentation must leave inside the image; of less, the box is dropped.
        proposals: Regions that a first stage proposes for each image, for networks that take theirs from outside, such
            as R-FCN. It is trained once, on the training split, before the search, and charged to none of its arms. 0:
            none.
        proposal_steps: Steps of that training.
    """

    metric: Literal["voc-map", "voc-map-11", "coco-map", "coco-map-50"] = "voc-map"
    coco: bool = False
    min_visible: float = Field(default=0.25, ge=0, le=1)
    proposals: int = Field(default=0, ge=0, le=2000)
    proposal_steps: int = Field(default=200, ge=1, le=10**6)


class Detection(Task[Tensor]):
    """Find objects: a box, a class and a score for each. Targets are N x M x 6 float32 rows of boxes, in training too.

    Raises:
        DataError: The targets are no boxes of the data's classes, or what COCO's averages need is not installed.
    """

    Keys = DetectionKeys
    by_shapes: ClassVar[bool] = False

    def __init__(self, keys: DetectionKeys, data: ImageSet) -> None:
        """Check that the data has boxes."""
        _require_boxes(data)
        self._coco = keys.coco or keys.metric.startswith("coco")
        if self._coco:
            require_coco()
        self.primary, self.direction = _PRIMARY[keys.metric], "maximize"
        self.in_channels, self.out_channels = data.in_channels, data.num_classes
        self._keys, self._data = keys, data

    @classmethod
    def prepare(cls, keys: TaskKeys, data: ImageSet, cache: Path) -> ImageSet:
        """Add the regions that a first stage proposes, if the keys ask for any."""
        assert isinstance(keys, DetectionKeys)
        if not keys.proposals:
            return data
        _require_boxes(data)
        return with_proposals(data, keys.proposals, keys.proposal_steps, cache)

    def loss(self, output: object, target: Tensor) -> Tensor:
        """Return the network's own loss of the objects that are not difficult.

        Args:
            output: Keeps to `Detecting`.
            target: B x M x 6 rows of boxes.
        """
        assert isinstance(output, Detecting)
        return output.loss([_objects(rows) for rows in target])

    def check_output(self, output: object, batch: int, network: str) -> None:
        """Refuse what has no loss and no detections, or no map to report a receptive field of."""
        rule = (
            f"backbone {network!r} maps {batch} images to an object with loss(objects), detections() and `out`, a map "
            f"of {batch} x K x h x w (rfsearch.detector)"
        )
        asked = [getattr(output, name, None) for name in ("loss", "detections")]
        if not all(map(callable, asked)):
            raise ModelError(
                f"{rule}. Got {described(output)}. Detectors: torchvision:fcos_resnet50_fpn, rfcn-small, or yours."
            )
        out = getattr(output, "out", None)
        if not isinstance(out, Tensor) or out.dim() != 4 or len(out) != batch or not out.is_floating_point():
            raise ModelError(f"{rule}. Its `out` is {described(out)}.")

    def evaluate(self, model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
        """Score a model over a whole split."""
        found: list[Found] = []
        with torch.no_grad():
            for images, target in eval_batches(split, batch_size, self, device):
                found += [_on_host(seen) for seen in self._detect(model, images, target)]
        truths = [Truth(*split_rows(np.asarray(rows))) for rows in split.targets]
        scores = voc_scores(found, truths, self._data.num_classes)
        if scores and self._coco:
            scores |= coco_scores(found, truths)
        if not math.isfinite(primary := scores.get(self.primary, math.nan)):
            raise TrialError(f"{self.primary} is undefined: no image of the split has an object that must be found.")
        return Scores(primary, scores)

    def target(self, stored: Tensor) -> Tensor:
        """Return the rows as they are stored."""
        return stored

    def moved(self, target: Tensor, motion: Motion) -> Tensor:
        """Move boxes: clipped to the image, and dropped where less than `min_visible` of one is left."""
        return moved_rows(target, motion, self._data.image_size, self._data.flip_pairs, self._keys.min_visible)

    def empty_target(self, batch: int, device: torch.device) -> Tensor:
        """Return rows without any box."""
        rows = torch.zeros(batch, self._data.splits["train"].targets.shape[1], COLUMNS, device=device)
        rows[..., CLASS] = NOTHING
        return rows

    def pictures(self, model: nn.Module, split: Split, device: torch.device) -> Pictures:
        """Show objects and detections as frames in the colours of their classes."""
        with torch.no_grad():
            images, target = next(eval_batches(split, len(split), self, device))
            found = [_on_host(seen) for seen in self._detect(model, images, target)]
        truths = [Truth(*split_rows(np.asarray(rows))) for rows in split.targets]
        return of_boxes(np.asarray(split.images), truths, found, self._data.classes)

    def object_sizes(self, split: Split) -> ObjectSizes:
        """Return the longer sides of the boxes of each class, px."""
        chosen = evenly(len(split), _MEASURED_IMAGES)
        boxes, labels, _ = split_rows(np.concatenate([np.asarray(split.targets[i]) for i in chosen]))
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        sizes = {name: np.sort(longer[labels == k]) for k, name in enumerate(self._data.classes)}
        return ObjectSizes(sizes, len(chosen))

    def _detect(self, model: nn.Module, images: Tensor, target: Tensor) -> Sequence[Detected]:
        """Return what a model finds in images, with the regions that were proposed for them."""
        output = model(images, [_objects(rows).proposals for rows in target]) if self._keys.proposals else model(images)
        found: Sequence[Detected] = output.detections()
        return found


def _objects(rows: Tensor) -> Objects:
    """Return what one image's M x 6 rows say to a network's loss."""
    wanted = (rows[:, CLASS] >= 0) & (rows[:, DIFFICULT] == 0)
    return Objects(rows[wanted, :4], rows[wanted, CLASS].long(), rows[rows[:, CLASS] == PROPOSAL, :4])


def _on_host(found: Detected) -> Found:
    boxes, scores, labels = (part.detach().cpu().numpy() for part in found)
    return Found(boxes.astype(np.float64), scores.astype(np.float64), labels)


def _require_boxes(data: ImageSet) -> None:
    for title, split in data.splits.items():
        targets = split.targets
        if targets.ndim != 3 or targets.shape[2] != COLUMNS or targets.dtype != np.float32:
            raise DataError(
                f"{data.name}: detection needs rows of boxes, {len(split)} x M x {COLUMNS} float32. Got "
                f"{' x '.join(map(str, targets.shape))} {targets.dtype} in the split {title}. Layouts with boxes: "
                "voc-detection, coco, rendered-objects."
            )
    if not data.classes:
        raise DataError(f"{data.name}: detection needs classes. The data names none.")
    highest = max(float(np.max(split.targets[..., CLASS])) for split in data.splits.values())
    if highest >= data.num_classes:
        raise DataError(f"{data.name}: a box is of a class in 0..{data.num_classes - 1}. Got {highest:g}.")
