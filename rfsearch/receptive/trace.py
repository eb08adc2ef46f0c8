"""Compute the theoretical receptive field of a model, operator by operator while it runs on shapes alone.

Whatever runs is followed, however the model is written: r_n = r_{n-1} + (k_n - 1) d_n prod(strides before n) for a
chain of convolutions, and unit by unit where maps meet, are cut, moved or resampled. See `rfsearch.receptive.rules` for
every operator and the conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.utils._pytree import tree_leaves, tree_map

from rfsearch.compiled import check_not_compiled
from rfsearch.errors import ModelError, nearest
from rfsearch.outputs import RULE, main_output
from rfsearch.receptive.axis import Shape
from rfsearch.receptive.call import Call
from rfsearch.receptive.field import Field
from rfsearch.receptive.quoting import ReceptiveField, quote
from rfsearch.receptive.recording import Placeholder, RecordedCall, record


def receptive_field(model: nn.Module, input_shape: Sequence[int]) -> ReceptiveField:
    """Compute the receptive field at a model's output, which `rfsearch.outputs.main_output` finds.

    The model runs once, in evaluation mode with batch size 1, on shapes alone.

    Args:
        model: The model to follow.
        input_shape: B x C x H x W of the image, or B x C x L of a signal, or B x C x D x H x W of a volume.

    Returns:
        The field of the output's units, px.

    Raises:
        ModelError: The model does not run, its control flow depends on the image, or an operator has no rule.
    """
    return receptive_fields(model, input_shape)[""]


def receptive_field_at(model: nn.Module, input_shape: Sequence[int], module_name: str) -> ReceptiveField:
    """Compute the receptive field at the output of a module.

    Args:
        model: The model to follow.
        input_shape: As for `receptive_field`.
        module_name: Name of the module, such as "features" or "layer3.0.conv2".

    Returns:
        The field of the units of the module's last output, px.

    Raises:
        ModelError: As for `receptive_field`, or the module did not run or did not return a tensor.
    """
    fields = receptive_fields(model, input_shape)
    if module_name not in fields:
        raise ModelError(
            f"A receptive field is reported at a module that ran and returned a tensor. Got {module_name!r}."
            f"{nearest(module_name, fields)}"
        )
    return fields[module_name]


def receptive_fields(model: nn.Module, input_shape: Sequence[int]) -> dict[str, ReceptiveField]:
    """Compute the receptive field at the output of every module.

    Args:
        model: The model to follow.
        input_shape: As for `receptive_field`.

    Returns:
        The fields by module name, in the order of the forward pass; "" is the model itself. A module that runs more
        than once is quoted at its last output.

    Raises:
        ModelError: As for `receptive_field`.
    """
    return trace_model(model, input_shape).receptive_fields()


@dataclass(frozen=True)
class Trace:
    """Hold what a model did to an image, recorded once and followed as often as needed.

    Attributes:
        shape: Shape of the image, B x C x its axes.
        shapes: Shape of every module's output, by module name in the order of the forward pass.

    Example:
        >>> trace = trace_model(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5)), (1, 3, 64, 64))
        >>> trace.receptive_fields({"0": 4})[""].px
        17
    """

    shape: Shape
    shapes: dict[str, Shape]
    _calls: list[RecordedCall]
    _image: int
    _outputs: dict[str, int]

    @property
    def needed(self) -> frozenset[str]:
        """Return names of the modules whose own operators the model's output depends on."""
        needed, names = {self._outputs[""]}, set[str]()
        for call in reversed(self._calls):
            if needed.intersection(call.outputs):
                names.add(call.module_name)
                needed.update(
                    leaf.number for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Placeholder)
                )
        return frozenset(names)

    @property
    def operator_count(self) -> int:
        """Return number of operators that touch something which depends on the image."""
        return len(self._calls)

    def receptive_fields(self, dilations: Mapping[str, int] | None = None) -> dict[str, ReceptiveField]:
        """Follow the recorded operators to the receptive field at every module.

        Args:
            dilations: Dilations that replace those of convolutions, by module name. Maps keep their sizes.

        Returns:
            The fields by module name; "" is the model's output.
        """
        known: dict[int, Field] = {self._image: Field.of_image(self.shape)}
        for recorded in self._calls:
            args, kwargs = tree_map(partial(_field_of, known), (recorded.args, recorded.kwargs))
            call = Call(
                recorded.name,
                recorded.module,
                recorded.module_name,
                args,
                kwargs,
                recorded.shapes,
                dilations.get(recorded.module_name) if dilations else None,
            )
            found = recorded.rule(call)
            fields = [found] * len(recorded.outputs) if isinstance(found, Field) else list(found)
            for number, shape, one in zip(recorded.outputs, recorded.shapes, fields, strict=False):
                known[number] = one if one.shape == shape else Field(shape, one.axes)
        return {name: quote(known[number], self.shape) for name, number in self._outputs.items()}


def trace_model(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Run a model once and keep what it did. See `receptive_field` for arguments and errors."""
    if not 3 <= len(input_shape) <= 5 or min(input_shape) < 1:
        raise ModelError(
            f"An input shape is B x C x H x W (or B x C x L, or B x C x D x H x W), each 1 or more. "
            f"Got {tuple(input_shape)}."
        )
    check_not_compiled(model)
    shape: Shape = (1, *map(int, input_shape[1:]))
    try:
        recorder, result = record(model, shape, real=False)
    except (DataDependentOutputException, DynamicOutputShapeException):
        # A number or a size follows from weights, so a real image is needed.
        recorder, result = record(model, shape, real=True)
    result = main_output(result)
    if not isinstance(result, Tensor):
        raise ModelError(
            f"The receptive field of a model is that of its output: {RULE}. "
            f"{type(model).__name__} returns something else; name a module with receptive_field_at."
        )
    last = recorder.number_of(result)
    if last is None:
        raise ModelError(f"The output of {type(model).__name__} does not depend on its input.")
    outputs = {name: number for name, number in recorder.outputs.items() if name} | {"": last}
    shapes = {name: recorder.shapes[number] for name, number in outputs.items()}
    return Trace(shape, shapes, recorder.calls, recorder.image, outputs)


def _field_of(known: Mapping[int, Field], value: Any) -> Any:
    return known[value.number] if isinstance(value, Placeholder) else value
