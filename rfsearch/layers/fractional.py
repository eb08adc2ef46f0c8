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
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rfsearch.errors import ModelError, SpaceError, TrialError, nearest

Form = Literal["auto", "plain", "splat", "sampled"]
Pair = tuple[int, int]

# log delta is kept in single precision: a dilation that should be whole may miss it by this fraction.
_ROUNDING = 2.0**-21
# Values of the buffer of samples, which is filled and used up piece by piece: on a CPU it should stay in the caches, a
# GPU wants large pieces.
_PIECE = {"cuda": 2**27}
_CPU_PIECE = 2**21


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
        self._read: tuple[Tensor, int, torch.dtype, tuple[float, float]] | None = None

    @property
    def learned(self) -> bool:
        return self.log_dilation.requires_grad

    @property
    def dilation(self) -> Tensor:
        """px, of size 1 or 2 (height, width). Differentiable."""
        return self.log_dilation.exp()

    @torch.no_grad()
    def project_(self) -> None:
        """Clamp the value of the dilation into its bounds, in place. In the forward pass a clamp would kill its
        gradient."""
        low, high = self.bounds.log()
        self.log_dilation.clamp_(low, high)

    def forward(self, x: Tensor) -> Tensor:
        learnable = self.dilation if self.learned and torch.is_grad_enabled() else None
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

    def _now(self) -> tuple[float, float]:
        """The dilation on the host. Read again only when it changed, where reading waits for the device."""
        log = self.log_dilation
        if log.device.type == "cpu":
            return _values(log.detach().double().exp())
        if self._read is None or self._read[0] is not log or self._read[1:3] != (log._version, log.dtype):
            self._read = (log, log._version, log.dtype, _values(log.detach().double().exp()))
        return self._read[3]

    def extra_repr(self) -> str:
        dilation = ", ".join(f"{value:.4g}" for value in self.dilation.tolist())
        low, high = self.bounds.tolist()
        out, inputs, *taps = self.weight.shape
        return (
            f"{inputs * self.groups}, {out}, kernel_size={tuple(taps)}, dilation=({dilation}), "
            f"learned={self.learned}, bounds=({low:.4g}, {high:.4g}), stride={self.stride}, padding={self.padding!r}, "
            f"groups={self.groups}, bias={self.bias is not None}, padding_mode={self.padding_mode!r}"
        )


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
        _Frame.of(x.shape[2 + a], weight.shape[2 + a], stride[a], paddings[a], padded_for[a]) for a in range(2)
    )
    if padding_mode != "zeros":
        reaches = [
            frame.reach(value, dilation is not None) for frame, value in zip((rows, columns), values, strict=True)
        ]
        x = _continued(x, reaches, padding_mode)
        rows, columns = rows.padded(*reaches[0]), columns.padded(*reaches[1])
    frames = rows, columns
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
        with _no_autocast(x.device):
            output: Tensor = _Sampled.apply(x, weight, bias, dilation, axes, groups)
        return output
    if form == "splat":
        return _splat(x, weight, bias, dilation, values, frames, groups)
    return _whole(x, weight, bias, (round(values[0]), round(values[1])), frames, groups)


def _costs(
    weight: Tensor, frames: tuple[_Frame, _Frame], values: Sequence[float], groups: int, learned: bool
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


def _whole(
    x: Tensor, weight: Tensor, bias: Tensor | None, n: Pair, frames: tuple[_Frame, _Frame], groups: int
) -> Tensor:
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
    frames: tuple[_Frame, _Frame],
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
    with _no_autocast(x.device):
        dense = torch.einsum("ya,ocab,xb->ocyx", matrices[0], weight, matrices[1])
    stride = frames[0].stride, frames[1].stride
    if all(low == high >= 0 for low, high in pads):
        return F.conv2d(x, dense, bias, stride, (pads[0][0], pads[1][0]), 1, groups)
    return F.conv2d(F.pad(x, [*pads[1], *pads[0]]), dense, bias, stride, 0, 1, groups)


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


@dataclass(frozen=True)
class _Tap:
    """One tap along an axis. first: the pixel at or before its place for output pixel 0; part: how far beyond it. d
    place / d delta is the lever of the rise that the place moves along: `after` for x(first + 1) - x(first), `before`
    for x(first) - x(first - 1). On a pixel both are half the lever, the mean of the two slopes."""

    first: int
    part: float
    after: float
    before: float

    def weights(self, slopes: bool = False) -> list[tuple[int, float]]:
        """Whole pixels that are read, and their shares. slopes: those too that only the slope reads, at share 0."""
        read = {self.first: 1 - self.part} | ({self.first + 1: self.part} if self.part else {})
        return list(({pixel: 0.0 for pixel, _ in self.slopes()} | read if slopes else read).items())

    def slopes(self) -> list[tuple[int, float]]:
        """d shares / d delta."""
        changes = [(self.first - 1, -self.before), (self.first, self.before - self.after), (self.first + 1, self.after)]
        return [(pixel, change) for pixel, change in changes if change]


@dataclass(frozen=True)
class _Axis:
    """One axis of a map. size: its pixels; stride and count: of the outputs. low, high: zeros that taps may read."""

    size: int
    stride: int
    count: int
    taps: tuple[_Tap, ...]

    @property
    def span(self) -> int:
        """Pixels from the first to the last output."""
        return (self.count - 1) * self.stride

    @property
    def low(self) -> int:
        return max(0, 1 - min(tap.first for tap in self.taps))

    @property
    def high(self) -> int:
        return max(0, max(tap.first for tap in self.taps) + self.span + 2 - self.size)

    def read(self, source: Tensor, dim: int, pixel: int, start: int = 0, count: int | None = None) -> Tensor:
        """What outputs `start` ... find `pixel` px from theirs; source is padded by low and high along dim."""
        count = self.count if count is None else count
        begin = self.low + pixel + start * self.stride
        index = [slice(None)] * source.dim()
        index[dim] = slice(begin, begin + (count - 1) * self.stride + 1, self.stride)
        return source[tuple(index)]

    def inside(self, source: Tensor, dim: int) -> Tensor:
        return source.narrow(dim, self.low, self.size)


def _place(n: int, j: int, k: int) -> int:
    """t_j at a whole dilation n, from the offset on."""
    return n * j - n * (k - 1) // 2


def _taps(k: int, delta: float, offset: int) -> Iterator[_Tap]:
    n = math.floor(delta)
    for j in range(k):
        ahead = _place(n + 1, j, k) - _place(n, j, k)
        behind = ahead if delta > n else _place(n, j, k) - _place(n - 1, j, k)
        place = _place(n, j, k) + (delta - n) * ahead
        place = _snapped(place)
        first = math.floor(place)
        if place > first:
            yield _Tap(first + offset, place - first, float(ahead), 0.0)
        else:
            after, before = max(ahead, 0) + min(behind, 0), min(ahead, 0) + max(behind, 0)
            yield _Tap(first + offset, 0.0, after / 2, before / 2)


@dataclass(frozen=True)
class _Frame:
    """How a kernel lies on one axis of a map, whatever its dilation. size: pixels; taps: k."""

    size: int
    taps: int
    stride: int
    count: int
    offset: int

    @staticmethod
    def of(size: int, k: int, stride: int, padding: int | str, padded_for: int) -> _Frame:
        """padding: of a convolution at the whole dilation `padded_for`, px on either side, or "same" or "valid"."""
        extent, before = padded_for * (k - 1), padded_for * (k - 1) // 2
        if isinstance(padding, str):
            low, high = (before, extent - before) if padding == "same" else (0, 0)
        else:
            low = high = padding
        count = (size + low + high - extent - 1) // stride + 1
        if count < 1:
            raise ModelError(
                f"A kernel of {k} taps at dilation {padded_for} spans {extent + 1} px, its padded map is "
                f"{size + low + high} px: nothing is left. Pad more."
            )
        return _Frame(size, k, stride, count, before - low)

    def axis(self, delta: float) -> _Axis:
        """With its taps at a dilation. A tap that reads beyond the map only does so however far beyond it is."""
        nearest_out, furthest_out = -(self.count - 1) * self.stride - 2, self.size + 1
        taps = []
        for tap in _taps(self.taps, delta, self.offset):
            first = min(max(tap.first, nearest_out), furthest_out)
            taps.append(_Tap(first, tap.part, tap.after, tap.before))
        return _Axis(self.size, self.stride, self.count, tuple(taps))

    def reach(self, delta: float, slopes: bool) -> Pair:
        """Pixels before and behind the map that the taps read. slopes: those for the gradient in delta too."""
        places = [place for tap in _taps(self.taps, delta, self.offset) for place, _ in tap.weights(slopes)]
        return max(0, -min(places)), max(0, max(places) + (self.count - 1) * self.stride - self.size + 1)

    def padded(self, low: int, high: int) -> _Frame:
        return _Frame(self.size + low + high, self.taps, self.stride, self.count, self.offset + low)

    def pad(self, n: int) -> Pair:
        """What a convolution at the whole dilation n pads before and behind, negative where it leaves pixels out."""
        low = -(_place(n, 0, self.taps) + self.offset)
        return low, (self.count - 1) * self.stride + n * (self.taps - 1) - low - self.size + 1


class _Sampled(torch.autograd.Function):
    """Sample first, multiply once: as much multiplication as one plain convolution, whatever the dilation.

    The map is read at the k places of the width (k maps), those at the k places of the height, some rows at a time into
    a buffer of k^2 C values a pixel that one matrix product uses up. Nothing but the arguments is kept for backward,
    which samples again: dL/dsample is one product more, read back onto the map by the transposed blends.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: Any, axes: tuple[_Axis, _Axis], groups: int
    ) -> Tensor:
        ctx.axes, ctx.groups = axes, groups
        ctx.learned = isinstance(dilation, Tensor) and ctx.needs_input_grad[3]
        ctx.save_for_backward(x, weight, *([dilation] * ctx.learned))
        rows, columns = axes
        matrices = _matrices(weight, groups)
        output = torch.empty(
            (x.shape[0], weight.shape[0], rows.count, columns.count),
            dtype=x.dtype,
            device=x.device,
            memory_format=_format_of(x),
        )
        pixels, workspace, results = output.permute(0, 2, 3, 1), x.new_empty(0), x.new_empty(0)
        for images, pieces in _pieces(x, axes, groups * matrices.shape[2]):
            lines = _lines(_padded_pixels(x[images], axes), axes)
            for piece in pieces:
                workspace = samples = _samples(lines, axes, piece, groups, workspace)
                product = _product(samples, matrices.mT, results)
                results = product
                target = pixels[images, piece]
                product = product.view(target.shape)
                if bias is None:
                    target.copy_(product)
                else:
                    torch.add(product, bias, out=target)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *dilations = ctx.saved_tensors
        axes, groups = ctx.axes, ctx.groups
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        with _no_autocast(x.device):
            matrices = _matrices(weight, groups)
            grad_x = torch.empty_like(x) if for_x else None
            grad_matrices = torch.zeros_like(matrices, dtype=_wide(x)) if for_weight else None
            slopes = [x.new_zeros(2, dtype=_wide(x))]
            pixels = grad.permute(0, 2, 3, 1)
            for images, pieces in _pieces(x, axes, groups * matrices.shape[2]):
                target = None if grad_x is None else grad_x[images]
                slopes += _pull_back(
                    x[images], pixels[images], matrices, axes, pieces, target, grad_matrices, ctx.learned
                )
            grad_weight = None
            if grad_matrices is not None:
                out, inputs, height, width = weight.shape
                grad_weight = grad_matrices.view(out, height, width, inputs).permute(0, 3, 1, 2)
                grad_weight = grad_weight.to(weight.dtype, memory_format=torch.contiguous_format)
            grad_bias = grad.sum((0, 2, 3)) if for_bias else None
            grad_dilation = None
            if ctx.learned:
                total, dilation = torch.stack(slopes).sum(0), dilations[0]
                # Shapes alone have no value to bring to where the dilation is.
                total = dilation.new_zeros(2) if total.is_meta else total.to(dilation)
                grad_dilation = total if dilation.numel() == 2 else total.sum().reshape(dilation.shape)
        return grad_x, grad_weight, grad_bias, grad_dilation, None, None


def _pull_back(
    x: Tensor,
    pixels: Tensor,
    matrices: Tensor,
    axes: tuple[_Axis, _Axis],
    pieces: list[slice],
    grad_x: Tensor | None,
    grad_matrices: Tensor | None,
    learned: bool,
) -> list[Tensor]:
    """Backward of some images. pixels: dL/doutput, B x H_out x W_out x O. Fills grad_x, adds to grad_matrices and
    returns parts of dL/d(dilation of the height, of the width)."""
    rows, columns = axes
    groups, outputs, _ = matrices.shape
    source, workspace = _padded_pixels(x, axes), x.new_empty(0)
    lines = _lines(source, axes)
    grad_lines = [torch.zeros_like(line) for line in lines]
    levers = [torch.zeros_like(line) for line in lines] if learned else []
    for piece in pieces:
        pull = pixels[:, piece].reshape(-1, groups, outputs)
        if grad_matrices is not None:
            workspace = samples = _samples(lines, axes, piece, groups, workspace)
            _add_product(grad_matrices, pull, samples)
        if grad_x is not None or learned:
            workspace = pulls = _product(pull, matrices, workspace)
            _spread_rows(pulls, grad_lines, levers, rows, piece)
    slopes = []
    if learned:
        height, width = x.new_zeros(2, dtype=_wide(x))
        while levers:
            height = height + _inner(levers.pop()[:, :-1], lines[len(levers)].diff(dim=1))
        rise = source.diff(dim=2)
        for tap, line in zip(columns.taps, grad_lines, strict=True):
            for shift, lever in ((0, tap.after), (-1, tap.before)):
                if lever:
                    width = width + lever * _inner(line, columns.read(rise, 2, tap.first + shift))
        slopes.append(torch.stack([height, width]))
    if grad_x is not None:
        grad_source = torch.zeros_like(source)
        for tap, line in zip(columns.taps, grad_lines, strict=True):
            _spread(grad_source, 2, columns, tap, line)
        grad_x.copy_(columns.inside(rows.inside(grad_source, 1), 2).permute(0, 3, 1, 2))
    return slopes


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """A kernel, O x C/G x k x k, as one matrix a group: G x O/G x k^2 C/G."""
    return weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)


def _padded_pixels(x: Tensor, axes: tuple[_Axis, _Axis]) -> Tensor:
    """B x C x H x W as B x H' x W' x C, zeros around."""
    rows, columns = axes
    pixels = x.new_zeros(
        x.shape[0], rows.low + rows.size + rows.high, columns.low + columns.size + columns.high, x.shape[1]
    )
    columns.inside(rows.inside(pixels, 1), 2).copy_(x.permute(0, 2, 3, 1))
    return pixels


def _lines(pixels: Tensor, axes: tuple[_Axis, _Axis]) -> list[Tensor]:
    """The map at each place of the width: k of B x H' x W_out x C. A view where no blend is needed."""
    rows, columns = axes
    lines = []
    for tap in columns.taps:
        line = columns.read(pixels, 2, tap.first)
        if tap.part:
            after = columns.read(pixels, 2, tap.first + 1)
            blended = torch.zeros_like(line, memory_format=torch.contiguous_format)
            torch.lerp(rows.inside(line, 1), rows.inside(after, 1), tap.part, out=rows.inside(blended, 1))
            line = blended
        lines.append(line)
    return lines


def _samples(lines: list[Tensor], axes: tuple[_Axis, _Axis], piece: slice, groups: int, workspace: Tensor) -> Tensor:
    """Some rows of outputs' samples: (B rows W_out) x G x k^2 C/G, in the memory of the workspace where it fits."""
    rows, _ = axes
    images, _, width, channels = lines[0].shape
    count = piece.stop - piece.start
    taps = len(rows.taps) * len(lines)
    samples = _within(workspace, (images, count, width, groups, taps, channels // groups))
    for i, tap in enumerate(rows.taps):
        for j, line in enumerate(lines):
            target = samples[..., i * len(lines) + j, :]
            before = rows.read(line, 1, tap.first, piece.start, count).unflatten(3, (groups, -1))
            if tap.part:
                after = rows.read(line, 1, tap.first + 1, piece.start, count).unflatten(3, (groups, -1))
                torch.lerp(before, after, tap.part, out=target)
            else:
                target.copy_(before)
    return samples.view(-1, groups, taps * (channels // groups))


def _spread_rows(pulls: Tensor, grad_lines: list[Tensor], levers: list[Tensor], rows: _Axis, piece: slice) -> None:
    """The transpose of `_samples`: add dL/dsamples to dL/dlines; and, times the taps' levers, to `levers`, where the
    rise from a row to the next meets them."""
    images, _, width, _ = grad_lines[0].shape
    count = piece.stop - piece.start
    k = len(grad_lines)
    pulls = pulls.view(images, count, width, pulls.shape[1], len(rows.taps) * k, -1)
    for i, tap in enumerate(rows.taps):
        for j, line in enumerate(grad_lines):
            pull = pulls[..., i * k + j, :]
            _spread(line.unflatten(3, (pulls.shape[3], -1)), 1, rows, tap, pull, piece.start)
            if levers:
                lever = levers[j].unflatten(3, (pulls.shape[3], -1))
                for shift, strength in ((0, tap.after), (-1, tap.before)):
                    if strength:
                        rows.read(lever, 1, tap.first + shift, piece.start, count).add_(pull, alpha=strength)


def _spread(target: Tensor, dim: int, axis: _Axis, tap: _Tap, grad: Tensor, start: int = 0) -> None:
    """Add what a tap read back to where it came from."""
    count = grad.shape[dim]
    axis.read(target, dim, tap.first, start, count).add_(grad, alpha=1 - tap.part)
    if tap.part:
        axis.read(target, dim, tap.first + 1, start, count).add_(grad, alpha=tap.part)


def _product(a: Tensor, b: Tensor, workspace: Tensor) -> Tensor:
    """N x G x p times G x p x q, a group at a time: N x G x q, in the memory of the workspace where it fits."""
    product = _within(workspace, (a.shape[0], b.shape[0], b.shape[2]))
    if b.shape[0] == 1:
        torch.mm(a[:, 0], b[0], out=product[:, 0])
    else:
        product.copy_(torch.bmm(a.transpose(0, 1), b).transpose(0, 1))
    return product


def _within(workspace: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of that shape in memory that is there already: fresh pages for every piece took 10 % of the time."""
    if workspace.numel() < math.prod(shape):
        return workspace.new_empty(shape)
    return workspace.view(-1)[: math.prod(shape)].view(shape)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add the transpose of N x G x p times N x G x q, a group at a time, to G x p x q."""
    if total.dtype != a.dtype:  # half precision: the sum over pieces is wider than a piece
        total += torch.bmm(a.permute(1, 2, 0), b.transpose(0, 1))
    elif total.shape[0] == 1:
        torch.addmm(total[0], a[:, 0].mT, b[:, 0], out=total[0])
    else:
        torch.baddbmm(total, a.permute(1, 2, 0), b.transpose(0, 1), out=total)


def _pieces(x: Tensor, axes: tuple[_Axis, _Axis], values: int) -> Iterator[tuple[slice, list[slice]]]:
    """Some images at a time, and of these some rows of outputs at a time. values: of the samples of one output."""
    rows, columns = axes
    limit = _PIECE.get(x.device.type, _CPU_PIECE)
    row = columns.count * values
    images = max(1, limit // (row * rows.count))
    count = rows.count if images > 1 else max(1, min(rows.count, limit // row))
    pieces = [slice(r, min(r + count, rows.count)) for r in range(0, rows.count, count)]
    for b in range(0, x.shape[0], images):
        yield slice(b, min(b + images, x.shape[0])), pieces


def _format_of(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum of a * b, at least in single precision."""
    return torch.sum(a.to(_wide(a)) * b.to(_wide(a)))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off; a device that only holds shapes has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


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
    first, second = (_snapped(number) for number in (numbers[0], numbers[-1]))
    return first, second


def _snapped(number: float) -> float:
    """A number that misses a whole one by rounding only, put back onto it."""
    whole = round(number)
    return float(whole) if abs(number - whole) <= _ROUNDING * abs(number) else float(number)
