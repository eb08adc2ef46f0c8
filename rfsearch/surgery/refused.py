"""Dilations that a network cannot take, found by trying them on shapes alone.

A convolution that pads keeps the size of its map at every dilation. One that does not, such as a patch embedding or an
unpadded reduction, gives a smaller map, and a network that adds that to another one, or that needs a fixed size, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rfsearch.errors import ModelError
from rfsearch.lazy import give_sizes
from rfsearch.surgery.build import Dilations, dilations_of
from rfsearch.surgery.dilation import output_size, set_dilation
from rfsearch.surgery.shapes import OnShapes, without_values
from rfsearch.surgery.sites import map_sizes
from rfsearch.untouched import untouched


def refused_dilations(
    model: nn.Module, input_shape: Sequence[int], wanted: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, str]]:
    """Say which dilations of sites a network cannot take, and why.

    Where a dilation leaves the sizes of the maps as they are, nothing is run.

    Args:
        model: The network; it is left as it was.
        input_shape: B x C x its axes, of an image that the network takes.
        wanted: The dilations to try, by the path of a site: of its convolution, or what those in a container or span
            are multiplied by.

    Returns:
        The reason by site and dilation; only those that are refused.
    """
    sizes = map_sizes(model, input_shape)
    found: dict[str, dict[int, str]] = {}
    resized: list[tuple[str, int, str]] = []
    with untouched(model), torch.no_grad():
        give_sizes(model, input_shape)
        model.eval()
        for path, dilations in wanted.items():
            site = dilations_of(model, path)
            before = _outputs(site, sizes)
            for dilation in dilations:
                try:
                    with _dilated(site, dilation):
                        after = _outputs(site, sizes)
                except ModelError as error:
                    found.setdefault(path, {})[dilation] = str(error)
                    continue
                if after != before:
                    change = "; ".join(
                        f"{_by(b)} instead of {_by(a)}" for a, b in zip(before, after, strict=True) if a != b
                    )
                    resized.append((path, dilation, change))
        run = _runner(model, input_shape) if resized else None
        for path, dilation, change in resized:
            assert run
            try:
                with _dilated(dilations_of(model, path), dilation):
                    run()
            except Exception as error:
                why = f"it gives a map of {change} px, which the network does not take: {_brief(error)}"
                found.setdefault(path, {})[dilation] = why
    return found


@contextmanager
def _dilated(site: Dilations, dilation: int) -> Iterator[None]:
    """A site at a dilation, and behind the block at those that it had."""
    own = [part.dilation for part, _ in site.parts]
    try:
        site.set(dilation)
        yield
    finally:
        for (part, _), as_it_was in zip(site.parts, own, strict=True):
            set_dilation(part, as_it_was)


def _outputs(site: Dilations, sizes: Mapping[_ConvNd, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The sizes of the maps that a site's convolutions give, those that run."""
    return [output_size(part, sizes[part]) for part, _ in site.parts if part in sizes]


def _runner(model: nn.Module, shape: Sequence[int]) -> Callable[[], object]:
    """What runs the network, on shapes alone where it can: its tensors have no values any more then."""
    held: list[tuple[dict[str, Any], str, Tensor]] = [
        (tensors, name, value)
        for part in model.modules()
        for tensors in (vars(part)["_parameters"], vars(part)["_buffers"])
        for name, value in tensors.items()
        if value is not None
    ]
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def on_shapes() -> object:
        with OnShapes():  # type: ignore[no-untyped-call]
            return model(torch.empty(tuple(shape), dtype=kind, device="meta"))

    def on_zeros() -> object:
        return model(torch.zeros(tuple(shape), dtype=kind, device=device))

    for tensors, name, value in held:
        tensors[name] = without_values(value)
    try:
        on_shapes()
    except Exception:  # what depends on values runs on values
        for tensors, name, value in held:
            tensors[name] = value
        return on_zeros
    return on_shapes


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
