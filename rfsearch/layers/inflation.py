"""Learn a receptive field as one scalar f, by an inflation layer and its interpolation layer.

A feature map is resampled to f times its size before a convolution and back to the label map after it, so that the
convolution sees 1/f of its former receptive field, and f gets a gradient from both resamplings.

Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing networks", CVPR 2017.

What happens at the far border is a choice. With eq. 2 floored (`border="paper"`), the last sample falls short of the
map's last pixel by less than a pixel of the target: while the size stays, a growing f only loses the border, then it
jumps back. The loss is a sawtooth in f, whose slope is not its trend. `border="continuous"` has no such jumps:

- Eq. 1 and 4 stay: target t samples the source at t / f. The map goes on as the convolution behind it pads: it falls to
  0 within one pixel behind its last one, or repeats that one where the convolution replicates.
- Eq. 2 becomes ceil(f (H - 1) + max(f, 1)), which is H at f = 1: every t with t / f < H, and for f < 1 as many as reach
  the last pixel; more where the convolution needs them for the rows that are read, see `inflated_size`. A row that
  enters as f grows holds what padding had put there before.
- Eq. 8: label t reads min(t / F, H - 1) f, where the paper's layer reads min(t f / F, last inflated row). Both rows
  that it mixes exist at every f, and the one that enters has weight 0.

So the pair computes what eq. 1-9 give for a map that zeros continue without end, of which labels read H px. That is
exact, and the loss continuous in f, where one convolution, padded by zeros or replicated pixels, lies between the two
besides functions of one pixel. Its slope still jumps, as that of any bilinear sampling: wherever a sample crosses a
pixel, f gets the mean of both slopes, and where a row is about to enter, as at f = 1, the one without it. Not exact,
with jumps of what the last rows contribute: a second convolution or a pooling, which sees the new row of the first
one's output; circular and reflected padding; statistics of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.layers.gathering import is_symbol, multiple, number_of
from rfsearch.layers.guidance import LabelWeight
from rfsearch.layers.host import check_positive, on_host
from rfsearch.layers.resampling import ROUNDING, resample

Normalisation = Literal["exact", "paper"]
Border = Literal["continuous", "paper"]
Padding = Literal["zeros", "replicate"]
Window = tuple[int, int]
"""What a convolution makes of one axis: the px by which its span exceeds its padding, and its stride."""
Name = TypeVar("Name", bound=str)


def inflate(
    x: Tensor,
    f: Tensor | float,
    normalisation: Normalisation = "exact",
    pixel_weight: Tensor | None = None,
    border: Border = "continuous",
    padding: Padding = "zeros",
    windows: Sequence[Window] | None = None,
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
        border: What happens at the far border; see the module.
        padding: How a map goes on beyond its last pixel where the border is continuous: as the convolution behind it
            pads.
        windows: As for `inflated_size`.

    Returns:
        B x C x h x w, of `inflated_size`, in the type of x.

    Raises:
        ModelError: x is not a map, or f is a tensor of several numbers.
        SpaceError: f is not above 0, or the normalisation, the border or the padding is unknown.
        TrialError: f is not finite.
    """
    value = _positive(f)
    size = inflated_size(_map_size(x), value, border, windows)
    fades = border == "continuous" and _known(padding, Padding, "padding") == "zeros"
    # Most networks keep what is inflated, a ReLU's output, for that ReLU's gradient anyway.
    return _resample(x, f, size, 1 / value, -1 / value**2, normalisation, pixel_weight, held=True, fades=fades)


def inflated_size(
    size: Sequence[int], f: float, border: Border = "continuous", windows: Sequence[Window] | None = None
) -> tuple[int, ...]:
    """Compute the size of an inflated map (Wei eq. 2).

    Args:
        size: (H, W) or other axes, px.
        f: Inflation factor, dimensionless, > 0.
        border: As for `inflate`. The paper's has the same size for all windows.
        windows: Of the convolution behind the inflation, one for each axis, where it does not keep its map's size: its
            output then has a row for every place f t that is read, t being a row of its output at f = 1.

    Returns:
        ceil(f (n-1) + max(f, 1)) or more for each axis of n px; floor(f (n-1)) + 1 with the paper's border.
    """
    f = _positive(f)
    if _known(border, Border, "border") == "paper":
        return tuple(_floor(f, n - 1) + 1 for n in size)
    found = []
    for n, (lost, stride) in zip(size, windows or [(0, 1)] * len(size), strict=True):
        inflated = _ceil(f, n) if f >= 1 else _ceil(f, n - 1) + 1
        if (lost, stride) != (0, 1):
            last: int = torch.sym_max(0, (n - 1 - lost) // stride)  # type: ignore[assignment]  # of the output at f = 1
            inflated = torch.sym_max(inflated, 1 + lost + stride * _ceil(f, last))  # type: ignore[assignment]
        found.append(inflated)
    return tuple(found)


def _floor(f: float, n: int) -> int:
    """Return f n rounded down; one that misses a whole number by rounding only is that number."""
    return multiple(n, f, up=False) if is_symbol(n) else math.floor(f * n * (1 + ROUNDING))


def _ceil(f: float, n: int) -> int:
    """Return f n rounded up; one that misses a whole number by rounding only is that number."""
    return multiple(n, f, up=True) if is_symbol(n) else math.ceil(f * n * (1 - ROUNDING))


def interpolate(
    x: Tensor,
    f: Tensor | float,
    stride: float,
    size: Sequence[int],
    normalisation: Normalisation = "exact",
    pixel_weight: Tensor | None = None,
    border: Border = "continuous",
    plain: Sequence[int] | None = None,
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
        border: As for `inflate`. With the paper's, `plain` does not count.
        plain: (H, W) that x has at f = 1, px, or one or three sizes. Label pixels behind its last pixel, which is at
            f (H - 1) of x, sample x there. Where it is not given, label pixels should end with it.

    Returns:
        B x C x h x w.

    Raises:
        ModelError: As for `inflate`, or `size` or `plain` has another number of axes than the map.
        SpaceError: As for `inflate`.
        TrialError: As for `inflate`.
    """
    value, target = _positive(f), tuple(n if is_symbol(n) else int(n) for n in size)
    for each in (size, size if plain is None else plain):
        if len(each) != len(_map_size(x)):
            raise ModelError(
                f"A map is resized to one size per axis. Got x.shape={tuple(x.shape)} and size={tuple(each)}."
            )
    last = None
    if _known(border, Border, "border") == "continuous" and plain is not None:
        last = tuple(stride * number_of(n - 1) if is_symbol(n) else stride * (n - 1) for n in plain)
    return _resample(x, f, target, value / stride, 1 / stride, normalisation, pixel_weight, last=last)


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
    """Apply `inflate` by a shared factor: B x C x H x W to B x C x h x w, of `inflated_size`.

    Maps of one or three axes are inflated likewise.

    Args:
        factor: The factor.
        normalisation: As for `inflate`.
        pixel_weight: Weight of each target pixel in f's gradient, by its label. For 2-D maps only.
        border: As for `inflate`.
        padding: As for `inflate`.
        windows: As for `inflate`.

    Example:
        >>> Inflation(InflationFactor(2.0))(torch.randn(1, 8, 9, 9)).shape
        torch.Size([1, 8, 18, 18])
    """

    def __init__(
        self,
        factor: InflationFactor,
        normalisation: Normalisation = "exact",
        pixel_weight: LabelWeight | None = None,
        border: Border = "continuous",
        padding: Padding = "zeros",
        windows: Sequence[Window] | None = None,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.normalisation = _known(normalisation, Normalisation, "normalisation")
        self.pixel_weight = pixel_weight
        self.border = _known(border, Border, "border")
        self.padding = _known(padding, Padding, "padding")
        self.windows = windows

    def forward(self, x: Tensor) -> Tensor:
        """Inflate B x C x H x W, or a map of one or three axes."""
        f = self.factor.f
        weight = _shown(self.pixel_weight, inflated_size(_map_size(x), _positive(f), self.border, self.windows))
        return inflate(x, f, self.normalisation, weight, self.border, self.padding, self.windows)

    def work(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return what the cost of inflating a map of that size depends on."""
        f = on_host(self.factor.f)[0]
        inflated = inflated_size(size, f, self.border, self.windows)
        return inflated

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        return f"normalisation={self.normalisation!r}, border={self.border!r}, padding={self.padding!r}"


class Interpolation(nn.Module):
    """Apply `interpolate` by a shared factor: B x C x H x W to B x C x h x w, or of one or three axes.

    Args:
        factor: The factor.
        stride: Stride of the map before inflation, px of the label map per pixel. None: whatever their sizes give
            (Wei eq. 8), see `stride_between`.
        normalisation: As for `inflate`.
        pixel_weight: As for `Inflation`.
        border: As for `inflate`.

    Example:
        >>> Interpolation(InflationFactor(2.0), stride=4)(torch.randn(1, 8, 18, 18), (36, 36), (9, 9)).shape
        torch.Size([1, 8, 36, 36])
    """

    def __init__(
        self,
        factor: InflationFactor,
        stride: float | None,
        normalisation: Normalisation = "exact",
        pixel_weight: LabelWeight | None = None,
        border: Border = "continuous",
    ) -> None:
        super().__init__()
        self.factor = factor
        self.stride = stride
        self.normalisation = _known(normalisation, Normalisation, "normalisation")
        self.pixel_weight = pixel_weight
        self.border = _known(border, Border, "border")

    def forward(self, x: Tensor, size: Sequence[int], plain: Sequence[int] | None = None) -> Tensor:
        """Resize B x C x H x W to B x C x h x w.

        Args:
            x: The map.
            size: (h, w) of the label map, px.
            plain: (H, W) that x has at f = 1, px. Give it where the label map ends behind its last pixel, so that the
                loss stays continuous in f, and where no stride is set.
        """
        weight, stride = _shown(self.pixel_weight, size), self.stride_between(size, plain)
        return interpolate(x, self.factor.f, stride, size, self.normalisation, weight, self.border, plain)

    def stride_between(self, size: Sequence[int], plain: Sequence[int] | None) -> float:
        """Return the stride of a map on a label map, px: the one set, or (h - 1) / (H - 1) of the axis with the most.

        With that, the outermost pixels of this axis lie on the label map's, and no label pixel lies behind the map.

        Raises:
            ModelError: None is set, and the size of the map is not given.
        """
        if self.stride is not None:
            return self.stride
        if plain is None:
            raise ModelError("An interpolation without a stride needs the size that its map has at f = 1.")
        if any(is_symbol(n) for n in (*size, *plain)):
            ratios = [number_of(n - 1) / number_of(m - 1) for n, m in zip(size, plain, strict=True)]
            return torch.cat(ratios).max()  # type: ignore[return-value]  # a number of the graph
        return max([(n - 1) / (m - 1) for n, m in zip(size, plain, strict=True) if min(n, m) > 1], default=1.0)

    def work(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return what the cost of interpolating to that size depends on, besides the size of the inflated map."""
        f = self.factor.f
        return (int(f.requires_grad),)

    def extra_repr(self) -> str:
        """Describe the settings, for `repr`."""
        return f"stride={self.stride}, normalisation={self.normalisation!r}, border={self.border!r}"


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
    last: Sequence[float | Tensor] | None = None,
    fades: bool = False,
) -> Tensor:
    share = 1 / math.prod(size) if _known(normalisation, Normalisation, "normalisation") == "paper" else 1.0
    if pixel_weight is not None and len(size) != 2:
        raise ModelError(f"A pixel_weight is B x 1 x h x w, of 2-D maps only. Got x.shape={tuple(x.shape)}.")
    return resample(x, f, size, step, share * step_slope, pixel_weight, held, last, fades)


def _positive(f: Tensor | float) -> float:
    return check_positive(f, "An inflation factor", "f", "The paper's range is [0.25, 4].")


def _map_size(x: Tensor) -> tuple[int, ...]:
    if not 3 <= x.dim() <= 5 or any(n < 1 for n in x.shape[2:]):
        raise ModelError(
            "A feature map is B x C x L, B x C x H x W or B x C x D x H x W with every axis of it at least 1 px. "
            f"Got x.shape={tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise ModelError(f"A feature map is of a floating-point type. Got {x.dtype}.")
    return tuple(x.shape[2:])


def _known(name: Name, names: object, what: str) -> Name:
    """Return a name that is one of those of a literal type."""
    if name not in get_args(names):
        raise SpaceError(f"Unknown {what} {name!r}.{nearest(name, get_args(names))}")
    return name
