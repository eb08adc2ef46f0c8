"""The theoretical receptive field of a model, traced operator by operator.

r_n = r_{n-1} + (k_n - 1) d_n prod(strides before n), per axis; see `rules` for every operator and the conventions.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map_only

from rfsearch.errors import ModelError, nearest
from rfsearch.receptive.rules import (
    Axis,
    Call,
    Field,
    Shape,
    how_to_register,
    rule_of_function,
    rule_of_module,
)


@dataclass(frozen=True)
class ReceptiveField:
    """The theoretical receptive field of one unit of a map, px of the image.

    height_px, width_px: extent; real valued behind an inflation. jump_h, jump_w: distance between neighbouring units.
    """

    height_px: float
    width_px: float
    jump_h: float
    jump_w: float

    @property
    def px(self) -> int:
        """The longer axis in whole pixels, half rounded up."""
        return math.floor(max(self.height_px, self.width_px) + 0.5)


def receptive_field(model: nn.Module, input_shape: tuple[int, int, int, int]) -> ReceptiveField:
    """The receptive field at a model's output: a tensor, or a dict with key `out`.

    input_shape: B x C x H x W of the image. The model is traced in evaluation mode with batch size 1, on shapes
    alone. Raises ModelError for a model that cannot be traced and for an operator without a rule.
    """
    return receptive_fields(model, input_shape)[""]


def receptive_field_at(model: nn.Module, input_shape: tuple[int, int, int, int], module_path: str) -> ReceptiveField:
    """The receptive field at the output of the module at `module_path`, such as "features" or "layer3.0.conv2"."""
    fields = receptive_fields(model, input_shape)
    if module_path not in fields:
        raise ModelError(
            f"A receptive field is quoted at a module that ran and gave a tensor. Got {module_path!r}."
            f"{nearest(module_path, fields)}"
        )
    return fields[module_path]


def receptive_fields(model: nn.Module, input_shape: tuple[int, int, int, int]) -> dict[str, ReceptiveField]:
    """The receptive field at the output of every module, by module path in the order of the forward pass; "" is the
    model itself. A module that runs more than once is quoted at its last output."""
    if len(input_shape) != 4 or min(input_shape) < 1:
        raise ModelError(f"An input shape is B x C x H x W, each 1 or more. Got {tuple(input_shape)}.")
    shape: Shape = (1, *input_shape[1:])
    with _evaluating(model):
        tracer = _Tracer()
        graph = _trace(model, tracer)
        values = _run(model, graph, shape)
    fields = _propagate(model, graph, values)
    outputs = {path: node for path, node in tracer.outputs.items() if fields.get(node) is not None}
    outputs[""] = _result(model, graph, fields)
    return {path: _quoted(fields[node], shape) for path, node in outputs.items()}


class _Tracer(fx.Tracer):
    """Stops at modules with a rule and remembers the node that each module gave, stopped at or not."""

    def __init__(self) -> None:
        super().__init__(param_shapes_constant=True)
        self.outputs: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = type(m).__module__.startswith("rfsearch.layers")
        return ours or rule_of_module(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            path = self.path_of_module(m)
            self.outputs.pop(path, None)
            self.outputs[path] = result.node
        return result


class _ShapeInterpreter(fx.Interpreter):
    """Runs a graph on tensors that have a shape and no content, and keeps every value."""

    def __init__(self, model: nn.Module, graph: fx.Graph, mode: FakeTensorMode) -> None:
        super().__init__(model, graph=graph)
        self.extra_traceback = False
        self.mode = mode
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(target, args, kwargs)
        except DataDependentOutputException:
            # A module that reads a number, such as an inflation its f, runs by itself on zeros.
            with unset_fake_temporarily():
                args, kwargs = tree_map_only(Tensor, _zeros, (args, kwargs))
                result = super().call_module(target, args, kwargs)
            return tree_map_only(Tensor, self.mode.from_tensor, result)


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards whatever mode each module was in."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode


def _trace(model: nn.Module, tracer: fx.Tracer) -> fx.Graph:
    try:
        return tracer.trace(model)
    except Exception as cause:
        raise ModelError(
            f"{type(model).__name__} cannot be traced: {_reason(cause)}. Keep control flow that depends on the data "
            "or on the input's shape inside a module, and give that module a rule: "
            "rfsearch.receptive.register(ModuleType, rule)."
        ) from cause


def _run(model: nn.Module, graph: fx.Graph, shape: Shape) -> dict[fx.Node, Any]:
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    interpreter = _ShapeInterpreter(model, graph, mode)
    try:
        with mode, torch.no_grad():
            interpreter.run(torch.empty(shape, dtype=like.dtype, device=like.device))
    except Exception as cause:
        done = len(interpreter.values)
        node = next((node for i, node in enumerate(graph.nodes) if i == done), None)
        raise ModelError(
            f"{type(model).__name__} cannot run on one image of {' x '.join(map(str, shape))} (B x C x H x W), at "
            f"{node.target if node else 'its input'}: {_reason(cause)}."
        ) from cause
    return interpreter.values


def _propagate(model: nn.Module, graph: fx.Graph, values: dict[fx.Node, Any]) -> dict[fx.Node, Field]:
    """The field of every node whose value holds tensors that depend on the image."""
    fields: dict[fx.Node, Field] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            if not fields:
                fields[node] = Field(Axis(1.0, 1.0, dim=2), Axis(1.0, 1.0, dim=3))
            continue
        sources = [source for source in node.all_input_nodes if source in fields]
        if node.op == "output" or not sources or not _tensors(values[node]):
            continue
        name, module, rule = str(node.target), None, None
        if node.op == "call_module":
            module = model.get_submodule(name)
            name, rule = f"{name} ({type(module).__name__})", rule_of_module(module)
        else:
            name = getattr(node.target, "__name__", name)
            rule = rule_of_function(node.target)
        if rule is None:
            raise ModelError(f"No receptive field rule for {_described(node, module)}. {how_to_register(module)}")
        fields[node] = rule(
            Call(
                name=name,
                module=module,
                args=fx.node.map_arg(node.args, values.__getitem__),
                kwargs=fx.node.map_arg(node.kwargs, values.__getitem__),
                inputs=tuple(fields[source] for source in sources),
                shapes=tuple(_shape(values[source]) for source in sources),
                output=_shape(values[node]),
            )
        )
    return fields


def _result(model: nn.Module, graph: fx.Graph, fields: dict[fx.Node, Field]) -> fx.Node:
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if isinstance(result, dict):
        result = result.get("out")
    if not isinstance(result, fx.Node):
        raise ModelError(
            f"The receptive field of a model is that of one tensor or of the entry 'out' of a dict. "
            f"{type(model).__name__} returns neither; name a module with receptive_field_at."
        )
    if result not in fields:
        raise ModelError(f"The output of {type(model).__name__} does not depend on its input.")
    return result


def _quoted(field: Field, shape: Shape) -> ReceptiveField:
    """A unit that sees the whole axis sees the image's extent, or what the arithmetic says where that is larger."""
    (height, width), (h, w) = (field.height, field.width), shape[2:]
    return ReceptiveField(
        height_px=max(height.px, float(h)) if height.whole else height.px,
        width_px=max(width.px, float(w)) if width.whole else width.px,
        jump_h=height.jump,
        jump_w=width.jump,
    )


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _shape(value: Any) -> Shape:
    return tuple(_tensors(value)[0].shape)


def _described(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return f"the module {type(module).__module__}.{type(module).__qualname__} at {node.target!r}"
    if isinstance(node.target, str):
        return f"the tensor method {node.target!r}"
    home = getattr(node.target, "__module__", None) or "builtins"
    return f"the function {home}.{getattr(node.target, '__name__', node.target)}"


def _reason(cause: Exception) -> str:
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
