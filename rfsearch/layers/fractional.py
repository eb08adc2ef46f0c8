"""A convolution whose dilation is a real number: the receptive field is learned on the original grid.

Sampling the taps of a kernel bilinearly between the pixels, delta px apart, has the receptive field of inflating the
map by f = d / delta and dilating by d (Wei: Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image
parsing networks", CVPR 2017), without maps that grow as f^2. Output pixel p of one axis, in px of the map:

    y(p) = sum_j w_j x(p stride + t_j(delta)),    t_j(n) = n j - floor(n (k-1) / 2) + offset    for whole n,

x bilinear and continued beyond the map as the padding mode says. Between two whole dilations each tap moves in a
straight line. For odd k this is t_j = delta (j - (k-1)/2) + offset; for even k it is what `padding="same"` of torch
does at whole dilations, where the tap that is to one side of the centre alternates.

Equal forms, the cheapest of which runs: see `fractional_conv2d`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.errors import ModelError, SpaceError, TrialError, nearest
from rfsearch.layers.host import on_host
from rfsearch.layers.once import sealed_gradient
from rfsearch.layers.precision import no_autocast
from rfsearch.layers.sampled import Frame, Pair, Sampled, snapped

Form = Literal["auto", "plain", "splat", "sampled"]


def fractional_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Tensor | float | tuple[float, float] = 1.0,
    stride: int | Pair = 1,
    padding: str | int | Pair = "same",
    groups: int = 1,
    padding_mode: str = "zeros",
    padded_for: int | Pair = 1,
    form: Form = "auto",
) -> Tensor:
    """Convolve with taps a real number of pixels apart.

    x: B x C x H x W. weight: O x C/groups x k_h x k_w. bias: O. dilation: one of both axes or (height, width), px, > 0.
    stride, padding, padding_mode: as for `nn.Conv2d`, the padding meant for a whole dilation `padded_for`; at every
    other dilation as much is padded as keeps that size and centre. Returns what F.conv2d would at `padded_for`:
    B x O x H_out x W_out. Differentiable once in x, weight, bias and dilation; a tap that is exactly on a pixel has two
    slopes, one each side, and the dilation gets their mean.

    form: "auto" takes the cheapest; "plain", a convolution, for whole dilations without a gradient; "splat", a
    convolution with the weights spread bilinearly onto whole pixels; "sampled", the map read at every tap, then one
    matrix product. They differ in rounding only. A 3 x 3 kernel is also the sum of four convolutions of the two whole
    dilations either side on both axes, with shared weights; measured, that is never clearly ahead of these three.
    """
    values = _values(dilation)
    learnable = dilation if isinstance(dilation, Tensor) else None
    return _convolve(
        x, weight, bias, learnable, values, _pair(stride), padding, groups, padding_mode, _pair(padded_for), form
    )


class FractionalConv2d(nn.Module):
    """A convolution's weights at a real dilation: B x C x H x W to what the convolution it replaces would give.

    conv: stays as it is; its weight and bias are shared, under the same names. dilation: start value, px, of both axes
    or (height, width). learned: whether it gets a gradient. bounds: its smallest and largest legal value, px, kept in
    the state dict next to it; an optimiser may step outside: call `project_` after its step. shared: one dilation for
    both axes. At the dilation of `conv` this is `conv`, and the output's size never changes.

    What is learned is log_dilation, so a step of an optimiser multiplies the dilation: 1 -> 2 is as far as 8 -> 16, and
    it cannot fall to 0. The taps' whole pixels are chosen on the host: on a GPU every new value of log_dilation is
    read once, the one synchronisation of a training step; without training there is none after the first call. Values
    are taken for new when an optimiser, `project_` or load_state_dict wrote them; after writing `log_dilation.data` in
    place by hand, on a GPU, call `project_`.
    """

    weight: Tensor
    bias: Tensor | None
    log_dilation: nn.Parameter
    bounds: Tensor

    def __init__(
        self,
        conv: nn.Conv2d,
        dilation: float | tuple[float, float],
        learned: bool = True,
        bounds: tuple[float, float] = (0.25, 32.0),
        shared: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(conv, nn.Conv2d):
            raise ModelError(f"A fractional dilation replaces that of an nn.Conv2d. Got {type(conv).__name__}.")
        low, high = bounds
        if not 0 < low <= high < math.inf:
            raise SpaceError(
                f"The bounds of a dilation are 0 < low <= high. Got low={low}, high={high}. "
                "The usual ones are (0.25, 32)."
            )
        values = _values(dilation)
        for value in values:
            if not low <= value <= high:
                closest = high if value > high else low
                raise SpaceError(
                    f"A dilation lies within its bounds [{low}, {high}]. Got {value}. Nearest legal: {closest}."
                )
        if shared and values[0] != values[1]:
            raise SpaceError(
                f"A dilation that both axes share is one number. Got {values[0]} and {values[1]}. "
                "Set shared=False to learn one an axis."
            )
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.groups, self.padding_mode = _pair(conv.stride), conv.groups, conv.padding_mode
        self.padding: str | Pair = conv.padding if isinstance(conv.padding, str) else _pair(conv.padding)
        self.padded_for = _pair(conv.dilation)
        start = torch.tensor(values[: 1 if shared else 2], dtype=torch.float64).log()
        self.log_dilation = nn.Parameter(start.to(conv.weight.device, torch.float32), requires_grad=learned)
        self.register_buffer("bounds", torch.tensor([low, high], dtype=torch.float32, device=conv.weight.device))
        self._last, self._seen = values, (self.log_dilation, self.log_dilation._version)
        self.register_load_state_dict_post_hook(_read_again)

    @property
    def learned(self) -> bool:
        return self.log_dilation.requires_grad

    @property
    def dilation(self) -> Tensor:
        """px, of size 1 or 2 (height, width). Differentiable."""
        return self.log_dilation.exp()

    @property
    def value(self) -> float:
        """The dilation as a number, px; of both axes, or the height's."""
        return self._now()[0]

    @property
    def work(self) -> Hashable:
        """What the cost of a pass depends on, beside the sizes of its maps: between which pixels the taps lie."""
        frames = [Frame.of(1, k, 1, "same", 1) for k in self.weight.shape[2:]]
        places = [p for frame, value in zip(frames, self._now(), strict=True) for p in frame.places(value)]
        return self.learned, *((math.floor(place), place.is_integer()) for place in places)

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the value of the dilation into its bounds, in place. In the forward pass a clamp would kill its
        gradient."""
        low, high = self.bounds.log()
        self.log_dilation.clamp_(low, high)

    def forward(self, x: Tensor) -> Tensor:
        moves = self.learned and torch.is_grad_enabled() and not torch.compiler.is_exporting()
        learnable = self.dilation if moves else None
        return _convolve(
            x,
            self.weight,
            self.bias,
            learnable,
            self._now(),
            self.stride,
            self.padding,
            self.groups,
            self.padding_mode,
            self.padded_for,
            "auto",
        )

    def places(self, size: Sequence[int]) -> list[list[list[float]]]:
        """Where every output reads every tap: along each axis of a map of `size` = (H, W), outputs x taps, px of the
        map, real valued and beyond the map where the kernel reads its padding."""
        paddings = (self.padding, self.padding) if isinstance(self.padding, str) else self.padding
        found = []
        for a, value in enumerate(self._now()):
            frame = Frame.of(size[a], self.weight.shape[2 + a], self.stride[a], paddings[a], self.padded_for[a])
            found.append([[o * frame.stride + place for place in frame.places(value)] for o in range(frame.count)])
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._now()  # a copy counts its changes anew

    def _apply(self, *args: Any, **options: Any) -> FractionalConv2d:
        self._now()  # before a move to a device without values
        super()._apply(*args, **options)
        return self

    def _now(self) -> tuple[float, float]:
        """The dilation on the host; where tensors have no values, as it was before they lost them."""
        if torch.compiler.is_exporting():
            if self._seen[0]._version != self._seen[1]:
                raise ModelError(
                    "A program is exported with the dilation that a FractionalConv2d last had in a forward pass, and "
                    "this one has changed since: call it once on a map before."
                )
        elif self.log_dilation.device.type != "meta":
            self._last = _values([math.exp(value) for value in on_host(self.log_dilation)])
            self._seen = self.log_dilation, self.log_dilation._version
        return self._last

    def extra_repr(self) -> str:
        dilation = ", ".join(f"{value:.4g}" for value in self.dilation.tolist())
        low, high = self.bounds.tolist()
        out, inputs, *taps = self.weight.shape
        return (
            f"{inputs * self.groups}, {out}, kernel_size={tuple(taps)}, dilation=({dilation}), "
            f"learned={self.learned}, bounds=({low:.4g}, {high:.4g}), stride={self.stride}, padding={self.padding!r}, "
            f"groups={self.groups}, bias={self.bias is not None}, padding_mode={self.padding_mode!r}"
        )


def _read_again(layer: FractionalConv2d, keys: object) -> None:
    layer._now()


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Tensor | None,
    values: tuple[float, float],
    stride: Pair,
    padding: str | int | Pair,
    groups: int,
    padding_mode: str,
    padded_for: Pair,
    form: str,
) -> Tensor:
    """`fractional_conv2d`. dilation: what gets a gradient, if anything does; values: the same on the host."""
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ModelError(
            f"A map is B x C x H x W and a kernel O x C/groups x k_h x k_w. Got x.shape={tuple(x.shape)}, "
            f"weight.shape={tuple(weight.shape)} and groups={groups}."
        )
    if dilation is not None and not (dilation.requires_grad and torch.is_grad_enabled()):
        dilation = None
    paddings = (padding, padding) if isinstance(padding, str) else _pair(padding)
    rows, columns = (
        Frame.of(x.shape[2 + a], weight.shape[2 + a], stride[a], paddings[a], padded_for[a]) for a in range(2)
    )
    if padding_mode != "zeros":
        reaches = [
            frame.reach(value, dilation is not None) for frame, value in zip((rows, columns), values, strict=True)
        ]
        x = _continued(x, reaches, padding_mode)
        rows, columns = rows.padded(*reaches[0]), columns.padded(*reaches[1])
    frames = rows, columns
    if torch.compiler.is_exporting() and not all(value.is_integer() for value in values):
        return _side_by_side(x, weight, bias, values, frames, groups)
    legal = _costs(weight, frames, values, groups, dilation is not None)
    if form == "auto":
        form = min(legal, key=lambda name: legal[name])
    if form not in legal:
        raise ModelError(
            f"A kernel of {weight.shape[2]} x {weight.shape[3]} taps at dilation {values} has no form "
            f"{form!r}{' with a gradient in the dilation' if dilation is not None else ''}."
            f"{nearest(form, ['auto', *legal])}"
        )
    if form == "sampled":
        axes = rows.axis(values[0]), columns.axis(values[1])
        if _autocast(x.device):
            half = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(half), weight.to(half), None if bias is None else bias.to(half)
        with no_autocast(x.device):
            output: Tensor = Sampled.apply(x, weight, bias, dilation, axes, groups)
        return output
    if (
        form == "splat"
    ):  # could be differentiated twice, the other form could not, and which one runs is a matter of time
        return sealed_gradient(_splat(x, weight, bias, dilation, values, frames, groups), x, weight, dilation)
    return _whole(x, weight, bias, (round(values[0]), round(values[1])), frames, groups)


def _costs(
    weight: Tensor, frames: tuple[Frame, Frame], values: Sequence[float], groups: int, learned: bool
) -> dict[str, float]:
    """Every form that is legal here, and its time as measured on a CPU, forward and backward, in taps of a plain
    convolution of one px dilation."""
    taps, covered = weight.shape[2] * weight.shape[3], 1
    for frame, value in zip(frames, values, strict=True):
        places = [place for tap in frame.axis(value).taps for place, _ in tap.weights(learned)]
        covered *= max(places) - min(places) + 1
    # With few channels a group, multiplying is cheap and moving the samples is not.
    sampled = 10.0 if weight.shape[1] == 1 else 5.0 if groups > 1 or weight.shape[1] < 32 else 1.3
    costs = {"splat": float(covered), "sampled": sampled * taps}
    if not learned and all(value.is_integer() for value in values):
        costs["plain"] = 0.0
    return costs


def _whole(x: Tensor, weight: Tensor, bias: Tensor | None, n: Pair, frames: tuple[Frame, Frame], groups: int) -> Tensor:
    """A plain convolution, at whole dilations."""
    pads = [frame.pad(dilation) for frame, dilation in zip(frames, n, strict=True)]
    stride = frames[0].stride, frames[1].stride
    if all(low == high >= 0 for low, high in pads):
        return F.conv2d(x, weight, bias, stride, (pads[0][0], pads[1][0]), n, groups)
    return F.conv2d(F.pad(x, [*pads[1], *pads[0]]), weight, bias, stride, 0, n, groups)


def _splat(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Tensor | None,
    values: Sequence[float],
    frames: tuple[Frame, Frame],
    groups: int,
) -> Tensor:
    """One convolution with the taps' weights spread bilinearly onto the pixels around their places."""
    matrices, pads, learned = [], [], dilation is not None
    for axis, (frame, value) in enumerate(zip(frames, values, strict=True)):
        taps = frame.axis(value).taps
        places = [place for tap in taps for place, _ in tap.weights(learned)]
        low, cells = min(places), max(places) - min(places) + 1
        spread, moved = torch.zeros(2, cells, len(taps), dtype=torch.float64)
        for j, tap in enumerate(taps):
            for place, share in tap.weights():
                spread[place - low, j] += share
            for place, share in tap.slopes() if learned else ():
                moved[place - low, j] += share
        matrix = spread.to(weight)
        if dilation is not None and not weight.is_meta:  # shapes alone have no gradient to bring to where it is
            matrix = matrix + moved.to(weight) * _silent(dilation, axis).to(weight)
        matrices.append(matrix)
        pads.append((-low, low + cells + (frame.count - 1) * frame.stride - frame.size))
    with no_autocast(x.device):
        dense = torch.einsum("ya,ocab,xb->ocyx", matrices[0], weight, matrices[1])
    stride = frames[0].stride, frames[1].stride
    if all(low == high >= 0 for low, high in pads):
        return F.conv2d(x, dense, bias, stride, (pads[0][0], pads[1][0]), 1, groups)
    return F.conv2d(F.pad(x, [*pads[1], *pads[0]]), dense, bias, stride, 0, 1, groups)


def _side_by_side(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Sequence[float],
    frames: tuple[Frame, Frame],
    groups: int,
) -> Tensor:
    """The map read at every tap, one behind the other, and a convolution of 1 x 1: operators that any runtime has."""
    rows, columns = (frame.axis(value) for frame, value in zip(frames, values, strict=True))
    maps = [F.pad(x, [columns.low, columns.high, rows.low, rows.high])]
    for dim, axis in ((2, rows), (3, columns)):
        maps = [
            sum((share * axis.read(m, dim, place) for place, share in tap.weights()), x.new_zeros(()))
            for m in maps
            for tap in axis.taps
        ]
    return F.conv2d(torch.stack(maps, dim=2).flatten(1, 2), weight.flatten(1)[..., None, None], bias, groups=groups)


def _silent(dilation: Tensor, axis: int) -> Tensor:
    """Zero, with the gradient of the dilation of an axis."""
    value = dilation.reshape(-1)[axis % dilation.numel()]
    return value - value.detach()


def _continued(x: Tensor, reaches: Sequence[Pair], mode: str) -> Tensor:
    """The map continued beyond its edges by what the taps reach."""
    for size, reach in zip(x.shape[2:], reaches, strict=True):
        longest = {"reflect": size - 1, "circular": size}.get(mode, max(reach))
        if max(reach) > longest:
            raise ModelError(
                f"{mode} padding continues a map of {size} px by at most {longest} px. Its taps reach {max(reach)} px "
                "beyond: take a smaller dilation, or padding_mode 'replicate' or 'zeros'."
            )
    return F.pad(x, [*reaches[1], *reaches[0]], mode)


def _autocast(device: torch.device) -> bool:
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def _pair(value: int | Sequence[int]) -> Pair:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)


def _values(dilation: Tensor | float | Sequence[float]) -> tuple[float, float]:
    """(height, width) on the host, whole where only rounding is missing."""
    if isinstance(dilation, Tensor):
        dilation = dilation.detach().reshape(-1).tolist()
    numbers = [float(dilation)] if isinstance(dilation, (int, float)) else [float(number) for number in dilation]
    if len(numbers) not in (1, 2):
        raise SpaceError(f"A dilation is one number, or one an axis (height, width). Got {len(numbers)} of them.")
    for number in numbers:
        if not math.isfinite(number):
            raise TrialError(f"A dilation is finite. Got {number}: its training diverged; lower its rate.")
        if number <= 0:
            raise SpaceError(f"A dilation is greater than 0. Got {number}. The usual range is [0.25, 32].")
    first, second = (snapped(number) for number in (numbers[0], numbers[-1]))
    return first, second
