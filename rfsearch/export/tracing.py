"""Trace a network into a program that takes images of any size and number, or of as many kinds as it can."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

AXES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True)
class Traced:
    """Hold a traced network.

    Attributes:
        program: The program.
        batch: The only number of images that it takes at a time. None: any.
        size: The only size of an image that it takes, (H, W) px. None: any.
        symbols: What the program calls its open dimensions, by what they are: batch, height, width.
    """

    program: torch.export.ExportedProgram
    batch: int | None
    size: tuple[int, int] | None
    symbols: dict[str, str]


def trace(
    network: nn.Module, example: Tensor, size: tuple[int, int], any_batch: bool = True, any_size: bool = True
) -> Traced:
    """Trace a network, with as few fixed dimensions as it allows.

    Args:
        network: Maps one tensor to one.
        example: B x C x H x W, of two images or more and of two different sides, if these are to stay open.
        size: The size to fix, (H, W) px, where sizes cannot stay open.
        any_batch: Whether the number of images is to stay open.
        any_size: Whether the size is to stay open.

    Raises:
        Exception: Whatever torch.export raises if nothing may stay open.
    """
    tries = [(batch, sides) for sides in (True, False) for batch in (True, False)]
    fault: Exception | None = None
    for batch, sides in tries:
        if (batch and not any_batch) or (sides and not any_size):
            continue
        given = example if any_batch is False or batch else example[:1]
        given = given if sides else given.new_zeros(*given.shape[:2], *size)
        axes = ([0] if batch else []) + ([2, 3] if sides else [])
        try:
            with quiet():
                made = _traced(network, given, axes)
        except Exception as error:
            fault = error
            continue
        if set(made.symbols.values()) == {AXES[axis] for axis in axes}:
            return made
    raise fault or ValueError("every dimension that was to stay open depends on the network")


def _traced(network: nn.Module, example: Tensor, axes: list[int]) -> Traced:
    shapes = dict.fromkeys(axes, torch.export.Dim.AUTO)
    program = torch.export.export(network, (example,), dynamic_shapes=(shapes,) if shapes else None, strict=False)
    (name,) = program.graph_signature.user_inputs
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    shape = node.meta["val"].shape
    # A dimension that the network fixes is a symbol of a number.
    symbols = {str(shape[axis]): AXES[axis] for axis in axes if not str(shape[axis]).isdigit()}
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    program.example_inputs = None  # would be kept in the file
    batch = None if 0 in axes else int(example.shape[0])
    size = None if 2 in axes else (int(example.shape[2]), int(example.shape[3]))
    return Traced(program, batch, size, symbols)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters, whose failures are reported in our words."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def brief(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]
