"""What each operator does to the receptive field of the maps it reads: r' = r + (k - 1) d j, j' = j s, axis by axis.

r is the receptive field of one unit, px of the image; j (the jump) is the distance between neighbouring units, px.

Conventions:
- Resampling (`Interpolation`, `F.interpolate`, `nn.Upsample`, `Inflation`) changes the jump only. The field quoted
  for a network's logits is that of one unit of its last map before resampling to the label map.
- The statistics of a normalisation layer are not counted; batch norm is in evaluation mode.
- A unit behind global pooling, or behind a linear layer over a flattened map, sees the whole axis of the image.
- A deformable convolution is quoted at its regular grid, all offsets zero: where its taps really fall, the image says.
- Where branches meet, the larger field counts (not the union of two windows that are offset against each other).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.layers import LSDFN, Inflation, Interpolation, WeightedGradient

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """One axis of a map. px: receptive field of a unit. jump: px between neighbouring units. whole: the unit sees the
    whole axis of the image. dim: where the axis lies in the tensor; None once it was summed or flattened away."""

    px: float
    jump: float
    dim: int | None
    whole: bool = False

    def windowed(self, kernel: int, stride: float = 1, dilation: int = 1) -> Axis:
        """Behind a kernel of `kernel` taps at `dilation`, moved by `stride`."""
        return replace(self, px=self.px + (kernel - 1) * dilation * self.jump, jump=self.jump * stride)

    def resampled(self, scale: float) -> Axis:
        """Behind a resampling to `scale` times as many units."""
        return replace(self, jump=self.jump / scale)

    def mixed(self, size: int, dim: int | None) -> Axis:
        """Behind an operator that mixes all `size` units of the axis."""
        return replace(self, whole=self.whole or size > 1, jump=self.jump * size, dim=dim)


@dataclass(frozen=True)
class Field:
    """The receptive field of every tensor in one value of the graph."""

    height: Axis
    width: Axis

    def each(self, change: Callable[[Axis, int], Axis]) -> Field:
        """`change(axis, 0 for height or 1 for width)` on both axes."""
        return Field(change(self.height, 0), change(self.width, 1))


@dataclass(frozen=True)
class Call:
    """One operator of a traced model, as a rule sees it.

    name: module path, or the operator's name. module: the leaf module, None for functions and methods. args, kwargs:
    as called, with shape-only tensors. inputs: the field of each argument that depends on the image; shapes: their
    shapes, of a tuple that of its first tensor. output: the shape of the result likewise.
    """

    name: str
    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Field, ...]
    shapes: tuple[Shape, ...]
    output: Shape

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by place (the tensor of a method is 0) or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    def size(self, axis: Axis) -> int:
        """Units of an axis of the first input."""
        return 1 if axis.dim is None else self.shapes[0][axis.dim]

    def dims(self, *dims: int) -> set[int]:
        """Dimensions of the first input, counted from the front."""
        return {dim % len(self.shapes[0]) for dim in dims}

    def map(self) -> Field:
        """The field of the one input, which has to be laid out as B x C x H x W."""
        field = self.inputs[0]
        if len(self.inputs) != 1 or field.height.dim not in (2, None) or field.width.dim not in (3, None):
            raise self.lost("reads something else than one map laid out as B x C x H x W")
        return field

    def lost(self, why: str) -> ModelError:
        return ModelError(
            f"{self.name} {why}, got shapes {list(self.shapes)}: its receptive field cannot be followed. "
            f"{how_to_register(self.module)}"
        )


Rule = Callable[[Call], Field]
Operator = type[nn.Module] | Callable[..., Any] | str


def register(operator: Operator, rule: Rule) -> None:
    """Teach the arithmetic an operator; the newest rule for it counts.

    operator: a module class (from then on a leaf: its inside is not traced), a function, or a name: "relu" for a
    tensor method and the torch function of that name, "package.module.name" for a function or class elsewhere.
    rule: from a `Call` to the `Field` of its result. For a module that keeps it: `lambda call: call.map()`; for one
    that reads 5 x 5 px at stride 2: `lambda call: call.map().each(lambda axis, _: axis.windowed(5, stride=2))`.
    """
    _RULES[operator] = rule


def how_to_register(module: nn.Module | None = None) -> str:
    what = "the function or its name" if module is None else type(module).__name__
    return f"Add its rule with rfsearch.receptive.register({what}, rule)."


def rule_of_module(module: nn.Module) -> Rule | None:
    """The rule of a module's class, or of the nearest parent class whose forward it keeps."""
    for parent in type(module).__mro__:
        rule = _RULES.get(parent) or _RULES.get(f"{parent.__module__}.{parent.__qualname__}")
        if rule is not None:
            return rule if type(module).forward is getattr(parent, "forward", None) else None
    return None


def rule_of_function(target: Callable[..., Any] | str) -> Rule | None:
    """The rule of a function, or of a tensor method by its name."""
    if not isinstance(target, str):
        if target in _RULES:
            return _RULES[target]
        home, name = getattr(target, "__module__", None) or "", getattr(target, "__name__", "")
        if home not in _TORCH_HOMES:
            return _RULES.get(f"{home}.{name}")
        target = name
    # relu_ does what relu does
    return _RULES.get(target) or _RULES.get(target.removesuffix("_"))


def _keep(call: Call) -> Field:
    """Elementwise. Where maps meet, the larger field counts, and the larger map gives the jump (broadcasting)."""

    def meet(axes: list[Axis]) -> Axis:
        placed = [
            (shape[axis.dim], axis.jump, axis.dim - len(shape) + len(call.output))
            for axis, shape in zip(axes, call.shapes, strict=True)
            if axis.dim is not None
        ]
        jump, dim = max(placed)[1:] if placed else (axes[0].jump, None)
        return Axis(max(axis.px for axis in axes), jump, dim, any(axis.whole for axis in axes))

    return Field(meet([field.height for field in call.inputs]), meet([field.width for field in call.inputs]))


def _concatenate(call: Call) -> Field:
    field = _keep(call)
    dim = call.argument(1, "dim", 0) % len(call.output)
    if dim in (field.height.dim, field.width.dim):
        raise call.lost("joins maps along their height or width")
    return field


def _pick(call: Call) -> Field:
    """x[...]: an element of a tuple, or a slice of a map."""
    field, shape = call.inputs[0], call.shapes[0]
    if not isinstance(call.args[0], Tensor):
        return field
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in index):
        raise call.lost("picks pixels by a list or a tensor")
    if Ellipsis in index:
        at = index.index(Ellipsis)
        missing = len(shape) - sum(part is not None for part in index) + 1
        index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
    index = (*index, *[slice(None)] * (len(shape) - sum(part is not None for part in index)))

    def pick(axis: Axis, _: int) -> Axis:
        source = target = 0
        for part in index:
            if part is not None:
                if source == axis.dim:
                    if isinstance(part, int):
                        return replace(axis, dim=None)
                    return replace(axis, dim=target, jump=axis.jump * (part.step or 1))
                source += 1
            target += not isinstance(part, int)
        return axis

    return field.each(pick)


def _reshape(call: Call) -> Field:
    """An axis that is still one dimension of the result is followed; one flattened into a vector counts as mixed."""
    source, target = call.shapes[0], call.output

    def follow(axis: Axis, _: int) -> Axis:
        if axis.dim is None:
            return axis
        size, before = source[axis.dim], math.prod(source[: axis.dim])
        for dim, length in enumerate(target):
            if length == size and math.prod(target[:dim]) == before:
                return replace(axis, dim=dim)
        if size > 1 and len(target) > 2:
            raise call.lost(f"reshapes a map to {target}")
        return axis.mixed(size, dim=None)

    return call.inputs[0].each(follow)


def _permute(call: Call) -> Field:
    order = call.argument(1, "dims")
    places = [dim % len(call.shapes[0]) for dim in (call.args[1:] if isinstance(order, int) else order)]
    return call.inputs[0].each(lambda axis, _: axis if axis.dim is None else replace(axis, dim=places.index(axis.dim)))


def _transpose(call: Call) -> Field:
    one, other = (dim % len(call.shapes[0]) for dim in (call.argument(1, "dim0"), call.argument(2, "dim1")))
    swap = {one: other, other: one}
    return call.inputs[0].each(
        lambda axis, _: axis if axis.dim is None else replace(axis, dim=swap.get(axis.dim, axis.dim))
    )


def _reduce(call: Call) -> Field:
    """mean, sum ... over dimensions: an axis among them is seen whole."""
    dims = call.argument(1, "dim")
    rank = len(call.shapes[0])
    gone = call.dims(*range(rank) if dims is None else [dims] if isinstance(dims, int) else dims)
    keep = len(call.output) == rank

    def reduce(axis: Axis, _: int) -> Axis:
        if axis.dim is None:
            return axis
        if axis.dim in gone:
            return axis.mixed(call.size(axis), axis.dim if keep else None)
        return axis if keep else replace(axis, dim=axis.dim - sum(dim < axis.dim for dim in gone))

    return call.inputs[0].each(reduce)


def _mix(call: Call, dim: int) -> Field:
    (mixed,) = call.dims(dim)
    return call.inputs[0].each(
        lambda axis, _: replace(axis.mixed(call.size(axis), axis.dim), jump=axis.jump) if axis.dim == mixed else axis
    )


def _softmax(call: Call) -> Field:
    dim = call.module.dim if call.module is not None else call.argument(1, "dim")
    return _mix(call, 1 if dim is None else dim)


def _linear(call: Call) -> Field:
    """Over the last dimension."""
    last = len(call.shapes[0]) - 1
    return call.inputs[0].each(lambda axis, _: axis.mixed(call.size(axis), None) if axis.dim == last else axis)


def _window(call: Call, kernel: Any, stride: Any = 1, dilation: Any = 1) -> Field:
    kernels, strides, dilations = _pair(kernel), _pair(stride), _pair(dilation)
    return call.map().each(lambda axis, i: axis.windowed(kernels[i], strides[i], dilations[i]))


def _convolution(call: Call) -> Field:
    conv = call.module
    return _window(call, conv.kernel_size, conv.stride, conv.dilation)


def _functional_convolution(call: Call) -> Field:
    kernel = tuple(call.argument(1, "weight").shape[-2:])
    return _window(call, kernel, call.argument(3, "stride", 1), call.argument(5, "dilation", 1))


def _deformable_convolution(call: Call) -> Field:
    """The field of its regular grid, all offsets zero, or that of the offsets (and the mask) where it is larger."""
    grid = _convolution(replace(call, inputs=call.inputs[:1], shapes=call.shapes[:1]))

    def widened(axis: Axis, i: int) -> Axis:
        others = [(field.height, field.width)[i] for field in call.inputs[1:]]
        px = max([axis.px, *(other.px for other in others)])
        return replace(axis, px=px, whole=axis.whole or any(other.whole for other in others))

    return grid.each(widened)


def _transposed_convolution(call: Call) -> Field:
    """Output unit o reads inputs (o + p - m d) / s over the taps m for which that is whole: the widest such span."""
    conv = call.module

    def spread(axis: Axis, i: int) -> Axis:
        kernel, stride, dilation = conv.kernel_size[i], conv.stride[i], conv.dilation[i]
        reach: dict[int, list[int]] = {}
        for tap in range(0, kernel * dilation, dilation):
            reach.setdefault(tap % stride, []).append(tap)
        span = max((taps[-1] - taps[0]) // stride for taps in reach.values())
        return axis.windowed(span + 1, 1 / stride)

    return call.map().each(spread)


def _pool(call: Call) -> Field:
    pool = call.module
    return _window(call, pool.kernel_size, pool.stride or pool.kernel_size, getattr(pool, "dilation", 1))


def _functional_pool(call: Call) -> Field:
    kernel = call.argument(1, "kernel_size")
    dilation = call.argument(4, "dilation", 1) if "max" in call.name else 1
    return _window(call, kernel, call.argument(2, "stride") or kernel, dilation)


def _adaptive_pool(call: Call) -> Field:
    """n units to m: output i covers floor(i n / m) to ceil((i + 1) n / m); m = 1 is global pooling."""

    def pool(axis: Axis, i: int) -> Axis:
        n, m = call.size(axis), call.output[2 + i]
        if m == 1:
            return axis.mixed(n, axis.dim)
        widest = max(-(-(o + 1) * n // m) - o * n // m for o in range(m))
        return axis.windowed(widest, n / m)

    return call.map().each(pool)


def _resize(call: Call) -> Field:
    return call.map().each(lambda axis, i: axis.resampled(call.output[2 + i] / call.size(axis)))


def _resize_by(call: Call, size: Any, scale: Any) -> Field:
    """By the requested factor where there is one, else by the sizes of the two maps."""
    if size is not None or scale is None:
        return _resize(call)
    scales = _pair(scale)
    return call.map().each(lambda axis, i: axis.resampled(scales[i]))


def _inflation(call: Call) -> Field:
    """A map f times its size: a kernel behind it reaches (k - 1) d j / f px."""
    scale = call.module.factor.f.item()
    return call.map().each(lambda axis, _: axis.resampled(scale))


def _interpolation(call: Call) -> Field:
    scale = call.module.stride / call.module.factor.f.item()
    return call.map().each(lambda axis, _: axis.resampled(scale))


def _large_sampling_field(call: Call) -> Field:
    """s places gamma apart, k taps around each: gamma (s-1) + k px of its map. Between pixels a bilinear read touches
    one more on each side, which is not counted, as for `Inflation`."""
    block = call.module
    span = block.stride.gamma.item() * (block.s - 1) + block.k - 1
    return call.map().each(lambda axis, _: replace(axis, px=axis.px + span * axis.jump))


def _shuffle(call: Call) -> Field:
    scale = call.module.upscale_factor if call.module is not None else call.argument(1, "upscale_factor")
    return call.map().each(lambda axis, _: axis.resampled(scale))


def _unshuffle(call: Call) -> Field:
    scale = call.module.downscale_factor if call.module is not None else call.argument(1, "downscale_factor")
    return _window(call, scale, scale)


def _pair(value: Any) -> tuple[Any, Any]:
    both = tuple(value) if isinstance(value, Iterable) else (value,)
    return both[0], both[-1]


def _by_rule(*groups: tuple[Rule, Iterable[Operator]]) -> dict[Operator, Rule]:
    return {operator: rule for rule, operators in groups for operator in operators}


_TORCH_HOMES = {"torch", "torch.nn.functional", "torch._C._nn", "torch.functional", "_operator", "torch._tensor"}

_KEEPING_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm, nn.LocalResponseNorm),
    WeightedGradient,
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid),
    *(nn.Softmax2d, nn.ChannelShuffle, nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)

# fmt: off
_KEEPING_FUNCTIONS = (
    "add", "iadd", "sub", "isub", "mul", "imul", "div", "truediv", "itruediv", "neg", "pow", "abs", "exp",
    "log", "sqrt", "rsqrt", "square", "maximum", "minimum", "where", "lerp", "relu", "relu6", "leaky_relu",
    "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardtanh", "hardswish",
    "hardsigmoid", "softplus", "logsigmoid", "clamp", "clip", "dropout", "dropout2d", "alpha_dropout",
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "normalize", "local_response_norm", "pad",
    "contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type", "type_as", "chunk",
    "split", "expand", "expand_as", "channel_shuffle", "torchvision.ops.stochastic_depth.stochastic_depth",
)
# fmt: on

_RULES: dict[Operator, Rule] = _by_rule(
    (_keep, (*_KEEPING_MODULES, *_KEEPING_FUNCTIONS)),
    (_concatenate, ("cat", "concat", "concatenate")),
    (_pick, ("getitem",)),
    (_reshape, (nn.Flatten, nn.Unflatten, "flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze")),
    (_permute, ("permute",)),
    (_transpose, ("transpose", "swapaxes", "swapdims")),
    (_reduce, ("mean", "sum", "amax", "amin", "argmax", "argmin")),
    (_softmax, (nn.Softmax, nn.LogSoftmax, "softmax", "log_softmax")),
    (_linear, (nn.Linear, "linear")),
    (_convolution, (nn.Conv2d,)),
    (_functional_convolution, ("conv2d",)),
    (_deformable_convolution, ("torchvision.ops.deform_conv.DeformConv2d",)),
    (_transposed_convolution, (nn.ConvTranspose2d,)),
    (_pool, (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)),
    (_functional_pool, ("max_pool2d", "avg_pool2d")),
    (_adaptive_pool, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, "adaptive_avg_pool2d", "adaptive_max_pool2d")),
    (
        lambda call: _resize_by(call, call.module.size, call.module.scale_factor),
        (nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d),
    ),
    (
        lambda call: _resize_by(call, call.argument(1, "size"), call.argument(2, "scale_factor")),
        ("interpolate", "upsample"),
    ),
    (_inflation, (Inflation,)),
    (_interpolation, (Interpolation,)),
    (_large_sampling_field, (LSDFN,)),
    (_shuffle, (nn.PixelShuffle, "pixel_shuffle")),
    (_unshuffle, (nn.PixelUnshuffle, "pixel_unshuffle")),
)
