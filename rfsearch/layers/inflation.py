"""Learn a receptive field as one scalar f, by an inflation layer and its interpolation layer.

A feature map is resampled to f times its size before a convolution and back to the label map after it, so that the
convolution sees 1/f of its former receptive field, and f gets a gradient from both resamplings.

Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", CVPR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.layers.guidance import LabelWeight
from rfsearch.layers.host import check_positive, on_host
from rfsearch.layers.resampling import ROUNDING, resample

Normalisation = Literal["exact", "paper"]


def inflate(
    x: Tensor, f: Tensor | float, normalisation: Normalisation = "exact", pixel_weight: Tensor | None = None
) -> Tensor:
    """Resample a feature map so that the next layer sees 1/f of its receptive field (Wei eq. 1-5).

    Target pixel t samples the source at t / f, bilinearly. A sample that falls exactly on a pixel has two slopes, one
    on each side, and f gets their mean: at f = 1, where every sample does, the blur of moving either way cancels.
    Differentiable once in x and in f; differentiating twice raises DerivativeError.

    Args:
        x: B x C x H x W. B x C x L and B x C x D x H x W are resampled likewise, axis by axis.
        f: Inflation factor, a scalar, dimensionless, > 0.
        normalisation: "exact" is the derivative; "paper" divides the part that reaches f by the target's pixel count
            (eq. 10-11).
        pixel_weight: Weight of each target pixel in f's gradient, B x 1 x h x w. For 2-D maps only.

    Returns:
        B x C x (floor(f (H-1)) + 1) x (floor(f (W-1)) + 1), in the type of x.

    Raises:
        ModelError: x is not a map, or f is a tensor of several numbers.
        SpaceError: f is not above 0, or the normalisation is unknown.
        TrialError: f is not finite.
    """
    value = _positive(f)
    size = inflated_size(_map_size(x), value)
    # Most networks keep what is inflated, a ReLU's output, for that ReLU's gradient anyway.
    return _resample(x, f, size, 1 / value, -1 / value**2, normalisation, pixel_weight, held=True)


def inflated_size(size: Sequence[int], f: float) -> tuple[int, ...]:
    """Compute the size of an inflated map (Wei eq. 1).

    Args:
        size: (H, W) or other axes, px.
        f: Inflation factor, dimensionless, > 0.

    Returns:
        floor(f (n-1)) + 1 for each axis of n px.
    """
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

    Label pixel t samples x at t f / stride, bilinearly. Beyond the last pixel of x it takes that pixel, with no
    gradient for f. Differentiable once in x and in f.

    Args:
        x: B x C x H x W, with one pixel every `stride / f` px of the label map; or of one or three axes.
        f: The factor that inflated it, a scalar.
        stride: Stride of the map before inflation, px of the label map per pixel.
        size: (h, w) of the label map, px; or one or three sizes.
        normalisation: As for `inflate`.
        pixel_weight: As for `inflate`.

    Returns:
        B x C x h x w.

    Raises:
        ModelError: As for `inflate`, or `size` has another number of axes than the map.
        SpaceError: As for `inflate`.
        TrialError: As for `inflate`.
    """
    value = _positive(f)
    if len(size) != len(_map_size(x)):
        raise ModelError(f"A map is resized to one size per axis. Got x.shape={tuple(x.shape)} and size={tuple(size)}.")
    return _resample(x, f, tuple(int(n) for n in size), value / stride, 1 / stride, normalisation, pixel_weight)


class InflationFactor(nn.Module):
    """Hold the scalar f of one parsing path, shared by its inflation and its interpolation.

    An optimiser may step outside the bounds. Call `project_` after its step.

    Args:
        f: Initial value, dimensionless.
        learned: Whether f gets a gradient.
        bounds: The smallest and largest legal f, kept in the state dict next to f.

    Raises:
        SpaceError: The bounds are not 0 < low <= high, or f lies outside them.

    Example:
        >>> factor = InflationFactor(1.5, learned=True)
        >>> Inflation(factor)(torch.randn(1, 8, 9, 9)).shape
        torch.Size([1, 8, 13, 13])
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
        """Describe the settings, for `repr`."""
        low, high = self.bounds.tolist()
        return f"f={self.f.item():.4g}, learned={self.f.requires_grad}, bounds=({low:.4g}, {high:.4g})"


class Inflation(nn.Module):
    """Apply `inflate` by a shared factor: B x C x H x W to B x C x (floor(f (H-1)) + 1) x (floor(f (W-1)) + 1).

    Maps of one or three axes are inflated likewise.

    Args:
        factor: The factor.
        normalisation: As for `inflate`.
        pixel_weight: Weight of each target pixel in f's gradient, by its label. For 2-D maps only.

    Example:
        >>> Inflation(InflationFactor(2.0))(torch.randn(1, 8, 9, 9)).shape
        torch.Size([1, 8, 17, 17])
    """

    def __init__(
        self, factor: InflationFactor, normalisation: Normalisation = "exact", pixel_weight: LabelWeight | None = None
    ) -> None:
        super().__init__()
        self.factor = factor
        self.normalisation = _known(normalisation)
        self.pixel_weight = pixel_weight

    def forward(self, x: Tensor) -> Tensor:
        """Inflate B x C x H x W, or a map of one or three axes."""
        f = self.factor.f
        weight = _shown(self.pixel_weight, inflated_size(_map_size(x), _positive(f)))
        return inflate(x, f, self.normalisation, weight)

    def work(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return what the cost of inflating a map of that size depends on."""
        f = on_host(self.factor.f)[0]
        inflated = inflated_size(size, f)
        return inflated

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        return f"normalisation={self.normalisation!r}"


class Interpolation(nn.Module):
    """Apply `interpolate` by a shared factor: B x C x H x W to B x C x h x w, or of one or three axes.

    Args:
        factor: The factor.
        stride: Stride of the map before inflation, px of the label map per pixel.
        normalisation: As for `inflate`.
        pixel_weight: As for `Inflation`.

    Example:
        >>> Interpolation(InflationFactor(2.0), stride=4)(torch.randn(1, 8, 17, 17), (36, 36)).shape
        torch.Size([1, 8, 36, 36])
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
        """Resize B x C x H x W to B x C x h x w, `size` being (h, w) of the label map in px."""
        weight = _shown(self.pixel_weight, size)
        return interpolate(x, self.factor.f, self.stride, size, self.normalisation, weight)

    def work(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return what the cost of interpolating to that size depends on, besides the size of the inflated map."""
        f = self.factor.f
        return (int(f.requires_grad),)

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        return f"stride={self.stride}, normalisation={self.normalisation!r}"


def _shown(pixel_weight: LabelWeight | None, size: Sequence[int]) -> Tensor | None:
    """Return the weight of each pixel of a target map."""
    if pixel_weight is None:
        return None
    if len(size) != 2:
        raise ModelError(f"Pixels are weighted by their labels on 2-D maps only. Got a map of {tuple(size)} px.")
    weight: Tensor | None = pixel_weight((int(size[0]), int(size[1])))
    return weight


def _resample(
    x: Tensor,
    f: Tensor | float,
    size: tuple[int, ...],
    step: float,
    step_slope: float,
    normalisation: Normalisation,
    pixel_weight: Tensor | None,
    held: bool = False,
) -> Tensor:
    share = 1 / math.prod(size) if _known(normalisation) == "paper" else 1.0
    if pixel_weight is not None and len(size) != 2:
        raise ModelError(f"A pixel_weight is B x 1 x h x w, of 2-D maps only. Got x.shape={tuple(x.shape)}.")
    return resample(x, f, size, step, share * step_slope, pixel_weight, held)


def _rounded_up(product: float) -> float:
    """Raise a product slightly, so that one that misses a whole number by rounding only is not floored below it."""
    return product * (1 + ROUNDING)


def _positive(f: Tensor | float) -> float:
    return check_positive(f, "An inflation factor", "f", "The paper's range is [0.25, 4].")


def _map_size(x: Tensor) -> tuple[int, ...]:
    if not 3 <= x.dim() <= 5 or min(x.shape[2:]) < 1:
        raise ModelError(
            "A feature map is B x C x L, B x C x H x W or B x C x D x H x W with every axis of it at least 1 px. "
            f"Got x.shape={tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise ModelError(f"A feature map is of a floating-point type. Got {x.dtype}.")
    return tuple(x.shape[2:])


def _known(normalisation: str) -> Normalisation:
    known: tuple[Normalisation, ...] = get_args(Normalisation)
    for name in known:
        if normalisation == name:
            return name
    raise SpaceError(f"Unknown normalisation {normalisation!r}.{nearest(normalisation, known)}")
