"""Ask rfsearch and its peers for receptive fields, and say why an answer of a peer is not the truth."""

from __future__ import annotations

import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from receptive_field_cases import AsItIs, Case, Extent, Linearised
from torch import nn

from rfsearch.errors import ModelError
from rfsearch.receptive import receptive_field

PEERS = ("receptivefield", "torchscan")


FIRST = "_first() takes kernel_size[0] for every axis (modules/receptive.py)"


HOOKS = "a list of module calls has no branches: their strides and extents add up as if one came after the other"


COUNTS = "counts the rows that have a gradient (common.py, x_cs.sum()), not first to last: gaps are left out"
SWAPS = "x_cs sums over columns, so what it calls the width is the height, and the other way round (common.py)"
UNSEEN = "functional calls have no module, so no hook sees them"


WHY: dict[tuple[str, str], str] = {
    ("receptivefield", "dilated, with gaps between taps"): COUNTS,
    ("receptivefield", "strided, with gaps between windows"): COUNTS,
    ("receptivefield", "concatenation, dilated branches"): COUNTS,
    ("receptivefield", "asymmetric 3x5"): SWAPS,
    ("receptivefield", "field larger than the image"): (
        "gives the image's extent: its documentation promises an exception, compute() checks nothing"
    ),
    ("receptivefield", "ReLU and max pools, random weights"): (
        "its image is zeros, where ReLU and max pools pass on a part of the gradient; its documentation advises against"
    ),
    ("receptivefield", "torchvision densenet121"): (
        "float32 (torch.zeros in pytorch.py): gradients at the edge of the field underflow to 0; with "
        "torch.set_default_dtype(torch.float64) it gives 2071"
    ),
    ("torchscan", "asymmetric 3x5"): FIRST,
    ("torchscan", "transposed convolution"): "rf_convtransposend returns minus the kernel (modules/receptive.py)",
    ("torchscan", "residual sum, shortcut the wider"): HOOKS,
    ("torchscan", "concatenation, dilated branches"): HOOKS,
    ("torchscan", "offset branches"): HOOKS,
    ("torchscan", "functional pools and resampling"): UNSEEN,
    ("torchscan", "squeeze and excite gate"): UNSEEN,
    ("torchscan", "torchvision resnet18"): HOOKS,
    ("torchscan", "torchvision resnet50"): HOOKS,
    ("torchscan", "torchvision inception_v3"): f"{HOOKS}; {UNSEEN}",
    ("torchscan", "torchvision googlenet"): HOOKS,
}


@dataclass(frozen=True)
class Answer:
    """Hold what a tool answers.

    Attributes:
        status: right, wrong, refuses (says that it cannot), or fails (breaks).
        claimed: Whether its documentation says that it works here.
        extent: Extent per axis, px.
        jump: Distance between neighbouring units, px.
        seconds: How long it took.
        why: Why it is not right.
    """

    status: str
    claimed: bool = True
    extent: Extent = ()
    jump: float | None = None
    seconds: float | None = None
    why: str = ""


def clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call, and its median time over three runs (one run if that took over a second)."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - began)
        if times[0] > 1:
            break
    return result, statistics.median(times)


def by_rfsearch(case: Case, model: nn.Module) -> Answer:
    """Ask rfsearch."""
    try:
        field, seconds = clocked(lambda: receptive_field(model, (1, case.channels, *case.size)))
    except ModelError as error:
        return Answer("refuses", why=str(error).splitlines()[0])
    return Answer("", True, tuple(axis.px for axis in field.axes), field.axes[-1].jump, seconds)


def by_receptivefield(case: Case, model: nn.Module) -> Answer:
    """Ask receptivefield."""
    from receptivefield.pytorch import PytorchReceptiveField
    from receptivefield.types import ImageShape

    if len(case.size) != 2:
        return Answer("refuses", False, why="takes images with two axes only (ImageShape, GridShape)")
    claimed = case.large_enough and case.linear
    height, width = case.gradients or case.size
    model = model if case.narrow is None else case.narrow()
    wrapped = Linearised(model) if case.linear else AsItIs(model)
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # divisions by zero where no gradient arrives
            (found,), seconds = clocked(
                lambda: PytorchReceptiveField(lambda: wrapped).compute(ImageShape(w=width, h=height, c=case.channels))
            )
    except Exception as error:
        return Answer("fails", claimed, why=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    finally:
        logging.disable(logging.NOTSET)
    extent = (float(found.rf.size.h), float(found.rf.size.w))
    stride = float(found.rf.stride[0])
    if any(math.isnan(value) for value in (*extent, stride)) or not all(extent):
        return Answer("fails", claimed, extent, stride, seconds, "no gradient arrives: NaN")
    return Answer("", claimed, extent, stride, seconds)


def by_torchscan(case: Case, model: nn.Module) -> Answer:
    """Ask torchscan."""
    from torchscan import crawl_module

    try:
        report, seconds = clocked(lambda: crawl_module(model, (case.channels, *case.size)))
    except Exception as error:
        return Answer("fails", case.sequential, why=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    extent, jump, missing = 1.0, 1.0, []
    for layer in report["layers"]:
        metric = layer["metrics"].get("receptive_field")
        if metric is None:
            continue  # a module with children
        if metric["status"] != "complete":
            missing.append(layer["type"])
            continue
        extent += (metric["value"] - 1) * jump
        jump *= layer["metrics"]["effective_stride"]["value"]
    if missing:
        kinds = ", ".join(sorted(set(missing)))
        return Answer("refuses", case.sequential, seconds=seconds, why=f"status unavailable: {kinds}")
    return Answer("", case.sequential, (extent,) * len(case.size), jump, seconds)


def judged(case: Case, tool: str, answer: Answer, extent: Extent, accepted: set[Extent]) -> Answer:
    """Judge an answer. receptivefield measures one unit in the middle, so the extent of any unit is right."""
    if answer.status:
        return answer
    rights = accepted | {extent} if tool == "receptivefield" else {extent}
    if tool == "receptivefield" and case.whole:
        rights = {tuple(map(float, case.gradients or case.size))}
    right = any(max(abs(a - b) for a, b in zip(answer.extent, one, strict=True)) < 1e-6 for one in rights)
    why = "" if right else WHY.get((tool, case.name), "not explained")
    return Answer("right" if right else "wrong", answer.claimed, answer.extent, answer.jump, answer.seconds, why)


def installed() -> dict[str, str]:
    """Return the versions of the peers, and print which one is missing."""
    found = {}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            print(f"{peer} is not installed and is left out: pip install {peer}")
            found[peer] = "missing"
    return found
