"""Optical flow: the end-point error of a field of displacements between two images.

FlowNet: Dosovitskiy et al., "FlowNet: Learning optical flow with convolutional networks", ICCV 2015. KITTI: Menze,
Geiger, "Object scene flow for autonomous vehicles", CVPR 2015, whose outliers `fl_all` counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.data.batches import Motion, eval_batches
from rfsearch.data.image_set import ImageSet, Split, evenly
from rfsearch.data.object_sizes import ObjectSizes
from rfsearch.errors import DataError, TrialError
from rfsearch.layers.one_call import one_call
from rfsearch.outputs import main_output, require_maps
from rfsearch.tasks.base import Scores, Task, TaskKeys
from rfsearch.tasks.flow_pictures import of_fields
from rfsearch.tasks.pictures import Pictures

Flow = tuple[Tensor, Tensor]  # B x 2 x H x W float32 displacements, px, 0 where unknown; B x 1 x H x W bool, known

# FlowNet's, the finest of its five scales first (its published training definition).
FLOWNET_WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)

# Displacements by length, px: at least the first and less than the second number, and what they are called.
_RANGES = {"0_10": (0.0, 10.0), "10_40": (10.0, 40.0), "40_up": (40.0, math.inf)}
_NAMES = {"0_10": "up to 10 px", "10_40": "10 to 40 px", "40_up": "40 px and more"}
_OUTLIER_PX, _OUTLIER_SHARE = 3.0, 0.05  # an outlier is off by more than both, px and share of the length (KITTI)

# Vectors beside each other that differ by more are of two motions, and are not mixed, px.
_EDGE = 1.0
_SURELY = 0.999  # a smaller share of known pixels in a sample is beside an unknown one

_MEASURED_IMAGES, _MEASURED_PIXELS = 512, 2048  # of a split, and of each image, whose displacements are listed


class FlowKeys(TaskKeys):
    """Hold what a space file says to optical flow.

    Args:
        metric: Score that a search goes by: "aepe", the mean end-point error, or "fl-all", the share of outliers.
        loss: "epe": the end-point error of the main output, enlarged to the truth. "multi-scale": the weighted mean of
            those of all outputs, each at its own size, where a network returns a tuple or list of fields, finest first.
        scale_weights: Of the scales of "multi-scale", finest first, divided by their sum. The default is FlowNet's.
    """

    metric: Literal["aepe", "fl-all"] = "aepe"
    loss: Literal["epe", "multi-scale"] = "epe"
    scale_weights: tuple[float, ...] = FLOWNET_WEIGHTS

    @field_validator("scale_weights")
    @classmethod
    def _are_weights(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if not weights or min(weights) < 0 or weights[0] == 0:
            raise ValueError(f"weights are numbers of at least 0, the first above 0. Got {list(weights)}")
        return weights


class FlowEstimation(Task[Flow]):
    """Say how far each pixel of a first image moves until the second. Targets are N x 2 x H x W floats, px.

    Images are pairs, stacked: N x 2C x H x W. Displacements are to the right and downwards, NaN where they are unknown.
    Scores, over all known pixels of a split together: `aepe`, the mean end-point error, px; `fl_all`, the share of
    pixels whose error is above 3 px and above 5 % of the displacement; `aepe_0_10`, `aepe_10_40` and `aepe_40_up`, the
    mean error where the displacement is less than 10 px, less than 40 px, and longer.

    Raises:
        DataError: The images are no pairs, or the targets no displacements of their size.
    """

    Keys = FlowKeys

    direction = "minimize"

    def __init__(self, keys: FlowKeys, data: ImageSet) -> None:
        """Check that the data holds pairs of images and flow."""
        _require_flow(data)
        self.primary = keys.metric.replace("-", "_")
        self.in_channels, self.out_channels = data.in_channels, 2
        self._size = data.image_size
        self._weights = keys.scale_weights if keys.loss == "multi-scale" else None

    def loss(self, output: object, target: Flow) -> Tensor:
        """Return the mean end-point error over known pixels, px; 0, with a gradient of 0, where none is known.

        Args:
            output: B x 2 x h x w displacements, px of the image, or whatever a network returns that `main_output` finds
                them in.
            target: See `target`.
        """
        if self._weights is None:
            return _mean_error(_enlarged(main_output(output), target[0].shape[-2:]), *target)
        scales = _scales(output)[: len(self._weights)]
        weights = self._weights[: len(scales)]
        losses = [
            weight * _mean_error(scale, *_shrunk(*target, scale.shape[-2:]))
            for weight, scale in zip(weights, scales, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)

    def check_output(self, output: object, batch: int, network: str) -> None:
        """Refuse anything but displacements, B x 2 x h x w, at one scale or several."""
        require_maps(output, batch, 2, network, "displacements")
        if self._weights is not None:
            for scale in _scales(output):
                require_maps(scale, batch, 2, network, "displacements")

    def evaluate(self, model: nn.Module, split: Split, batch_size: int, device: torch.device) -> Scores:
        """Score a model over a whole split, at the truth's own resolution."""
        totals: dict[str, float] = {}
        with torch.no_grad():
            for images, (flow, known) in eval_batches(split, batch_size, self, device):
                found = _enlarged(main_output(model(images)), flow.shape[-2:])
                for name, value in _sums(found, flow, known).items():
                    totals[name] = totals.get(name, 0.0) + value
        return _scores(totals, self.primary)

    def target(self, stored: Tensor) -> Flow:
        """Return displacements, 0 where they are unknown, and where they are known."""
        known = stored.isfinite().all(dim=1, keepdim=True)
        return torch.where(known, stored, 0.0).float(), known

    def moved(self, target: Flow, motion: Motion) -> Flow:
        """Move displacements with the pixels that they are of: mirrored ones change sign, enlarged ones grow.

        They are read bilinearly and, where that would mix two motions, from the nearest pixel.
        """
        flow, known = target
        mixed, nearest = (
            F.grid_sample(flow, motion.grid, mode, "zeros", align_corners=False) for mode in ("bilinear", "nearest")
        )
        share = F.grid_sample(known.float(), motion.grid, "bilinear", "zeros", align_corners=False)
        known = share > _SURELY
        edge = (mixed - nearest).square().sum(dim=1, keepdim=True) > _EDGE**2
        zoom = motion.zoom[:, None].repeat(1, 2)
        zoom[:, 0] = torch.where(motion.mirrored, -zoom[:, 0], zoom[:, 0])
        flow = torch.where(edge, nearest, mixed) * zoom[..., None, None]
        return torch.where(known, flow, 0.0), known

    def empty_target(self, batch: int, device: torch.device) -> Flow:
        """Return the flow of that many pairs that stand still."""
        flow = torch.zeros(batch, 2, *self._size, device=device)
        return flow, torch.ones(batch, 1, *self._size, dtype=torch.bool, device=device)

    def pictures(self, model: nn.Module, split: Split, device: torch.device) -> Pictures:
        """Show fields in the usual colours: a hue for each direction, paler where less moves."""
        with torch.no_grad():
            images, (flow, known) = next(eval_batches(split, len(split), self, device))
            found = _enlarged(main_output(model(images)), flow.shape[-2:])
            errors = _errors(found, flow, known).sum(dim=(1, 2)) / known.sum(dim=(1, 2, 3))
        captions = ["" if math.isnan(error) else f"{error:.2f} px" for error in errors.tolist()]
        return of_fields(np.asarray(split.images), flow.cpu(), found.cpu(), known.cpu(), captions)

    def object_sizes(self, split: Split) -> ObjectSizes:
        """Measure how far pixels move, as the field that it takes to see it.

        A unit sees half of its field to either side: a displacement of d px needs a field of 2 d + 1 px.
        """
        images = evenly(len(split), _MEASURED_IMAGES)
        pixels = evenly(math.prod(self._size), _MEASURED_PIXELS)
        fields = np.concatenate([np.asarray(split.targets[i]).reshape(2, -1)[:, pixels] for i in images], axis=1)
        lengths = np.hypot(*fields.astype(np.float64))
        lengths = lengths[np.isfinite(lengths)]
        return ObjectSizes(
            {
                _NAMES[name]: _spans(lengths[(lengths >= low) & (lengths < high)])
                for name, (low, high) in _RANGES.items()
            },
            len(images),
            noun="displacement",
        )


def _require_flow(data: ImageSet) -> None:
    for title, split in data.splits.items():
        expected = len(split), 2, *data.image_size
        if split.targets.dtype.kind != "f" or split.targets.shape != expected:
            raise DataError(
                f"{data.name}: flow needs a displacement for each pixel, {' x '.join(map(str, expected))} floats. Got "
                f"{' x '.join(map(str, split.targets.shape))} {split.targets.dtype} in the split {title}. Layouts that "
                "read flow: chairs, sintel, kitti; rendered-motions draws it."
            )
    if data.in_channels % 2:
        raise DataError(f"{data.name}: flow needs two images, stacked: 6 channels of RGB. Got {data.in_channels}.")


def _scales(output: object) -> list[Tensor]:
    """Return the fields that a network returns, finest first: those of a tuple or list, or its main output alone."""
    if isinstance(output, tuple | list):
        return [main_output(scale) for scale in output]
    return [main_output(output)]


def _enlarged(field: Tensor, size: Sequence[int]) -> Tensor:
    """Resize displacements, which stay px of the image, to its size."""
    if field.shape[-2:] != tuple(size):
        field = F.interpolate(field, size=tuple(size), mode="bilinear", align_corners=False)
    return field


def _shrunk(flow: Tensor, known: Tensor, size: Sequence[int]) -> Flow:
    """Average known displacements over equal parts of the image, as FlowNet's scales are compared with."""
    if flow.shape[-2:] == tuple(size):
        return flow, known
    cells = size[0], size[1]
    share = F.adaptive_avg_pool2d(known.to(flow.dtype), cells)
    known = share > 0
    return F.adaptive_avg_pool2d(flow, cells) / torch.where(known, share, 1.0), known


@one_call
def _mean_error(field: Tensor, flow: Tensor, known: Tensor) -> Tensor:
    return _errors(field, flow, known).sum() / known.sum().clamp(min=1)


def _errors(field: Tensor, flow: Tensor, known: Tensor) -> Tensor:
    """Return end-point errors, B x H x W px, 0 where the truth is unknown; so are the gradients there and at 0."""
    return _lengths(torch.where(known, field - flow, 0.0))


def _lengths(vectors: Tensor) -> Tensor:
    """Return the lengths of B x 2 x H x W vectors, B x H x W. Where they are 0, so is the gradient.

    On a CPU torch's own norm over this axis takes some twenty times as long.
    """
    across, down = vectors.unbind(dim=1)
    squares = across.square() + down.square()
    none = squares == 0
    return torch.where(none, 1.0, squares).sqrt().masked_fill(none, 0.0)


def _sums(field: Tensor, flow: Tensor, known: Tensor) -> dict[str, float]:
    """Return sums of errors, of outliers and of pixels of a batch, over all pixels and by displacement."""
    known = known.flatten()
    error = _lengths((field - flow).double()).flatten()[known]
    length = _lengths(flow.double()).flatten()[known]
    outliers = (error > _OUTLIER_PX) & (error > _OUTLIER_SHARE * length)
    sums = {"pixels": float(error.numel()), "aepe": float(error.sum()), "fl_all": float(outliers.sum())}
    for name, (low, high) in _RANGES.items():
        within = error[(length >= low) & (length < high)]
        sums |= {f"pixels_{name}": float(within.numel()), f"aepe_{name}": float(within.sum())}
    return sums


def _scores(totals: dict[str, float], primary: str) -> Scores:
    """Divide sums by their pixels; ranges of displacements that none has are left out."""
    if not totals["pixels"]:
        raise TrialError(f"{primary} is undefined: the split has no pixel whose flow is known.")
    scores = {name: totals[name] / totals["pixels"] for name in ("aepe", "fl_all")}
    for name in _RANGES:
        if totals[f"pixels_{name}"]:
            scores[f"aepe_{name}"] = totals[f"aepe_{name}"] / totals[f"pixels_{name}"]
    if not math.isfinite(scores[primary]) or not math.isfinite(scores["aepe"]):
        raise TrialError(f"{primary} is undefined: the network gives displacements that are not finite.")
    return Scores(scores[primary], scores)


def _spans(lengths: np.ndarray) -> np.ndarray:
    """Return the fields, px, that see displacements, ascending."""
    return np.sort(2 * np.ceil(lengths).astype(np.int64) + 1)
