"""How long one image takes through a network, and what that depends on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfsearch.space.objectives import LATENCY
from rfsearch.surgery import Changing
from rfsearch.untouched import restored

# Forward passes of one image that measure a network's latency.
LATENCY_PASSES = 15
SPREAD = (10, 90)  # percentiles: the slowest pass of any series on a shared machine says little about the network
_WARM_UP_PASSES = 3
_WARM_UP_S = 0.05


def charged_passes(costs: Collection[str]) -> int:
    """Return how many passes that measure its latency a trial with a score is charged for.

    Args:
        costs: What the search goes by beside the score. Where latency is among it, a trial measures it at its end too.
    """
    return LATENCY_PASSES * (2 if LATENCY in costs else 1)


def shape_of(model: nn.Module, input_shape: Sequence[int], device: torch.device) -> str:
    """Return a fingerprint of everything that the time of one pass depends on: equal for networks of one shape.

    It holds the sizes of the maps that every module reads and gives, what layers say of their own work, such as between
    which pixels a real dilation has its taps, and the strides and dilations of convolutions. Weights do not matter.

    Args:
        model: in evaluation mode, on `device`.
        input_shape: 1 x C x H x W, of one image.
        device: where the network runs.
    """
    seen: list[Hashable] = []

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        work = module.work if isinstance(module, Changing) and not callable(module.work) else None
        fixed = [getattr(module, key, None) for key in ("kernel_size", "stride", "dilation", "groups")]
        plain = [value for value in fixed if isinstance(value, int | tuple)]
        seen.append((name, type(module).__qualname__, _sizes(inputs), _sizes(output), *plain, work))

    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: note(name, module, inputs, output))
        for name, module in model.named_modules()
    ]
    try:
        _forward(model, input_shape, device)
    finally:
        for hook in hooks:
            hook.remove()
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def time_passes(
    model: nn.Module, input_shape: Sequence[int], device: torch.device, check: Callable[[], None]
) -> tuple[float, float, float]:
    """Time LATENCY_PASSES forward passes of one image, after some that are not counted.

    Args:
        model: in evaluation mode, on `device`.
        input_shape: 1 x C x H x W, of one image.
        device: where the network runs.
        check: called between passes; what it raises ends the measurement.

    Returns:
        Median, 10th and 90th percentile, ms.
    """
    began, warm = time.perf_counter(), 0
    while warm < _WARM_UP_PASSES or time.perf_counter() - began < _WARM_UP_S:
        check()
        _forward(model, input_shape, device)
        warm += 1
    passes = []
    for _ in range(LATENCY_PASSES):
        check()
        started = time.perf_counter()
        _forward(model, input_shape, device)
        passes.append(1000 * (time.perf_counter() - started))
    median, low, high = np.percentile(passes, [50, *SPREAD])
    return float(median), float(low), float(high)


def latency_ms(model: nn.Module, input_shape: Sequence[int], device: torch.device) -> float:
    """Return the median time of one image's pass in evaluation mode, ms, and leave the network as it was.

    Other trials may train at the same time.
    """
    with restored(model):
        return time_passes(model.eval(), input_shape, device, lambda: None)[0]


def _forward(model: nn.Module, input_shape: Sequence[int], device: torch.device) -> None:
    """Send one image through, and wait for the device."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    with torch.no_grad():
        model(torch.zeros(*input_shape, device=device, dtype=dtype))
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sizes(value: Any) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of all tensors in what a module reads or gives."""
    return tuple(tuple(tensor.shape) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
