"""Run a model on shapes alone and write down every operator that touches something which depends on the image."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from torch.utils._pytree import tree_leaves, tree_map_only

from rfsearch.errors import ModelError
from rfsearch.lazy import give_sizes
from rfsearch.receptive.axis import Shape
from rfsearch.receptive.call import Rule, explain_precision, how_to_register
from rfsearch.receptive.rules.elementwise import elementwise
from rfsearch.receptive.rules.picking import PICKING
from rfsearch.receptive.rules.registry import BLIND, rule_of_module, rule_of_operator
from rfsearch.receptive.rules.writing import written
from rfsearch.untouched import untouched

# Operators that read units of a tensor by their number.
_LOOKING_UP = ("embedding", "gather", "index", "index_select", "take")


@dataclass(frozen=True)
class Placeholder:
    """Stand for a tensor that depends on the image, in recorded arguments."""

    number: int


@dataclass(frozen=True)
class RecordedCall:
    """Keep one operator as it ran, with a `Placeholder` for every tensor that depends on the image.

    Attributes:
        name: Name of the operator or of the module's class.
        module: The module, where it has a rule of its own, else None.
        module_name: Name of the innermost module that was running.
        rule: Its rule.
        args: Positional arguments.
        kwargs: Keyword arguments.
        outputs: Numbers of the resulting tensors.
        shapes: Their shapes.
    """

    name: str
    module: Any
    module_name: str
    rule: Rule
    args: Any
    kwargs: Any
    outputs: tuple[int, ...]
    shapes: tuple[Shape, ...]


class Recorder(TorchDispatchMode):
    """Record every operator that touches a tensor which depends on the image.

    Attributes:
        real: Whether the image has values, not a shape alone.
        calls: The operators, in order.
        outputs: Number of each module's last output, by module name.
        shapes: Shape of each tensor, by its number.
        image: Number of the image.
        module_names: Names of the modules that are running, innermost last.
        class_names: Their classes.
        paused: Whether nothing is recorded for now.

    Example:
        >>> recorder, output = record(model, (1, 3, 64, 64), real=False)
        >>> recorder.number_of(output)
    """

    def __init__(self, real: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.real = real
        self.calls: list[RecordedCall] = []
        self.outputs: dict[str, int] = {}
        self.shapes: list[Shape] = []
        self.image = -1
        self.module_names: list[str] = [""]
        self.class_names: list[str] = [""]
        self.paused = False
        self._places: dict[int, int] = {}
        self._kept: list[Tensor] = []  # kept alive, so that no identity is used twice
        self._parts: dict[int, tuple[Tensor, str, Any]] = {}

    def number_of(self, tensor: Tensor) -> int | None:
        """Return the number of a tensor that depends on the image, None for any other."""
        return self._places.get(id(tensor))

    def enter(self, tensor: Tensor) -> int:
        """Give a tensor that depends on the image a number."""
        self.shapes.append(tuple(tensor.shape))
        self._places[id(tensor)] = len(self.shapes) - 1
        self._kept.append(tensor)
        return len(self.shapes) - 1

    def add(self, name: str, module: Any, rule: Rule, args: Any, kwargs: Any, results: Sequence[Tensor]) -> None:
        """Record one operator and number its results."""
        args, kwargs = tree_map_only(Tensor, self._placeholder_for, (args, kwargs))
        shapes = tuple(tuple(result.shape) for result in results)
        outputs = tuple(self.enter(result) for result in results)
        self.calls.append(RecordedCall(name, module, self.module_names[-1], rule, args, kwargs, outputs, shapes))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        touched = not self.paused and any(id(leaf) in self._places for leaf in tree_leaves((args, kwargs)))
        if touched and name in ("_local_scalar_dense", "is_nonzero", "equal"):
            raise ModelError(
                f"The model's control flow depends on the content of the image (in {self.where()}), so it has no one "
                "receptive field. Keep that inside a module, and give the module a rule: "
                "rfsearch.receptive.register(ModuleType, rule)."
            )
        result = func(*args, **kwargs)
        if not self.real and name in _LOOKING_UP:
            self._fail_as_on_numbers(func, args, kwargs)
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
                    f"{name} in {self.where()} writes into a part of a tensor: its receptive field cannot be "
                    f"followed. {how_to_register(name=name)}"
                )
        if name in PICKING:
            places = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, FakeTensor)]
            if any(self.number_of(leaf) is None for leaf in places):
                raise DataDependentOutputException(func)  # which units are picked is known with real numbers only
        rule = rule_of_operator(name)
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = elementwise
        if rule is None:
            raise ModelError(f"No receptive field rule for {func._schema.name} in {self.where()}. {self._help(name)}")
        self.add(name, None, rule, args, kwargs, results)

    def _fail_as_on_numbers(self, func: Any, args: Any, kwargs: Any) -> None:
        """Run an operator that looks units up by number on zeros, so that it fails where they are out of range.

        Shapes alone do not show that.
        """
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        numbers = [leaf for leaf in leaves if not leaf.is_floating_point() and self.number_of(leaf) is None]
        if any(isinstance(leaf, FakeTensor) for leaf in numbers):
            raise DataDependentOutputException(func)  # which units are picked is known with real numbers only
        if numbers:
            with unset_fake_temporarily():
                func(*tree_map_only(FakeTensor, _zeros, args), **tree_map_only(FakeTensor, _zeros, kwargs))

    def _write(self, name: str, part: Tensor, args: Any) -> None:
        """Record an operator that writes into a slice: the tensor that was sliced depends on what was written."""
        cuts: list[tuple[str, Any]] = []
        whole = part
        while id(whole) in self._parts:
            whole, cut, cut_args = self._parts[id(whole)]
            cuts.insert(0, (cut, cut_args))
        source = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor)]
        shape = tuple(part.shape)
        self.add("write", None, partial(written, cuts, shape), [whole, *source], {}, [whole])

    def _placeholder_for(self, tensor: Tensor) -> Any:
        place = self.number_of(tensor)
        if place is not None:
            return Placeholder(place)
        with unset_fake_temporarily():
            return tensor.detach()  # the model's own may have lost its size or changed its values by then

    def where(self) -> str:
        """Name the module that is running, for messages."""
        return (
            f"module {self.module_names[-1]!r} ({self.class_names[-1]})"
            if self.module_names[-1]
            else "the model's own forward"
        )

    def _help(self, name: str) -> str:
        known = f", or of the whole module: register({self.class_names[-1]}, rule)" if self.module_names[-1] else ""
        return f"Add its rule with rfsearch.receptive.register({name!r}, rule){known}."


def record(model: nn.Module, shape: Shape, real: bool) -> tuple[Recorder, Any]:
    """Send an image without content through the model.

    Args:
        model: The model to follow.
        shape: 1 x C x the axes of the image.
        real: Whether the image is made of zeros, not of a shape alone.

    Returns:
        What was recorded, and what the model returned.

    Raises:
        ModelError: The model does not run on the image, or an operator has no rule.
        DataDependentOutputException: The model needs real numbers.
        DynamicOutputShapeException: The model needs real numbers.
    """
    fake = contextlib.nullcontext() if real else FakeTensorMode(allow_non_fake_inputs=True)
    recorder = Recorder(real)
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that hides what it does
    try:
        with untouched(model), _silent(), torch.no_grad():
            give_sizes(model, shape)
            model.eval()
            _watch(model, recorder)
            like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
            with fake:
                return recorder, _run_model(model, recorder, torch.zeros(shape, dtype=like.dtype, device=like.device))
    except (ModelError, DataDependentOutputException, DynamicOutputShapeException):
        raise
    except Exception as cause:
        raise ModelError(
            f"{type(model).__name__} cannot run on one image of {' x '.join(map(str, shape))} (B x C x its axes), in "
            f"{recorder.where()}: {explain_precision(model, cause) or f'{_reason(cause)}.'}"
        ) from cause
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)


def _run_model(model: nn.Module, recorder: Recorder, image: Tensor) -> Any:
    with recorder:
        recorder.image = recorder.enter(image)
        return model(image)


def _watch(model: nn.Module, recorder: Recorder) -> None:
    """Let the recorder know which module is running and what each returned.

    Modules with a rule of their own run unobserved.
    """
    for path, module in model.named_modules():
        rule = rule_of_module(module)
        if rule is not None:
            module.forward = partial(_by_rule, recorder, module, rule, module.forward)
        module.register_forward_pre_hook(partial(_enter, recorder, path))
        module.register_forward_hook(partial(_leave, recorder, path))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep out of torch's log the traceback of an image that a model does not take: our own message says it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _enter(recorder: Recorder, path: str, module: nn.Module, args: Any) -> None:
    recorder.module_names.append(path)
    recorder.class_names.append(type(module).__name__)


def _leave(recorder: Recorder, path: str, module: nn.Module, args: Any, result: Any) -> None:
    recorder.module_names.pop()
    recorder.class_names.pop()
    place = recorder.number_of(result) if isinstance(result, Tensor) else None
    if place is not None:
        recorder.outputs.pop(path, None)
        recorder.outputs[path] = place


def _by_rule(
    recorder: Recorder, module: nn.Module, rule: Rule, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Run a module unobserved and record it as one operator."""
    if recorder.paused:
        return forward(*args, **kwargs)
    recorder.paused = True
    try:
        result = forward(*args, **kwargs)
    except DataDependentOutputException:
        # A module that reads a number, as an inflation reads f, is run separately on zeros.
        mode = next(leaf.fake_mode for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor))
        with unset_fake_temporarily():
            result = forward(*tree_map_only(Tensor, _zeros, args), **tree_map_only(Tensor, _zeros, kwargs))
        result = tree_map_only(Tensor, mode.from_tensor, result)
    finally:
        recorder.paused = False
    results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if any(recorder.number_of(leaf) is not None for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)):
        recorder.add(type(module).__name__, module, rule, args, kwargs, results)
    return result


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


def _reason(cause: Exception) -> str:
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
