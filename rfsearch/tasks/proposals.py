"""Propose regions for every image of a data set by a first stage that is trained once, before a search.

For networks that take their regions from outside, as R-FCN does in the LS-DFN paper (Wu et al., ECCV 2018, sec. 4.1:
"pre-trained and fixed RPN proposals", trained as in the first stage of Ren, He, Girshick, Sun, "Faster R-CNN", NIPS
2015). The region proposal network is torchvision's, on small features of ours at a stride of 8 px; its anchors have the
sizes of the training split's objects. The regions become rows of the targets, so that they are part of the data, of its
fingerprint, and of what augmentation moves.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from rfsearch.data.batches import Augment, Batches, Motion, eval_batches
from rfsearch.data.box_rows import CLASS, COLUMNS, DIFFICULT, PROPOSAL, intersections, padded, split_rows
from rfsearch.data.image_set import ImageSet, Split
from rfsearch.data.loading import default_cache
from rfsearch.ledger.files import whole_file
from rfsearch.numbers import amount
from rfsearch.tasks.boxes import moved_rows

_VERSION = 1  # part of every cache key; raise it when regions would come out otherwise
# Channels, stride and dilation of the 3x3 convolutions.
_LAYERS = ((16, 2, 1), (32, 2, 1), (64, 2, 1), (64, 1, 2), (64, 1, 4))
_RATIOS = (0.5, 1.0, 2.0)
_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_BATCH, _RATE, _WARMUP, _DECAY = 8, 3e-3, 20, 1e-3


def with_proposals(data: ImageSet, count: int, steps: int, cache: Path) -> ImageSet:
    """Return the data with up to `count` regions for each image.

    Args:
        data: Its targets are rows of boxes.
        count: Regions of an image at most; the surest are kept.
        steps: Of the first stage's training.
        cache: Folder in which the regions are kept. They are kept in the user's cache too, so that a plan, the run that
            follows it and other runs on the same data share them.
    """
    key = hashlib.sha256(repr((_VERSION, data.fingerprint(), count, steps)).encode()).hexdigest()[:16]
    file, shared = (folder / f"proposals-{key}.npz" for folder in (cache, default_cache()))
    if not file.exists():
        if not shared.exists():
            _propose(data, count, steps, file)
            with suppress(OSError):  # another place to keep them is no need
                _copy(file, shared)
        else:
            _copy(shared, file)
    with np.load(file, allow_pickle=False) as kept:
        flop = float(kept["flop"])
        splits = {
            title: Split(split.images, np.concatenate([split.targets, kept[title]], axis=1), split.names)
            for title, split in data.splits.items()
        }
    held = {title: _recall(split) for title, split in splits.items()}
    said = (
        f"Up to {count} regions per image are proposed by a first stage that was trained once for {steps} steps on the "
        f"training images, {amount(flop, 'flop')}, charged to no arm; they cover "
        f"{', '.join(f'{share:.0%} of the objects of {title}' for title, share in held.items())} by at least half."
    )
    return replace(data, splits=splits, notice=f"{data.notice} {said}".strip())


def _propose(data: ImageSet, count: int, steps: int, file: Path) -> None:
    found, flop = _proposed(data, count, steps)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as whole:
        arrays: dict[str, Any] = {"flop": np.array(flop), **found}
        np.savez_compressed(whole, **arrays)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as whole:
        whole.write(source.read_bytes())


class _Proposer(nn.Module):
    """Propose regions: images to up to `count` boxes each.

    Args:
        in_channels: Of the images.
        sizes: Sides of the anchors, px.
        count: Regions of an image at most.
    """

    def __init__(self, in_channels: int, sizes: Sequence[float], count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, stride, dilation in _LAYERS:
            conv = nn.Conv2d(in_channels, width, 3, stride, dilation, dilation, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            in_channels = width
        self.features = nn.Sequential(*layers)
        most = {"training": count, "testing": count}
        self.rpn = RegionProposalNetwork(
            AnchorGenerator((tuple(sizes),), (_RATIOS,)),
            RPNHead(in_channels, len(sizes) * len(_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=64,
            positive_fraction=0.5,
            pre_nms_top_n={name: 10 * n for name, n in most.items()},
            post_nms_top_n=most,
            nms_thresh=0.7,
        )

    def forward(self, images: Tensor, targets: Any = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the regions of each image, and in training the losses."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        found: tuple[list[Tensor], dict[str, Tensor]] = self.rpn(
            ImageList(images, [size] * len(images)), OrderedDict([("0", self.features(images))]), targets
        )
        return found


class _Rows:
    """Make targets of stored rows, for batches; see `rfsearch.data.batches.Targets`."""

    def __init__(self, data: ImageSet) -> None:
        self._size = data.image_size

    def target(self, stored: Tensor) -> Tensor:
        return stored

    def moved(self, target: Tensor, motion: Motion) -> Tensor:
        return moved_rows(target, motion, self._size, (), 0.25)


def _proposed(data: ImageSet, count: int, steps: int) -> tuple[dict[str, np.ndarray], float]:
    """Train the first stage; returns the rows of its regions, N x count x 6, by split, and the FLOP of its training."""
    from rfsearch.training.meter import Meter  # which knows tasks

    train, rows = data.splits["train"], _Rows(data)
    boxes, *_ = split_rows(np.concatenate(list(train.targets)))
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) if len(boxes) else np.array([32.0])
    sizes = sorted({max(4.0, round(float(side))) for side in np.quantile(sides, _QUANTILES)})
    flop = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _Proposer(data.in_channels, sizes, count)
        optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=_DECAY)
        batches = Batches(train, min(_BATCH, len(train)), 0, rows, Augment(flip=True))
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _RATE * min(1.0, (step + 1) / _WARMUP) * (1 - step / steps) ** 0.9
            images, target = batches.at(step)
            wanted = [{"boxes": one[(one[:, CLASS] >= 0) & (one[:, DIFFICULT] == 0), :4]} for one in target]
            optimizer.zero_grad(set_to_none=True)
            with Meter(memory=False) if step == 0 else nullcontext() as meter:  # every step costs about as much
                torch.stack(list(net(images, wanted)[1].values())).sum().backward()
            flop = meter.flop * steps if meter else flop
            nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
        net.eval()
        with torch.no_grad():
            found = {
                title: _rows_of([regions for images, _ in eval_batches(split, 16, rows) for regions in net(images)[0]])
                for title, split in data.splits.items()
            }
    return found, flop


def _rows_of(regions: Sequence[Tensor]) -> np.ndarray:
    rows = []
    for boxes in regions:
        filled = np.zeros((len(boxes), COLUMNS), np.float32)
        filled[:, :4], filled[:, CLASS] = boxes.numpy(), PROPOSAL
        rows.append(filled)
    return padded(rows)


def _recall(split: Split) -> float:
    """Return the share of a split's objects that a region covers with an intersection over union of at least 0.5."""
    covered = total = 0
    for rows in split.targets:
        boxes, _, difficult = split_rows(rows)
        overlaps = intersections(boxes[~difficult], rows[rows[:, CLASS] == PROPOSAL, :4])
        covered += int((overlaps.max(axis=1, initial=0) >= 0.5).sum())
        total += int((~difficult).sum())
    return covered / total if total else 1.0
