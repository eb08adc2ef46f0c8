"""The theoretical receptive field of a model, followed operator by operator while the model runs on shapes alone.

Whatever runs is followed, however the model is written: r_n = r_{n-1} + (k_n - 1) d_n prod(strides before n) for a
chain of convolutions, and unit by unit where maps meet, are cut, moved or resampled; see `rules` for every operator and
the conventions.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from rfsearch.errors import ModelError, nearest
from rfsearch.forms import check_plain
from rfsearch.lazy import give_sizes
from rfsearch.outputs import RULE, main_output
from rfsearch.receptive.call import Call, Rule, how_to_register, other_precision
from rfsearch.receptive.field import Axis, Field, Shape, hull
from rfsearch.receptive.rules import BLIND, PICKING, elementwise, rule_of_module, rule_of_operator
from rfsearch.untouched import untouched

# Operators that read units of a tensor by their number.
_LOOKING_UP = ("embedding", "gather", "index", "index_select", "take")


@dataclass(frozen=True)
class AxisField:
    """The receptive field on one axis of the image.

    local_px: extent of what a unit reads by itself, px; real valued behind an inflation, 0 for a unit that reads
    nothing but the whole axis. whole: it sees the whole axis besides, through pooling or attention. jump: px between
    neighbouring units. offset: of the first unit's centre from the centre of the image's first pixel, px.
    windows: units x 2, the first and the last pixel (px, outside the image where it reaches into padding) that each
    unit along the axis reads; NaN for a unit that reads none. image_px: extent of the image.
    """

    local_px: float
    jump: float
    offset: float
    whole: bool
    image_px: int
    windows: npt.NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def px(self) -> float:
        """What a unit sees: the image's whole extent, or more where padding counts, if it sees all of it."""
        return max(self.local_px, float(self.image_px)) if self.whole else self.local_px


@dataclass(frozen=True)
class ReceptiveField:
    """The theoretical receptive field of the units of a map, axis by axis of the image; see `AxisField`.

    Fields of units may differ, behind a resampling: quoted is the largest in the middle half of each axis.
    """

    axes: tuple[AxisField, ...]

    @property
    def px(self) -> int:
        """The longest axis in whole pixels, half rounded up."""
        return math.floor(max(axis.px for axis in self.axes) + 0.5)

    @property
    def local_px(self) -> int:
        """The same of what units read by themselves, global pooling and attention aside."""
        return math.floor(max(axis.local_px for axis in self.axes) + 0.5)

    @property
    def whole(self) -> bool:
        """Whether a unit sees the whole image on some axis."""
        return any(axis.whole for axis in self.axes)

    @property
    def height_px(self) -> float:
        return self.axes[-2].px

    @property
    def width_px(self) -> float:
        return self.axes[-1].px

    @property
    def jump_h(self) -> float:
        return self.axes[-2].jump

    @property
    def jump_w(self) -> float:
        return self.axes[-1].jump


def receptive_field(model: nn.Module, input_shape: Sequence[int]) -> ReceptiveField:
    """The receptive field at a model's output, which `rfsearch.outputs.main_output` finds.

    input_shape: B x C x H x W of the image, or B x C x L of a signal, or B x C x D x H x W of a volume. The model runs
    once, in evaluation mode with batch size 1, on shapes alone. Raises ModelError for a model that does not run, whose
    control flow depends on the image, and for an operator without a rule.
    """
    return receptive_fields(model, input_shape)[""]


def receptive_field_at(model: nn.Module, input_shape: Sequence[int], module_path: str) -> ReceptiveField:
    """The receptive field at the output of the module at `module_path`, such as "features" or "layer3.0.conv2"."""
    fields = receptive_fields(model, input_shape)
    if module_path not in fields:
        raise ModelError(
            f"A receptive field is quoted at a module that ran and gave a tensor. Got {module_path!r}."
            f"{nearest(module_path, fields)}"
        )
    return fields[module_path]


def receptive_fields(model: nn.Module, input_shape: Sequence[int]) -> dict[str, ReceptiveField]:
    """The receptive field at the output of every module, by module path in the order of the forward pass; "" is the
    model itself. A module that runs more than once is quoted at its last output."""
    return traced(model, input_shape).receptive_fields()


@dataclass(frozen=True)
class Trace:
    """What a model did to an image, ready to be followed as often as wanted.

    shape: of the image. shapes: of every module's output, by module path in the order of the forward pass.
    """

    shape: Shape
    shapes: dict[str, Shape]
    _calls: list[_Recorded]
    _image: int
    _outputs: dict[str, int]

    @property
    def needed(self) -> frozenset[str]:
        """Paths of the modules whose own operators the model's output depends on."""
        needed, paths = {self._outputs[""]}, set[str]()
        for call in reversed(self._calls):
            if needed.intersection(call.outputs):
                paths.add(call.path)
                needed.update(leaf.number for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, _Place))
        return frozenset(paths)

    def receptive_fields(self, dilations: Mapping[str, int] | None = None) -> dict[str, ReceptiveField]:
        """The receptive field at every module, "" at the model's output.

        dilations: by module path, what convolutions are to be taken for instead of their own, maps keeping their sizes.
        """
        known: dict[int, Field] = {self._image: Field.of_image(self.shape)}
        for recorded in self._calls:
            args, kwargs = tree_map(partial(_looked_up, known), (recorded.args, recorded.kwargs))
            call = Call(
                recorded.name,
                recorded.module,
                recorded.path,
                args,
                kwargs,
                recorded.shapes,
                dilations.get(recorded.path) if dilations else None,
            )
            found = recorded.rule(call)
            fields = [found] * len(recorded.outputs) if isinstance(found, Field) else list(found)
            for place, shape, one in zip(recorded.outputs, recorded.shapes, fields, strict=False):
                known[place] = one if one.shape == shape else Field(shape, one.axes)
        return {path: _quoted(known[place], self.shape) for path, place in self._outputs.items()}


def traced(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Run a model once and keep what it did; see `receptive_field` for the arguments and errors."""
    if not 3 <= len(input_shape) <= 5 or min(input_shape) < 1:
        raise ModelError(
            f"An input shape is B x C x H x W (or B x C x L, or B x C x D x H x W), each 1 or more. "
            f"Got {tuple(input_shape)}."
        )
    check_plain(model)
    shape: Shape = (1, *map(int, input_shape[1:]))
    try:
        recorder, result = _run(model, shape, real=False)
    except (DataDependentOutputException, DynamicOutputShapeException):
        # A number or a size that follows from weights: it takes a real image to know it.
        recorder, result = _run(model, shape, real=True)
    result = main_output(result)
    if not isinstance(result, Tensor):
        raise ModelError(
            f"The receptive field of a model is that of its output: {RULE}. "
            f"{type(model).__name__} returns something else; name a module with receptive_field_at."
        )
    last = recorder.place(result)
    if last is None:
        raise ModelError(f"The output of {type(model).__name__} does not depend on its input.")
    outputs = {path: place for path, place in recorder.outputs.items() if path} | {"": last}
    shapes = {path: recorder.shapes[place] for path, place in outputs.items()}
    return Trace(shape, shapes, recorder.calls, recorder.image, outputs)


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor that depends on the image."""

    number: int


@dataclass(frozen=True)
class _Recorded:
    name: str
    module: Any
    path: str
    rule: Rule
    args: Any
    kwargs: Any
    outputs: tuple[int, ...]
    shapes: tuple[Shape, ...]


def _looked_up(known: Mapping[int, Field], value: Any) -> Any:
    return known[value.number] if isinstance(value, _Place) else value


class _Recorder(TorchDispatchMode):
    """Writes down every operator that touches a tensor which depends on the image."""

    def __init__(self, real: bool) -> None:
        super().__init__()
        self.real = real
        self.calls: list[_Recorded] = []
        self.outputs: dict[str, int] = {}
        self.shapes: list[Shape] = []
        self.image = -1
        self.running: list[str] = [""]
        self.modules: list[str] = [""]
        self.paused = False
        self._places: dict[int, int] = {}
        self._kept: list[Tensor] = []  # alive, so that no identity is given twice
        self._parts: dict[int, tuple[Tensor, str, Any]] = {}

    def place(self, tensor: Tensor) -> int | None:
        """The number of a tensor that depends on the image."""
        return self._places.get(id(tensor))

    def enter(self, tensor: Tensor) -> int:
        self.shapes.append(tuple(tensor.shape))
        self._places[id(tensor)] = len(self.shapes) - 1
        self._kept.append(tensor)
        return len(self.shapes) - 1

    def add(self, name: str, module: Any, rule: Rule, args: Any, kwargs: Any, results: Sequence[Tensor]) -> None:
        args, kwargs = tree_map_only(Tensor, self._stood_for, (args, kwargs))
        shapes = tuple(tuple(result.shape) for result in results)
        outputs = tuple(self.enter(result) for result in results)
        self.calls.append(_Recorded(name, module, self.running[-1], rule, args, kwargs, outputs, shapes))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        touched = not self.paused and any(id(leaf) in self._places for leaf in tree_leaves((args, kwargs)))
        if touched and name in ("_local_scalar_dense", "is_nonzero", "equal"):
            raise ModelError(
                f"The model's control flow depends on the content of the image (in {self._where()}), so it has no one "
                "receptive field. Keep that inside a module, and give the module a rule: "
                "rfsearch.receptive.register(ModuleType, rule)."
            )
        result = func(*args, **kwargs)
        if not self.real and name in _LOOKING_UP:
            self._look_up(func, args, kwargs)
        if self.paused:
            return result
        if name in ("slice", "select"):
            self._parts[id(result)] = (args[0], name, args[1:])
            self._kept.append(result)
        if touched and name not in BLIND:
            self._record(func, name, args, kwargs, result)
        return result

    def _record(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not results:
            return
        if name.endswith("_") and id(results[0]) in self._parts:
            self._write(name, results[0], args)
            return
        written = [
            args[i]
            for i, argument in enumerate(func._schema.arguments[: len(args)])
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for tensor in written:
            held = tensor.untyped_storage().nbytes() // tensor.element_size()
            if tensor.numel() < held:
                raise ModelError(
                    f"{name} in {self._where()} writes into a part of a tensor: its receptive field cannot be "
                    f"followed. {how_to_register(name=name)}"
                )
        if name in PICKING:
            places = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, FakeTensor)]
            if any(self.place(leaf) is None for leaf in places):
                raise DataDependentOutputException(func)  # which units are picked is known with real numbers only
        rule = rule_of_operator(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = elementwise
        if rule is None:
            raise ModelError(f"No receptive field rule for {func._schema.name} in {self._where()}. {self._help(name)}")
        self.add(name, None, rule, args, kwargs, results)

    def _look_up(self, func: Any, args: Any, kwargs: Any) -> None:
        """Let an operator that looks units up by number fail where they are not there, which shapes do not tell."""
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        numbers = [leaf for leaf in leaves if not leaf.is_floating_point() and self.place(leaf) is None]
        if any(isinstance(leaf, FakeTensor) for leaf in numbers):
            raise DataDependentOutputException(func)  # which units are picked is known with real numbers only
        if numbers:
            with unset_fake_temporarily():
                func(*tree_map_only(FakeTensor, _zeros, args), **tree_map_only(FakeTensor, _zeros, kwargs))

    def _write(self, name: str, part: Tensor, args: Any) -> None:
        """An operator in place on a slice: the tensor that was sliced depends on what was written."""
        cuts: list[tuple[str, Any]] = []
        whole = part
        while id(whole) in self._parts:
            whole, cut, cut_args = self._parts[id(whole)]
            cuts.insert(0, (cut, cut_args))
        source = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor)]
        shape = tuple(part.shape)
        self.add("write", None, partial(_written, cuts, shape), [whole, *source], {}, [whole])

    def _stood_for(self, tensor: Tensor) -> Any:
        place = self.place(tensor)
        if place is not None:
            return _Place(place)
        with unset_fake_temporarily():
            return tensor.detach()  # the model's own may have no size again, or other values, when it is asked for

    def _where(self) -> str:
        return f"module {self.running[-1]!r} ({self.modules[-1]})" if self.running[-1] else "the model's own forward"

    def _help(self, name: str) -> str:
        known = f", or of the whole module: register({self.modules[-1]}, rule)" if self.running[-1] else ""
        return f"Add its rule with rfsearch.receptive.register({name!r}, rule){known}."


def _written(cuts: Sequence[tuple[str, Any]], shape: Shape, call: Call) -> Field:
    """The field of a tensor after something was written into its slice."""
    whole, *sources = call.args
    like = call.field
    base = whole if isinstance(whole, Field) else like.unseeing(tuple(whole.shape))
    places = [np.arange(size) for size in base.shape]
    dims = list(range(len(base.shape)))  # of the slice, in terms of the whole
    for cut, args in cuts:
        dim = (args[0] if args else 0) % len(dims)
        if cut == "select":
            places[dims[dim]] = places[dims[dim]][[args[1]]]
            del dims[dim]
        else:
            start, stop, step = (*args[1:], *[None] * 3)[:3]
            places[dims[dim]] = places[dims[dim]][slice(start, stop, step)]
    kept = tuple(len(part) for part in places)
    sources = [source for source in sources if isinstance(source, Field)]
    new = hull(sources, shape) if sources else like.unseeing(shape)
    new = new.viewed(kept)

    def put(old: Axis, fresh: Axis) -> Axis:
        cut = [dim for dim, part in enumerate(places) if len(part) < base.shape[dim]]
        sizes = [
            base.shape[dim] if dim in cut else max(old.reach.shape[dim + 1], fresh.reach.shape[dim + 1])
            for dim in range(len(places))
        ]
        reach = np.broadcast_to(old.reach, (3, *sizes)).copy()
        where = tuple(part if dim in cut else np.arange(sizes[dim]) for dim, part in enumerate(places))
        reach[np.ix_(np.arange(3), *where)] = np.broadcast_to(fresh.reach, (3, *map(len, where)))
        if old.dim is not None or fresh.dim is None:
            return Axis(reach, old.extent, old.dim)
        return Axis(reach, fresh.jump * sizes[fresh.dim], fresh.dim)

    return Field(base.shape, tuple(map(put, base.axes, new.axes)))


def _run(model: nn.Module, shape: Shape, real: bool) -> tuple[_Recorder, Any]:
    """Send an image without content (`real`: of zeros) through the model."""
    fake = contextlib.nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True)
    recorder = _Recorder(real)
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that hides what it does
    try:
        with untouched(model), _silent(), torch.no_grad():
            give_sizes(model, shape)
            model.eval()
            _watch(model, recorder)
            like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
            with fake:
                return recorder, _recorded(model, recorder, torch.zeros(shape, dtype=like.dtype, device=like.device))
    except (ModelError, DataDependentOutputException, DynamicOutputShapeException):
        raise
    except Exception as cause:
        raise ModelError(
            f"{type(model).__name__} cannot run on one image of {' x '.join(map(str, shape))} (B x C x its axes), in "
            f"{recorder._where()}: {other_precision(model, cause) or f'{_reason(cause)}.'}"
        ) from cause
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)


def _recorded(model: nn.Module, recorder: _Recorder, image: Tensor) -> Any:
    with recorder:
        recorder.image = recorder.enter(image)
        return model(image)


def _watch(model: nn.Module, recorder: _Recorder) -> None:
    """Tell the recorder which module is at work and what each gave; run modules with a rule of their own behind it."""
    for path, module in model.named_modules():
        rule = rule_of_module(module)
        if rule is not None:
            module.forward = partial(_by_rule, recorder, module, rule, module.forward)
        module.register_forward_pre_hook(partial(_enter, recorder, path))
        module.register_forward_hook(partial(_leave, recorder, path))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No traceback in torch's log of an image that a model does not take: it is said in our words."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _enter(recorder: _Recorder, path: str, module: nn.Module, args: Any) -> None:
    recorder.running.append(path)
    recorder.modules.append(type(module).__name__)


def _leave(recorder: _Recorder, path: str, module: nn.Module, args: Any, result: Any) -> None:
    recorder.running.pop()
    recorder.modules.pop()
    place = recorder.place(result) if isinstance(result, Tensor) else None
    if place is not None:
        recorder.outputs.pop(path, None)
        recorder.outputs[path] = place


def _by_rule(
    recorder: _Recorder, module: nn.Module, rule: Rule, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Run a module unobserved and write it down as one operator."""
    if recorder.paused:
        return forward(*args, **kwargs)
    recorder.paused = True
    try:
        result = forward(*args, **kwargs)
    except DataDependentOutputException:
        # A module that reads a number, such as an inflation its f, runs by itself on zeros.
        mode = next(leaf.fake_mode for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor))
        with unset_fake_temporarily():
            result = forward(*tree_map_only(Tensor, _zeros, args), **tree_map_only(Tensor, _zeros, kwargs))
        result = tree_map_only(Tensor, mode.from_tensor, result)
    finally:
        recorder.paused = False
    results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if any(recorder.place(leaf) is not None for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)):
        recorder.add(type(module).__name__, module, rule, args, kwargs, results)
    return result


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


def _quoted(found: Field, image: Shape) -> ReceptiveField:
    return ReceptiveField(tuple(_axis(axis, size) for axis, size in zip(found.axes, image[2:], strict=True)))


def _axis(axis: Axis, image_px: int) -> AxisField:
    """Channels and all dimensions but the axis' own together; of its units the middle half is quoted."""
    at = None if axis.dim is None else axis.dim + 1
    others = tuple(i for i in range(1, axis.reach.ndim) if i != at)
    reach = axis.reach.max(axis=others, initial=-np.inf).reshape(3, -1)
    windows = np.stack([-reach[0], reach[1]], axis=1)
    windows[~np.isfinite(windows)] = np.nan
    units = len(windows)
    middle = slice(units // 4, max(units // 4 + 1, units - units // 4))
    if np.isnan(windows[middle]).all():
        middle = slice(0, units)
    sees = windows[middle][~np.isnan(windows[middle, 0])]
    local = float((sees[:, 1] - sees[:, 0]).max() + 1) if len(sees) else 0.0
    places = np.arange(units)[middle][~np.isnan(windows[middle, 0])]
    offset = float((sees.mean(axis=1) - places * axis.jump).mean()) if len(sees) else (image_px - 1) / 2
    return AxisField(local, abs(axis.jump), offset, bool((reach[2] > 0).any()), image_px, windows)


def _reason(cause: Exception) -> str:
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
