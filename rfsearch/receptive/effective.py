"""Measure the effective receptive field: how much each pixel of the image moves the unit in the middle of a map.

Luo: Luo, Li, Urtasun, Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
NeurIPS 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rfsearch.compiled import check_not_compiled
from rfsearch.errors import ModelError, nearest
from rfsearch.lazy import give_sizes
from rfsearch.outputs import RULE, main_output
from rfsearch.untouched import untouched

# Luo sec. 3: a pixel belongs to the field where it has more than this share of the centre's gradient.
THRESHOLD = 1 - 0.9545

# Tokens in front of a vision transformer's grid: none, class, class and distillation, four registers, those and class.
_LEADING_TOKENS = (0, 1, 2, 4, 5)
_NOISE = 16  # a gradient of this many rounding errors, relative to those of other sums of channels, counts as none

_SigmaFrom = Literal["fit", "moments"]
_Fitted = tuple[tuple[float, ...], tuple[float, ...], _SigmaFrom, float | None]


@dataclass(frozen=True, eq=False)
class EffectiveField:
    """Describe the effective receptive field of one unit, on n = 1 to 3 axes of the image.

    Attributes:
        map: T, H x W or D x H x W of float64: the share of each pixel in all gradient. It sums to 1.
        sigma: Standard deviation of the Gaussian that fits the map best (least squares), px, one per axis.
        centre: Centre of that Gaussian, px, one per axis.
        sigma_from: "fit", or "moments" if no Gaussian could be fitted. Sigma is then the map's own standard deviation
            around its centre of mass, which weak gradients far away enlarge.
        r2: Share of the map's variance that the Gaussian explains, at most 1, or None without a fit.
        theoretical_px: The theoretical field as given, px, one per axis, or None.

    Example:
        >>> model = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> effective_receptive_field(model, input_shape=(1, 1, 9, 9)).size_px
        3.0
    """

    map: npt.NDArray[np.float64]
    sigma: tuple[float, ...]
    centre: tuple[float, ...]
    sigma_from: _SigmaFrom
    r2: float | None = None
    theoretical_px: tuple[float, ...] | None = None

    @property
    def size_px(self) -> float:
        """Return the n-th root of the number of pixels with over 1 - 95.45 % of the centre's gradient, px (Luo sec. 3).

        The centre is the largest value of the map: a map need not be centred to the pixel, and may have a hole there.
        The rule is named after two sigma, but a Gaussian falls to 4.55 % of its peak at 2.49 sigma, so that for a
        Gaussian size_px is 4.97 sigma in 1-D, 4.41 sigma in 2-D and 4.01 sigma in 3-D. Behind strides and dilations the
        map may be a comb, whose gaps are not counted; `gaussian_px` spans them.
        """
        return math.pow(np.count_nonzero(self.map > THRESHOLD * self.map.max()), 1 / self.map.ndim)

    @property
    def gaussian_px(self) -> float:
        """Return two sigma to either side: 4 sigma, the geometric mean of all axes, px."""
        return 4 * math.prod(self.sigma) ** (1 / len(self.sigma))

    @property
    def ratio(self) -> float | None:
        """Return size_px relative to the geometric mean of the theoretical field's axes, or None without that field."""
        if self.theoretical_px is None:
            return None
        return self.size_px / math.prod(self.theoretical_px) ** (1 / len(self.theoretical_px))


def effective_receptive_field(
    model: nn.Module,
    inputs: Tensor | int = 20,
    *,
    input_shape: Sequence[int] | None = None,
    at: str | None = None,
    theoretical_px: float | Sequence[float] | None = None,
    batch_size: int = 4,
    device: torch.device | str | None = None,
    seed: int = 0,
) -> EffectiveField:
    """Measure the effective receptive field of the centre unit of a model's output, or of a module's (Luo sec. 3).

    A gradient of 1 is put on the centre unit, in all channels, and taken back to the image. The map is its absolute
    value, summed over the channels of the image, averaged over the inputs and divided by its sum. The output, which
    `rfsearch.outputs.main_output` finds in what the model returns, is one of

    - B x C x one axis for each of the image: a map, channels first. The centre of an axis of n units is unit n // 2.
      Channels may also be last, as Swin has them, where only that order gives all axes of the image one stride.
    - B x N x C, for an image of more than one axis: the tokens of a vision transformer, a grid of the image's aspect
      behind up to 5 others (class, distillation, registers). The centre is the centre of the grid.
    - B x K: the logits of a classifier. All K are the unit.

    The model runs in evaluation mode. Each module's own mode is restored, and no parameter's `grad` is touched.

    Args:
        model: The model to measure.
        inputs: N x C x H x W (or N x C x T, N x C x D x H x W), floating point; or the number of images of standard
            normal noise to draw from `seed`. The paper averages over 20.
        input_shape: B x C x H x W (or the like) of drawn images. B is not used.
        at: Name of the module whose output is measured instead of the model's. A module that runs more than once is
            measured at its last output.
        theoretical_px: Side of the theoretical field, px, or one per axis, for `EffectiveField.ratio`.
        batch_size: Inputs per pass. It changes memory and speed only.
        device: Where to compute; the model is moved there and back. Default: where its parameters are.
        seed: Seed of drawn images.

    Returns:
        The field, with its map and the Gaussian fitted to it.

    Raises:
        ModelError: The inputs have a wrong rank, the model does not run on them or returns something else than the
            above, the output has no unit in its centre or does not depend on the input, or gradients are not finite.
    """
    if batch_size < 1:
        raise ModelError(f"A batch has at least 1 input. Got batch_size={batch_size}.")
    check_not_compiled(model)
    tensors = [*model.parameters(), *model.buffers()]
    home = tensors[0].device if tensors else torch.device("cpu")
    kind = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    target = torch.device(device) if device is not None else home
    images, count, shape = _images(inputs, input_shape, seed, kind)
    total = np.zeros(shape[1:])
    with _measured(model, at, home, target, shape) as output_of:
        for start in range(0, count, batch_size):
            batch = torch.stack([next(images) for _ in range(min(batch_size, count - start))]).to(target)
            gradient = _gradient(model, at, batch.detach().requires_grad_(), output_of, check=start == 0)
            total += gradient.abs().double().sum((0, 1)).cpu().numpy()
    if not total.any():
        raise ModelError(_no_dependence(model, at, "its gradient is 0 at every pixel of every input"))
    share = total / total.sum()
    return EffectiveField(share, *_gaussian(share), theoretical_px=_per_axis(theoretical_px, share.ndim))


def _images(
    inputs: Tensor | int, input_shape: Sequence[int] | None, seed: int, kind: torch.dtype
) -> tuple[Iterator[Tensor], int, tuple[int, ...]]:
    """Return the images one by one, their number, and the shape of one, C x its axes."""
    if isinstance(inputs, Tensor):
        shape, count = tuple(inputs.shape), inputs.shape[0] if inputs.dim() else 0
        what = f"inputs.shape={shape}, {inputs.dtype}"
    else:
        shape, count = tuple(input_shape or ()), inputs
        what = f"{count} random inputs of input_shape={input_shape and shape}"
    if (
        not 3 <= len(shape) <= 5
        or min(*shape, count) < 1
        or (isinstance(inputs, Tensor) and not inputs.is_floating_point())
    ):
        raise ModelError(
            "An effective receptive field is measured on one or more floating point inputs, N x C x T, N x C x H x W "
            f"or N x C x D x H x W. Got {what}. Nearest: (1, 3, 64, 64)."
        )
    if isinstance(inputs, Tensor):
        return iter(inputs), count, shape[1:]
    generator = torch.Generator().manual_seed(seed)
    # One draw per image, so that an image does not depend on the batch it is in.
    drawn = (torch.randn(shape[1:], generator=generator).to(kind) for _ in range(count))
    return drawn, count, shape[1:]


@contextmanager
def _measured(
    model: nn.Module, at: str | None, home: torch.device, target: torch.device, shape: tuple[int, ...]
) -> Iterator[Callable[[Tensor], Any]]:
    """Yield what maps images to the measured output, in evaluation mode, on the target device, with gradients on.

    Args:
        model: The model to measure.
        at: Name of the measured module, or None for the model's output.
        home: Where the model is.
        target: Where to compute.
        shape: Shape of one image, C x its axes.
    """
    modules = dict(model.named_modules())
    if at is not None and at not in modules:
        raise ModelError(f"`at` is the path of a module of {type(model).__name__}. Got {at!r}.{nearest(at, modules)}")
    seen: list[Any] = []

    def output_of(images: Tensor) -> Any:
        seen.clear()
        try:
            returned = model(images)
        except Exception as cause:
            wanted = " x ".join(map(str, images.shape))
            raise ModelError(f"{type(model).__name__} does not run on inputs of {wanted}: {cause}") from cause
        if not at:
            return returned
        if not seen:
            raise ModelError(f"The module {at!r} of {type(model).__name__} did not run.")
        return seen[-1]

    with untouched(model):
        give_sizes(model, (1, *shape))
        model.eval()
        if target != home:
            model.to(target)
        if at:
            modules[at].register_forward_hook(lambda module, args, output: seen.append(output))
        with torch.inference_mode(False), torch.enable_grad():
            yield output_of
    seen.clear()


def _gradient(
    model: nn.Module, at: str | None, images: Tensor, output_of: Callable[[Tensor], Any], check: bool
) -> Tensor:
    """Compute d centre unit / d images, of the shape of the images.

    Args:
        model: The model to measure, for messages.
        at: Name of the measured module, for messages.
        images: B x C x its axes, with gradients required.
        output_of: Maps the images to the measured output.
        check: Whether to check that the sum of the channels carries any information.
    """
    name = type(model).__name__
    output = main_output(output_of(images))
    if not isinstance(output, Tensor):
        raise ModelError(
            f"An effective receptive field is that of a unit of an output: {RULE}. "
            f"{name} returns something else there; name a module that returns one with `at`."
        )
    unit = _centre(output, len(images), tuple(images.shape[2:]))
    if not unit.requires_grad:
        raise ModelError(_no_dependence(model, at, "it has no gradient"))
    (gradient,) = torch.autograd.grad(unit.sum(), images, allow_unused=True, retain_graph=check)
    if gradient is None:
        raise ModelError(_no_dependence(model, at, "no operation leads from one to the other"))
    if not bool(gradient.isfinite().all()):
        wrong = int((~gradient.isfinite()).sum())
        raise ModelError(f"The gradients of {name} are not finite at {wrong} of {gradient.numel()} values.")
    if check:
        # A softmax or LayerNorm fixes the sum of the channels, and its gradient is rounding errors: a map of noise.
        signs = torch.randint(0, 2, unit.shape, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).to(unit)
        (other,) = torch.autograd.grad(unit, images, signs)
        if gradient.norm() < _NOISE * torch.finfo(unit.dtype).eps * other.norm():
            raise ModelError(
                _no_dependence(model, at, "the sum of its channels is constant, as behind a softmax or LayerNorm")
            )
    return gradient


def _no_dependence(model: nn.Module, at: str | None, why: str) -> str:
    where = f"at {at!r} of {type(model).__name__}" if at else f"of {type(model).__name__}"
    return (
        f"The centre unit of the output {where} does not depend on the input: {why}. Measure a module in front of it, "
        "with `at`."
    )


def _centre(output: Tensor, count: int, size: tuple[int, ...]) -> Tensor:
    """Return the centre unit, B x C, of an output for `count` images of `size`, px per axis."""
    shape = tuple(output.shape)
    if 0 in shape:
        raise ModelError(f"The output has no unit in its centre: its shape is {shape}.")
    if shape and shape[0] != count:
        raise ModelError(
            f"The output has no unit in its centre: its first dimension is not one entry per image. Windows that "
            f"attention cut the images into have none, nor do tokens in front of the batch. Got {output.shape=} for "
            f"{count} images."
        )
    if output.dim() == 2:
        return output
    if output.dim() == len(size) + 2:
        if not _one_stride(shape[2:], size) and _one_stride(shape[1:-1], size):
            output = output.movedim(-1, 1)
        middle: tuple[Any, ...] = (..., *(n // 2 for n in output.shape[2:]))
        return output[middle]
    if output.dim() == 3:
        return output[:, _centre_token(shape[1], size)]
    raise ModelError(
        f"The output has no unit in its centre: for inputs of {len(size)} axes it is B x C x as many axes, B x N x C "
        f"or B x K. Got {output.shape=}."
    )


def _one_stride(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Return whether one and the same stride on all axes, each within less than a unit, turns `size` into `grid`."""
    strides = [(side / (n + 1), side / (n - 1) if n > 1 else math.inf) for n, side in zip(grid, size, strict=True)]
    return max(low for low, _ in strides) < min(high for _, high in strides)


def _centre_token(count: int, size: tuple[int, ...]) -> int:
    """Return the token in the centre of a grid with the image's aspect.

    The grid is the one behind the fewest leading tokens.
    """
    for leading in (number for number in _LEADING_TOKENS if number < count):
        unit = (math.prod(size) / (count - leading)) ** (1 / len(size))  # px of the image per token and axis
        grid = tuple(round(side / unit) for side in size)
        even = all(g * size[0] == grid[0] * side for g, side in zip(grid, size, strict=True))
        if even and math.prod(grid) == count - leading:
            return leading + int(np.ravel_multi_index(tuple(g // 2 for g in grid), grid))
    raise ModelError(
        f"The output has no unit in its centre: {count} tokens do not form a grid with the aspect of an image of "
        f"{' x '.join(map(str, size))} px, nor with {', '.join(map(str, _LEADING_TOKENS[1:]))} others in front."
    )


def _per_axis(px: float | Sequence[float] | None, axes: int) -> tuple[float, ...] | None:
    if px is None:
        return None
    sides = tuple(float(side) for side in px) if isinstance(px, Sequence) else (float(px),) * axes
    if len(sides) != axes or not min(sides) > 0:
        raise ModelError(f"A theoretical field is one side above 0 px, or one for each of {axes} axes. Got {px}.")
    return sides


def _gaussian(share: npt.NDArray[np.float64]) -> _Fitted:
    """Fit a Gaussian to a map whose sum is 1: (sigma, centre, sigma_from, r2) of `EffectiveField`."""
    places = [np.arange(side, dtype=np.float64) for side in share.shape]
    profiles = [share.sum(tuple(a for a in range(share.ndim) if a != axis)) for axis in range(share.ndim)]
    centre = [float(profile @ place) for profile, place in zip(profiles, places, strict=True)]
    sigma = [
        math.sqrt(float(profile @ (place - mean) ** 2))
        for profile, place, mean in zip(profiles, places, centre, strict=True)
    ]
    moments: _Fitted = (tuple(sigma), tuple(centre), "moments", None)
    # A whole family of Gaussians fits two pixels.
    if any(np.count_nonzero(profile) < 3 for profile in profiles):
        return moments
    scaled, axes = share / share.max(), share.ndim

    def parts(p: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
        """Return the Gaussian without its amplitude, and (x - centre) / sigma of every axis, ready to broadcast."""
        offsets = [
            ((place - p[1 + axis]) * math.exp(-p[1 + axes + axis])).reshape(
                [-1 if a == axis else 1 for a in range(axes)]
            )
            for axis, place in enumerate(places)
        ]
        bell = np.ones(share.shape)
        for offset in offsets:
            bell = bell * np.exp(-(offset**2) / 2)
        return bell, offsets

    def residual(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        difference: npt.NDArray[np.float64] = p[0] * parts(p)[0] - scaled
        return difference.ravel()

    def jacobian(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        bell, offsets = parts(p)
        by_centre = [p[0] * bell * offset * math.exp(-p[1 + axes + axis]) for axis, offset in enumerate(offsets)]
        by_log_sigma = [p[0] * bell * offset**2 for offset in offsets]
        return np.stack([column.ravel() for column in (bell, *by_centre, *by_log_sigma)], axis=1)

    start = np.array([1.0, *centre, *np.log(sigma)])
    from scipy import optimize  # slow to import, and every worker imports this module

    try:
        fit = optimize.least_squares(residual, start, jacobian, method="lm")
    except (ValueError, OverflowError):  # the search went where a Gaussian is not finite
        return moments
    means, widths = fit.x[1 : 1 + axes], np.exp(fit.x[1 + axes :])
    sides = np.array(share.shape)
    # Beyond these the Gaussian says nothing about the map: the wider it is, the better it fits a flat one.
    sound = (widths <= sides) & (widths > 0.1) & (means >= 0) & (means <= sides - 1)
    if not (fit.success and fit.x[0] > 0 and sound.all()):
        return moments
    r2 = 1 - float((fit.fun**2).sum() / ((scaled - scaled.mean()) ** 2).sum())
    return tuple(map(float, widths)), tuple(map(float, means)), "fit", r2
