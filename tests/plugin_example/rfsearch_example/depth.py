"""Depth regression: a task without classes, of which a lower score is the better one."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate

from rfsearch.data import ImageSet, Split, eval_batches
from rfsearch.data.batches import Motion
from rfsearch.errors import DataError, TrialError
from rfsearch.outputs import main_output, require_maps
from rfsearch.tasks.base import Scores, Task, TaskKeys
from rfsearch.tasks.pictures import Pictures, shown

Depths = tuple[Tensor, Tensor]  # B x 1 x H x W float32 depths, and where they are known


class Depth(Task[Depths]):
    """Say how far each pixel is: mean absolute error. Targets are N x 1 x H x W floats, not finite where unknown."""

    class Keys(TaskKeys):
        """Hold what a space file's [task] says to this task.

        Args:
            metric: "mae" or "rmse", over all pixels whose depth is known.
            largest: Depth beyond which a pixel counts as unknown, such as the range of a sensor. None: any is known.
        """

        metric: Literal["mae", "rmse"] = "mae"
        largest: float | None = Field(default=None, gt=0)

    direction = "minimize"

    def __init__(self, keys: Keys, data: ImageSet) -> None:
        for title, split in data.splits.items():
            expected = len(split), 1, *data.image_size
            if split.targets.dtype.kind != "f" or split.targets.shape != expected:
                raise DataError(
                    f"{data.name}: depth needs targets of {expected} floats. Got {split.targets.shape} "
                    f"{split.targets.dtype} in the split {title}."
                )
        self.primary = f"{keys.metric}_pooled"
        self.in_channels, self.out_channels = data.in_channels, 1
        self._size, self._largest = data.image_size, keys.largest or math.inf

    def loss(self, output: object, target: Depths) -> Tensor:
        depth, known = target
        error = torch.where(known, self._at_size(output) - depth, 0.0).abs()
        return error.sum() / known.sum().clamp(min=1)

    def check_output(self, output: object, batch: int, network: str) -> None:
        require_maps(output, batch, 1, network, "depths")

    def evaluate(self, model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
        total = squares = count = 0.0
        with torch.no_grad():
            for images, (depth, known) in eval_batches(split, batch_size, self, device):
                error = (self._at_size(model(images)) - depth)[known].double()
                total, squares = total + float(error.abs().sum()), squares + float(error.square().sum())
                count += error.numel()
        if not count:
            raise TrialError(f"{self.primary} is undefined: the split has no pixel whose depth is known.")
        scores = {"mae_pooled": total / count, "rmse_pooled": math.sqrt(squares / count)}
        return Scores(scores[self.primary], scores)

    def target(self, stored: Tensor) -> Depths:
        known = stored.isfinite() & (stored <= self._largest)
        return torch.where(known, stored, 0.0).float(), known

    def moved(self, target: Depths, motion: Motion) -> Depths:
        depth, known = target
        depth = grid_sample(depth, motion.grid, "bilinear", "zeros", align_corners=False)
        weight = grid_sample(known.float(), motion.grid, "bilinear", "zeros", align_corners=False)
        known = weight > 0.999  # beside an unknown pixel, or the image's edge, it is a mixture
        return torch.where(known, depth, 0.0), known

    def empty_target(self, batch: int, device: torch.device) -> Depths:
        depth = torch.zeros(batch, 1, *self._size, device=device)
        return depth, torch.ones_like(depth, dtype=torch.bool)

    def pictures(self, model: nn.Module, split: Split, device: torch.device) -> Pictures:
        with torch.no_grad():
            images, (depth, known) = next(eval_batches(split, len(split), self, device))
            found = self._at_size(model(images))
        errors = [float((a - b).abs()[k].mean()) for a, b, k in zip(found, depth, known, strict=True)]
        return Pictures(
            shown(np.asarray(split.images)),
            _grey(depth),
            _grey(found),
            tuple(f"{error:.3f}" for error in errors),
            {"near": (255, 255, 255), "far": (0, 0, 0)},
            "The figure is the mean absolute error of the depth.",
        )

    def _at_size(self, output: object) -> Tensor:
        depth: Tensor = main_output(output)
        if depth.shape[-2:] != self._size:
            depth = interpolate(depth, self._size, mode="bilinear", align_corners=False)
        return depth


def _grey(depth: Tensor) -> np.ndarray:
    """N x H x W x 3 uint8 pictures of N x 1 x H x W depths: white at 0, black at 1 and beyond."""
    shade = (255 * (1 - depth.clamp(0, 1))).round().byte().cpu().numpy()
    return np.ascontiguousarray(shade.repeat(3, axis=1).transpose(0, 2, 3, 1))
