"""A metric of the user's or of another package, behind a SPEC.

Three things can be behind it:

- What makes an object with `update(prediction, target)`, `compute()` and `reset()`, as all metrics of torchmetrics are:
  a class, or a function without required arguments other than those that the task offers. `update` gets every batch,
  and `compute` gives one number for the whole data set. Such an object itself will do, too, if it is
  callable, as those of torchmetrics are.
- A function of the prediction and the target of one image that gives one number. The score is the mean over images;
  where it is NaN it says nothing of an image, which is then left out.

Either is given by name what the task offers and it takes: segmentation offers `num_classes` and `ignore_index`, which
is -100. Predictions and targets are tensors on the CPU: for segmentation class ids, int64, B x H x W or H x W of one
image, and a target is the ignore index where a pixel has no class. Higher is better unless the object or function has
an attribute `higher_is_better` that is False.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rfsearch import plugins
from rfsearch.direction import Direction
from rfsearch.errors import ModelError
from rfsearch.tasks.metrics.base import Metric

_RULE = (
    "is a function of the prediction and the target of an image, or makes an object with update, compute and reset, as "
    "those of torchmetrics are"
)


@runtime_checkable
class Accumulates(Protocol):
    """Do what the metrics of torchmetrics, and of whoever follows them, have in common."""

    def update(self, prediction: Tensor, target: Tensor) -> object:
        """Take in a batch."""

    def compute(self) -> object:
        """Return every score by its name."""

    def reset(self) -> object:
        """Forget all batches."""


def own_metric(spec: str, offered: Mapping[str, int], predicted: Tensor, target: Tensor) -> Metric:
    """Make the metric behind a SPEC, and try it on a batch.

    Args:
        spec: `package.module:callable` or `path/to/file.py:callable`.
        offered: What it is given by name if it takes it.
        predicted: B x ..., a prediction such as it will get.
        target: B x ..., the true one.

    Raises:
        ModelError: There is nothing behind the SPEC, it is no metric, or it raises; with what it says.
    """
    found: Any = plugins.named(spec, "metric")
    wanted, required = _parameters(found)
    given = {name: value for name, value in offered.items() if name in wanted}
    metric: Metric
    if isinstance(found, Accumulates) and not isinstance(found, type):
        metric = AccumulatedMetric(spec, found)
    elif isinstance(found, type) or required <= offered.keys():
        made = _call(spec, "made", found, **given)
        if not isinstance(made, Accumulates):
            raise ModelError(f"metric {spec!r} {_RULE}. It made {_described(made)}.")
        metric = AccumulatedMetric(spec, made)
    else:
        metric = ImageMeanMetric(spec, found, given)
    metric.reset()
    metric.update(predicted, target)
    metric.compute()
    metric.reset()
    return metric


class AccumulatedMetric(Metric):
    """Ask an object that accumulates over batches.

    Args:
        spec: Where it comes from; the score is called by the name in it.
        held: The object.
    """

    def __init__(self, spec: str, held: Accumulates) -> None:
        self._spec, self._held = spec, held
        self.primary = f"{spec.rpartition(':')[2]}_dataset"
        self.direction = _direction(spec, held)

    def reset(self) -> None:
        """Forget all batches."""
        _call(self._spec, "reset", self._held.reset)

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        _call(self._spec, "updated", self._held.update, predicted.cpu(), target.cpu())

    def compute(self) -> dict[str, float]:
        """Return every score by its name."""
        return {self.primary: _number(self._spec, _call(self._spec, "computed", self._held.compute))}


class ImageMeanMetric(Metric):
    """Average what a function says of each image.

    Args:
        spec: Where it comes from; the score is called by the name in it.
        function: Of the prediction and the target of one image.
        given: What it is given by name besides.
    """

    def __init__(self, spec: str, function: Callable[..., object], given: Mapping[str, int]) -> None:
        self._spec, self._function, self._given = spec, function, given
        self.primary = f"{spec.rpartition(':')[2]}_imagemean"
        self.direction = _direction(spec, function)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._total, self._count = 0.0, 0

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        for one, true in zip(predicted.cpu(), target.cpu(), strict=True):
            score = _number(self._spec, _call(self._spec, "called", self._function, one, true, **self._given))
            if not math.isnan(score):
                self._total += score
                self._count += 1

    def compute(self) -> dict[str, float]:
        """Return every score by its name."""
        return {self.primary: self._total / self._count if self._count else math.nan}


def _parameters(found: Callable[..., object]) -> tuple[set[str], set[str]]:
    """Return the names of a callable's parameters, and of those that it cannot do without."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # a callable of an extension, whose signature nobody knows
        return set(), {"prediction", "target"}
    varied = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {one.name for one in parameters if one.default is one.empty and one.kind not in varied}
    return {one.name for one in parameters}, required


def _direction(spec: str, found: object) -> Direction:
    higher = getattr(found, "higher_is_better", True)
    if higher is None:
        raise ModelError(
            f"metric {spec!r} leaves open whether higher is better. Set its attribute higher_is_better to True or "
            "False, in a function of your own that makes it."
        )
    return "maximize" if higher else "minimize"


def _call(spec: str, what: str, function: Callable[..., object], *arguments: Tensor, **named: int) -> object:
    """Call the user's code; whatever it raises becomes one message."""
    try:
        with torch.no_grad():
            return function(*arguments, **named)
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        shapes = " and ".join(" x ".join(map(str, argument.shape)) for argument in arguments)
        at = f" with tensors of {shapes}" if shapes else ""
        raise ModelError(f"metric {spec!r} fails when it is {what}{at}: {type(error).__name__}: {said}") from error


def _number(spec: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever has __float__, a tensor of one number too
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"metric {spec!r} gives one number. Got {_described(value)}.") from error


def _described(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
