"""The inflation layer and its interpolation layer: a receptive field that is learned as one scalar, f.

A feature map is resampled to f times its size before a convolution and back to the label map after it, so that the
convolution sees 1/f of its former receptive field, and f gets a gradient from both resamplings.

Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", CVPR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rfsearch.errors import ModelError, SpaceError, TrialError, nearest
from rfsearch.layers.guidance import LabelWeight
from rfsearch.layers.precision import inner, no_autocast, wide

Normalisation = Literal["exact", "paper"]

# f is kept in single precision: a product such as f (H-1) that should be whole may miss it by this fraction.
_ROUNDING = 2.0**-23
# Values of a map that are resampled at a time on a CPU, together with several as large.
_CACHED = 2**17


def inflate(
    x: Tensor, f: Tensor | float, normalisation: Normalisation = "exact", pixel_weight: Tensor | None = None
) -> Tensor:
    """Resample a feature map so that the next layer sees 1/f of its receptive field (Wei eq. 1-5).

    x: B x C x H x W. f: scalar, dimensionless, > 0. Returns B x C x (floor(f (H-1)) + 1) x (floor(f (W-1)) + 1), in
    the type of x: target pixel t samples the source at t / f, bilinear. A B x C x L or B x C x D x H x W is resampled
    alike, axis by axis. Differentiable once in x and in f.

    normalisation: "exact" is the derivative; "paper" divides the part that reaches f by the target's pixel count
    (eq. 10-11). pixel_weight: B x 1 x h x w, what each target pixel counts in f's gradient, of 2-D maps only. A sample
    that falls exactly on a pixel has two slopes, one each side; f gets their mean, so that at f = 1, where every sample
    does, the blur of moving either way cancels.
    """
    value = _positive(f)
    size = inflated_size(_map_size(x), value)
    return _resample(x, f, size, 1 / value, -1 / value**2, normalisation, pixel_weight)


def inflated_size(size: Sequence[int], f: float) -> tuple[int, ...]:
    """The size of an inflated map (Wei eq. 1). size: (H, W) or other axes, px. Returns floor(f (n-1)) + 1 of each."""
    f = _positive(f)
    return tuple(math.floor(_rounded_up(f * (n - 1))) + 1 for n in size)


def interpolate(
    x: Tensor,
    f: Tensor | float,
    stride: float,
    size: Sequence[int],
    normalisation: Normalisation = "exact",
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """Resize an inflated map by stride / f to the label map (Wei eq. 8-9).

    x: B x C x H x W, one pixel every `stride / f` px of the label map. f: scalar, the factor that inflated it.
    size: (h, w) of the label map, px. Returns B x C x h x w: label pixel t samples x at t f / stride, bilinear, and
    beyond the last pixel of x takes that pixel, with no gradient for f. A B x C x L or B x C x D x H x W likewise, for
    one or three sizes. Differentiable once in x and in f; normalisation and pixel_weight as in `inflate`.
    """
    value = _positive(f)
    if len(size) != len(_map_size(x)):
        raise ModelError(f"A map is resized to one size an axis. Got x.shape={tuple(x.shape)} and size={tuple(size)}.")
    return _resample(x, f, tuple(int(n) for n in size), value / stride, 1 / stride, normalisation, pixel_weight)


class InflationFactor(nn.Module):
    """The scalar f of one parsing path, shared by its inflation and its interpolation.

    f: start value, dimensionless. learned: whether f gets a gradient. bounds: the smallest and largest legal f, kept
    in the state dict next to f. An optimiser may step outside; call `project_` after its step.
    """

    f: nn.Parameter
    bounds: Tensor

    def __init__(self, f: float = 1.0, learned: bool = False, bounds: tuple[float, float] = (0.25, 4.0)) -> None:
        super().__init__()
        low, high = bounds
        if not 0 < low <= high < math.inf:
            raise SpaceError(
                f"The bounds of an inflation factor are 0 < low <= high. Got low={low}, high={high}. "
                "The paper's are (0.25, 4.0)."
            )
        if not low <= f <= high:
            closest = high if f > high else low
            raise SpaceError(
                f"An inflation factor lies within its bounds [{low}, {high}]. Got f={f}. Nearest legal: {closest}."
            )
        self.f = nn.Parameter(torch.tensor(float(f), dtype=torch.float32), requires_grad=learned)
        self.register_buffer("bounds", torch.tensor([low, high], dtype=torch.float32))

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the value of f into its bounds, in place. In the forward pass a clamp would kill f's gradient."""
        self.f.clamp_(self.bounds[0], self.bounds[1])

    def extra_repr(self) -> str:
        low, high = self.bounds.tolist()
        return f"f={self.f.item():.4g}, learned={self.f.requires_grad}, bounds=({low:.4g}, {high:.4g})"


class Inflation(nn.Module):
    """`inflate` by a shared factor: B x C x H x W to B x C x (floor(f (H-1)) + 1) x (floor(f (W-1)) + 1).

    Or of one or three axes. pixel_weight: what each target pixel counts in f's gradient, by its label; of 2-D maps.
    """

    def __init__(
        self, factor: InflationFactor, normalisation: Normalisation = "exact", pixel_weight: LabelWeight | None = None
    ) -> None:
        super().__init__()
        self.factor = factor
        self.normalisation = _known(normalisation)
        self.pixel_weight = pixel_weight

    def forward(self, x: Tensor) -> Tensor:
        f = self.factor.f
        weight = _shown(self.pixel_weight, inflated_size(_map_size(x), _positive(f)))
        return inflate(x, f, self.normalisation, weight)

    def extra_repr(self) -> str:
        return f"normalisation={self.normalisation!r}"


class Interpolation(nn.Module):
    """`interpolate` by a shared factor: B x C x H x W to B x C x h x w, or of one or three axes.

    stride: of the map before inflation, in px of the label map per pixel. pixel_weight: as for `Inflation`.
    """

    def __init__(
        self,
        factor: InflationFactor,
        stride: float,
        normalisation: Normalisation = "exact",
        pixel_weight: LabelWeight | None = None,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.stride = stride
        self.normalisation = _known(normalisation)
        self.pixel_weight = pixel_weight

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        weight = _shown(self.pixel_weight, size)
        return interpolate(x, self.factor.f, self.stride, size, self.normalisation, weight)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, normalisation={self.normalisation!r}"


def _shown(pixel_weight: LabelWeight | None, size: Sequence[int]) -> Tensor | None:
    """What each pixel of a target map counts."""
    if pixel_weight is None:
        return None
    if len(size) != 2:
        raise ModelError(f"Pixels are weighted by their labels on 2-D maps only. Got a map of {tuple(size)} px.")
    return pixel_weight((int(size[0]), int(size[1])))


def _resample(
    x: Tensor,
    f: Tensor | float,
    size: tuple[int, ...],
    step: float,
    step_slope: float,
    normalisation: Normalisation,
    pixel_weight: Tensor | None,
) -> Tensor:
    """Sample x bilinearly every `step` px from its first pixel on, `size` times an axis; step_slope: d step / d f."""
    share = 1 / math.prod(size) if _known(normalisation) == "paper" else 1.0
    if pixel_weight is not None and len(size) != 2:
        raise ModelError(f"A pixel_weight is B x 1 x h x w, of 2-D maps only. Got x.shape={tuple(x.shape)}.")
    if step == 1 and size == x.shape[2:] and not (isinstance(f, Tensor) and f.requires_grad):
        return x
    # The output keeps the type of x: autocast would otherwise round a single precision map to half.
    with no_autocast(x.device):
        output: Tensor = _Resample.apply(x, f, size, step, step_slope, share, pixel_weight)
    return output


class _Resample(torch.autograd.Function):
    """V = Y U X^T for every channel U of a 2-D map, with Y and X the weights of eq. 1 as matrices: a matrix product an
    axis, the last axis last, since that product is one for all lines. Some maps at a time, so that what is in between
    stays in the caches."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        f: Tensor | float,
        size: tuple[int, ...],
        step: float,
        step_slope: float,
        share: float,
        pixel_weight: Tensor | None,
    ) -> Tensor:
        ctx.pixel_weight = pixel_weight
        ctx.source, ctx.size, ctx.step, ctx.step_slope, ctx.share = x.shape[2:], size, step, step_slope, share
        ctx.save_for_backward(*((x, f) if ctx.needs_input_grad[1] else ()))
        weights = [_weights(n, t, step, x) for n, t in zip(ctx.source, size, strict=True)]
        maps, output = x.reshape(-1, *ctx.source), x.new_empty(x.shape[0] * x.shape[1], *size)
        for piece in _pieces(output):
            output[piece] = _pushed(maps[piece], weights)[-1]
        return output.view(*x.shape[:2], *size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        axes, step = list(zip(ctx.source, ctx.size, strict=True)), ctx.step
        with no_autocast(grad.device):
            weights = [_weights(n, t, step, grad) for n, t in axes]
            grads = grad.reshape(-1, *ctx.size)
            grad_maps = grad.new_empty(grads.shape[0], *ctx.source) if ctx.needs_input_grad[0] else None
            x, f = ctx.saved_tensors if ctx.needs_input_grad[1] else (None, None)
            slopes = [ctx.step_slope * _slopes(n, t, step, grad) for n, t in axes] if x is not None else []
            maps = x.reshape(-1, *ctx.source) if x is not None else grads
            counted = (grad * ctx.pixel_weight.to(grad.dtype)).view_as(grads) if ctx.pixel_weight is not None else grads
            total = grad.new_zeros((), dtype=wide(grad))
            for piece in _pieces(grads):
                pulled = _pulled(grads[piece], weights)
                if grad_maps is not None:
                    grad_maps[piece] = pulled[0]
                if x is not None:
                    if counted is not grads:
                        pulled = _pulled(counted[piece], weights)
                    total += _slope(maps[piece], pulled, weights, slopes)
            grad_x = None if grad_maps is None else grad_maps.view(*grad.shape[:2], *ctx.source)
            grad_f = None if f is None else (ctx.share * total).to(f.device, f.dtype).reshape(f.shape)
        return grad_x, grad_f, None, None, None, None, None


def _pushed(maps: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """Maps, N x one axis or more, and what each further axis's matrix makes of them, from the first axis on."""
    stages = [maps]
    for axis, matrix in enumerate(matrices, start=1):
        stages.append(_along(stages[-1], axis, matrix))
    return stages


def _pulled(grads: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the stages of `_pushed`, of the maps first. grads: of the last stage."""
    stages = [grads]
    for axis in range(len(matrices), 0, -1):
        stages.insert(0, _along(stages[0], axis, matrices[axis - 1].mT))
    return stages


def _slope(maps: Tensor, pulled: Sequence[Tensor], weights: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """The sum over target pixels of dL/dV (dV/dy dy/df + dV/dx dx/df), eq. 5, of some maps. pulled: of `_pulled`."""
    pushed, last = _pushed(maps, weights[:-1]), len(slopes)
    # of the last axis on the gradient's side: the product is as large and its outcome smaller
    total = inner(pushed[-1], _along(pulled[last], last, slopes[-1].mT))
    for axis, slope in enumerate(slopes[:-1], start=1):
        total = total + inner(_along(pushed[axis - 1], axis, slope), pulled[axis])
    return total


def _along(maps: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Every line of N x ... maps along an axis, counted from 1, times a target x source matrix."""
    if axis == maps.dim() - 1:
        return torch.matmul(maps, matrix.mT)
    lines = maps.flatten(0, axis - 1).flatten(2)  # ... x source x what follows
    moved = torch.bmm(matrix.expand(lines.shape[0], *matrix.shape), lines)
    return moved.view(*maps.shape[:axis], len(matrix), *maps.shape[axis + 1 :])


def _pieces(maps: Tensor) -> list[slice]:
    """Some maps at a time: on a CPU as many as the caches hold with what is made of them; else, and where a program for
    any number of images is exported, all."""
    if maps.device.type != "cpu" or torch.compiler.is_exporting():
        return [slice(None)]
    count = max(1, _CACHED // math.prod(maps.shape[1:]))
    return [slice(start, start + count) for start in range(0, len(maps), count)]


def _weights(source: int, target: int, step: float, like: Tensor) -> Tensor:
    """Bilinear weights of one axis (eq. 1), target x source: row t holds max(0, 1 - |position of t - n|)."""
    position = _positions(source, target, step)
    before = position.floor()
    after = (before + 1).clamp(max=source - 1)
    part = position - before
    weights = torch.zeros(target, source, dtype=torch.float64)
    weights.scatter_add_(1, before.long()[:, None], (1 - part)[:, None])
    weights.scatter_add_(1, after.long()[:, None], part[:, None])
    return weights.to(like.device, like.dtype)


def _slopes(source: int, target: int, step: float, like: Tensor) -> Tensor:
    """The derivative of `_weights` in `step`, target x source: t times the source's slope around its position."""
    position = _positions(source, target, step)
    before = (position.ceil() - 1).clamp(min=0)
    after = (position.floor() + 1).clamp(max=source - 1)
    inside = _snapped(torch.arange(target, dtype=torch.float64) * step) <= source - 1
    speed = torch.arange(target, dtype=torch.float64) * inside / (after - before).clamp(min=1)
    slopes = torch.zeros(target, source, dtype=torch.float64)
    slopes.scatter_add_(1, before.long()[:, None], -speed[:, None])
    slopes.scatter_add_(1, after.long()[:, None], speed[:, None])
    return slopes.to(like.device, like.dtype)


def _positions(source: int, target: int, step: float) -> Tensor:
    """Where each target pixel of one axis samples the source, px, within the source."""
    return _snapped(torch.arange(target, dtype=torch.float64) * step).clamp(max=source - 1)


def _snapped(position: Tensor) -> Tensor:
    """Positions that miss a whole pixel by rounding only, put back onto it."""
    whole = position.round()
    return torch.where(torch.isclose(position, whole, rtol=2 * _ROUNDING, atol=0), whole, position)


def _rounded_up(product: float) -> float:
    """A product that misses a whole number by rounding only must not be floored below it."""
    return product * (1 + _ROUNDING)


def _positive(f: Tensor | float) -> float:
    value = float(f.detach() if isinstance(f, Tensor) else f)
    if not math.isfinite(value):
        raise TrialError(f"An inflation factor is finite. Got f={value}: its training diverged; lower its rate.")
    if value <= 0:
        raise SpaceError(f"An inflation factor is greater than 0. Got f={value}. The paper's range is [0.25, 4].")
    return value


def _map_size(x: Tensor) -> tuple[int, ...]:
    if not 3 <= x.dim() <= 5 or min(x.shape[2:]) < 1:
        raise ModelError(
            "A feature map is B x C x L, B x C x H x W or B x C x D x H x W with every axis of it at least 1 px. "
            f"Got x.shape={tuple(x.shape)}."
        )
    return tuple(x.shape[2:])


def _known(normalisation: str) -> Normalisation:
    for known in get_args(Normalisation):
        if normalisation == known:
            return known
    raise SpaceError(f"Unknown normalisation {normalisation!r}.{nearest(normalisation, get_args(Normalisation))}")
