"""Let torchvision's detectors keep to `rfsearch.detector`, with their own proposals, matching and losses.

Faster R-CNN: Ren, He, Girshick, Sun, NIPS 2015. RetinaNet: Lin et al., ICCV 2017. FCOS: Tian et al., ICCV 2019.
SSDLite: Sandler et al., CVPR 2018, on MobileNetV3. Differences from calling them directly: images come normalised and
are not resized; they are padded to a multiple of the largest stride, as torchvision does; and no weights are
downloaded.

The receptive field is that of a unit of the coarsest map of class scores, which sees farthest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision import models
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import box_iou

from rfsearch.backbones.channels import for_channels
from rfsearch.data.batches import channel_statistics
from rfsearch.detector import Detected, Detector, Maps, Objects

Targets = list[dict[str, Tensor]]


class TorchvisionDetector(Detector):
    """Detect objects with a network of `torchvision.models.detection`.

    Args:
        net: The network; it counts the background as its class 0.
        in_channels: Of the images.

    Example:
        >>> make = torchvision_detector("fcos_resnet50_fpn")
        >>> make(3).eval()(torch.randn(1, 3, 128, 128)).detections()[0].boxes.shape[1]
        4
    """

    first_label = 1
    """What the network calls the first class in what it is told and gives."""

    def __init__(self, net: Any, in_channels: int) -> None:
        super().__init__()
        self.net = net
        given, wanted = channel_statistics(in_channels), (net.transform.image_mean, net.transform.image_std)
        # From how images are normalised here to how this network's trained weights know them.
        known = in_channels == len(wanted[0])
        self._scale = [s / w for s, w in zip(given[1], wanted[1], strict=True)] if known else [1.0] * in_channels
        self._offset = (
            [(m - v) / w for m, v, w in zip(given[0], *wanted, strict=True)] if known else [0.0] * in_channels
        )

    @property
    @abstractmethod
    def scores(self) -> nn.Module:
        """Return the module whose last call gives the coarsest map of class scores."""

    @abstractmethod
    def head_maps(self, features: list[Tensor]) -> Mapping[str, Tensor]:
        """Return what the head reads of the features, by name."""

    def maps(self, images: Tensor) -> Maps:
        """Return the features and what the head makes of them."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        images = self._padded(images)
        features = self.net.backbone(images)
        seen: list[Tensor] = []
        hook = self.scores.register_forward_hook(lambda module, given, scores: seen.append(scores))
        try:
            named = self.head_maps(list(features.values()))
        finally:
            hook.remove()
        levels = {f"feature_{name}": feature for name, feature in features.items()}
        return Maps({**levels, **named}, seen[-1], size)

    def find_loss(self, maps: Maps, objects: Sequence[Objects]) -> Tensor:
        """Return the sum of the network's own losses."""
        targets = [{"boxes": one.boxes, "labels": one.labels + self.first_label} for one in objects]
        return torch.stack([loss.reshape(()) for loss in self.losses(maps, targets).values()]).sum()

    def find_objects(self, maps: Maps, proposals: Sequence[Tensor] | None) -> list[Detected]:
        """Return the network's own detections."""
        found = self.results(maps)
        return [Detected(one["boxes"], one["scores"], one["labels"] - self.first_label) for one in found]

    @abstractmethod
    def losses(self, maps: Maps, targets: Targets) -> Mapping[str, Tensor]:
        """Return the network's losses by name."""

    @abstractmethod
    def results(self, maps: Maps) -> list[dict[str, Tensor]]:
        """Return the network's detections of each image."""

    def features(self, maps: Maps) -> OrderedDict[str, Tensor]:
        """Return the features in maps, by torchvision's names of them."""
        prefix = "feature_"
        return OrderedDict(
            (name.removeprefix(prefix), value) for name, value in maps.named.items() if name.startswith(prefix)
        )

    def images(self, maps: Maps) -> ImageList:
        """Return what torchvision asks the images for: their sizes, padded and not."""
        below, right = self._padding(maps.size)
        height, width = maps.size
        return ImageList(maps.out.new_empty(len(maps), 1, height + below, width + right), [maps.size] * len(maps))

    def anchors(self, maps: Maps) -> list[Tensor]:
        """Return the anchors of each image."""
        found: list[Tensor] = self.net.anchor_generator(self.images(maps), list(self.features(maps).values()))
        return found

    def _padded(self, images: Tensor) -> Tensor:
        if any(scale != 1 for scale in self._scale) or any(self._offset):
            scale, offset = (images.new_tensor(values)[:, None, None] for values in (self._scale, self._offset))
            images = images * scale + offset
        below, right = self._padding(images.shape[-2:])
        return pad(images, (0, right, 0, below)) if below or right else images

    def _padding(self, size: Sequence[int]) -> tuple[int, int]:
        multiple = self.net.transform.size_divisible
        return -size[0] % multiple, -size[1] % multiple


class _FasterRcnn(TorchvisionDetector):
    """Detect in two stages: regions, then their classes."""

    @property
    def scores(self) -> nn.Module:
        module: nn.Module = self.net.rpn.head.cls_logits
        return module

    def head_maps(self, features: list[Tensor]) -> Mapping[str, Tensor]:
        objectness, deltas = self.net.rpn.head(features)
        levels = range(len(features))
        return {f"objectness_{i}": objectness[i] for i in levels} | {f"deltas_{i}": deltas[i] for i in levels}

    def losses(self, maps: Maps, targets: Targets) -> Mapping[str, Tensor]:
        rpn, features = self.net.rpn, self.features(maps)
        regions, anchors, objectness, deltas = self._regions(maps)
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        of_objects, of_regions = rpn.compute_loss(objectness, deltas, labels, rpn.box_coder.encode(matched, anchors))
        _, found = self.net.roi_heads(features, regions, self.images(maps).image_sizes, targets)
        return {**found, "objectness": of_objects, "regions": of_regions}

    def results(self, maps: Maps) -> list[dict[str, Tensor]]:
        regions, *_ = self._regions(maps)
        found: list[dict[str, Tensor]]
        found, _ = self.net.roi_heads(self.features(maps), regions, self.images(maps).image_sizes)
        return found

    def _regions(self, maps: Maps) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """Return the regions of each image, the anchors, and objectness and deltas of each of these."""
        rpn, features, images = self.net.rpn, list(self.features(maps).values()), self.images(maps)
        objectness, deltas = (
            [maps.named[f"{name}_{i}"] for i in range(len(features))] for name in ("objectness", "deltas")
        )
        anchors = rpn.anchor_generator(images, features)
        counts = [int(level[0].numel()) for level in objectness]
        flat, flat_deltas = concat_box_prediction_layers(objectness, deltas)
        regions = rpn.box_coder.decode(flat_deltas.detach(), anchors).view(len(maps), -1, 4)
        kept, _ = rpn.filter_proposals(regions, flat, images.image_sizes, counts)
        return kept, anchors, flat, flat_deltas


class _OneStage(TorchvisionDetector):
    """Detect in one stage, at anchors of every level."""

    @property
    def scores(self) -> nn.Module:
        module: nn.Module = self.net.head.classification_head.cls_logits
        return module

    def head_maps(self, features: list[Tensor]) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = self.net.head(features)
        return found

    def head_outputs(self, maps: Maps) -> dict[str, Tensor]:
        """Return what the head gave, without the features."""
        return {name: value for name, value in maps.named.items() if not name.startswith("feature_")}

    def losses(self, maps: Maps, targets: Targets) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = self.net.compute_loss(targets, self.head_outputs(maps), self.anchors(maps))
        return found

    def results(self, maps: Maps) -> list[dict[str, Tensor]]:
        outputs, anchors = self.head_outputs(maps), self.anchors(maps)
        places = [feature.shape[2] * feature.shape[3] for feature in self.features(maps).values()]
        per_place = outputs["cls_logits"].shape[1] // sum(places)
        counts = [per_place * count for count in places]
        split = {name: list(value.split(counts, dim=1)) for name, value in outputs.items()}
        found: list[dict[str, Tensor]] = self.net.postprocess_detections(
            split, [list(one.split(counts)) for one in anchors], self.images(maps).image_sizes
        )
        return found


class _RetinaNet(_OneStage):
    """Detect at anchors of several sizes, with a focal loss. It has no class for the background."""

    first_label = 0


class _Fcos(_OneStage):
    """Detect at places, without anchors of several sizes. It has no class for the background."""

    first_label = 0

    def losses(self, maps: Maps, targets: Targets) -> Mapping[str, Tensor]:
        counts = [feature.shape[2] * feature.shape[3] for feature in self.features(maps).values()]
        found: Mapping[str, Tensor] = self.net.compute_loss(
            targets, self.head_outputs(maps), self.anchors(maps), counts
        )
        return found


class _Ssd(_OneStage):
    """Detect at default boxes of six maps."""

    @property
    def scores(self) -> nn.Module:
        module: nn.Module = self.net.head.classification_head.module_list[-1]
        return module

    def losses(self, maps: Maps, targets: Targets) -> Mapping[str, Tensor]:
        anchors = self.anchors(maps)
        matched = []
        for of_image, target in zip(anchors, targets, strict=True):
            nothing = torch.full((len(of_image),), -1, dtype=torch.int64, device=of_image.device)
            overlaps = box_iou(target["boxes"], of_image)
            matched.append(self.net.proposal_matcher(overlaps) if len(target["boxes"]) else nothing)
        found: Mapping[str, Tensor] = self.net.compute_loss(targets, self.head_outputs(maps), anchors, matched)
        return found

    def results(self, maps: Maps) -> list[dict[str, Tensor]]:
        found: list[dict[str, Tensor]] = self.net.postprocess_detections(
            self.head_outputs(maps), self.anchors(maps), self.images(maps).image_sizes
        )
        return found


_KINDS: Mapping[str, Callable[[Any, int], TorchvisionDetector]] = {
    "fasterrcnn_resnet50_fpn": _FasterRcnn,
    "retinanet_resnet50_fpn": _RetinaNet,
    "fcos_resnet50_fpn": _Fcos,
    "ssdlite320_mobilenet_v3_large": _Ssd,
}
DETECTORS = tuple(_KINDS)


def torchvision_detector(name: str) -> Callable[..., nn.Module]:
    """Return the callable `(num_classes, in_channels=3) -> nn.Module` of one of DETECTORS."""

    def make(num_classes: int, in_channels: int = 3) -> nn.Module:
        kind = _KINDS[name]
        extra = 0 if kind in (_RetinaNet, _Fcos) else 1  # a class for the background
        net = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes + extra)
        return kind(for_channels(net, in_channels), in_channels)

    return make
