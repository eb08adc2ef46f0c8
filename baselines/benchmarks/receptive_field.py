"""Receptive fields: how long a 200-layer network takes, and who gets which network right.

Truth is the support of the input gradient of a linearised copy (weights positive, nothing that gates, max pools made
means), in float64: first to last pixel, the largest of some units in the middle of the map. For large networks it is
the closed form r = 1 + sum of (k - 1) prod(strides before) along the longest path, also measured where that is cheap.
Nothing here uses the arithmetic of rfsearch.receptive for it.

The peers, where they are installed (`pip install receptivefield==0.5.0 torchscan==0.2.0`):
- receptivefield measures by gradients. It gets what its documentation asks for: a model with `feature_maps`, in
  evaluation mode, linear, with mean pools and positive weights, and an image larger than the field; more than that,
  functional ReLU and pools are made linear for it as well, and biases are positive, which its zero image needs.
- torchscan 0.2.0 gives a receptive field per module call. Chaining them in the order of execution,
  r += (k - 1) jump, jump *= stride, is ours; releases before 0.2 chained so themselves. Its documentation claims
  sequential paths only and no functional calls; what it says of others is listed, but not held against it.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd
import torch
import torchvision
from provenance import RESULTS, provenance, write_sidecar
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rfsearch.errors import ModelError
from rfsearch.receptive import receptive_field, traced

NAME = "receptive_field"
TARGET_S = 1.0
PEERS = ("receptivefield", "torchscan")
TOOLS = ("rfsearch", *PEERS)
C = 2
BIAS = 0.1
GATES = {"relu", "relu_", "relu6", "hardtanh", "gelu", "silu", "layer_norm", "dropout", "dropout_"}

Extent = tuple[float, ...]


class Linear(TorchFunctionMode):
    """Runs a model without what gates, its max pools as means: however it is written, by modules or functions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in GATES:
            return args[0]
        if name.startswith("max_pool"):
            return self.mean(int(name[8]), *args, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def mean(
        axes: int,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        assert dilation in (1, (1,) * axes), "no dilated pool is among the cases"
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        return pool(x, kernel_size, stride, padding, ceil_mode)


class Linearised(nn.Module):
    """A copy with positive weights that runs under `Linear`, and keeps its map as receptivefield wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.feature_maps: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            fill = 1 / math.prod(parameter.shape[1:]) if parameter.dim() > 1 else BIAS if name.endswith("bias") else 1.0
            nn.init.constant_(parameter, fill)

    def forward(self, x: Tensor) -> Tensor:
        with Linear():
            result = self.model(x)
        self.feature_maps = [result]
        return result


class AsItIs(nn.Module):
    """The model with its own weights and gates, keeping its map as receptivefield wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.feature_maps: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        result = self.model(x)
        self.feature_maps = [result]
        return result


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def conv(kernel: Any = 3, stride: int = 1, padding: Any = None, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    if padding is None:
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = tuple((side - 1) * dilation // 2 for side in sides)
    return nn.Conv2d(C, C, kernel, stride, padding, dilation, groups)


def chain(*layers: nn.Module) -> nn.Module:
    """Convolutions with batch norm and ReLU behind each."""
    parts: list[nn.Module] = []
    for layer in layers:
        parts += [layer, nn.BatchNorm2d(C), nn.ReLU()] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*parts)


def residual(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, shortcut: nn.Module) -> Tensor:
    """The shortcut looks further than the body."""
    return c(F.relu(b(a(x)) + shortcut(x)))


def aspp(x: Tensor, stem: nn.Module, *branches: nn.Module) -> Tensor:
    *parts, last = branches
    x = stem(x)
    return last(torch.cat([part(x) for part in parts], 1))


def functional(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    x = F.max_pool2d(F.relu(a(x)), 3, 2, 1)
    x = F.avg_pool2d(F.relu(b(x)), 2)
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def offset(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    """Units of a read i ... i + 1, those of b i - 3 ... i - 1: together five pixels, more than each."""
    one, other = a(x), b(x)
    height, width = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return one[:, :, :height, :width] + other[:, :, :height, :width]


def gated(x: Tensor, a: nn.Module, squeeze: nn.Module, excite: nn.Module, b: nn.Module) -> Tensor:
    x = a(x)
    return b(x * excite(F.relu(squeeze(x.mean((2, 3), keepdim=True)))).sigmoid())


def swin() -> nn.Module:
    stages = torchvision.models.swin_t(weights=None).features[:3]
    return nn.Sequential(stages, torchvision.ops.Permute([0, 3, 1, 2]))


def cut(name: str, last: str | None = None) -> nn.Module:
    """Torchvision's network up to a child, its auxiliary heads left out."""
    model = torchvision.models.get_model(name, weights=None, **({"init_weights": False} if "inc" in name else {}))
    if last is None:
        return model.features
    children = dict(model.named_children())
    kept = list(children)[: list(children).index(last) + 1]
    return nn.Sequential(*(children[child] for child in kept if not child.lower().startswith("aux")))


def densenet(narrow: bool = False) -> nn.Module:
    """DenseNet-121, or the same kernels on a few channels."""
    if narrow:
        return torchvision.models.DenseNet(2, (6, 12, 24, 16), 4, bn_size=1).features
    return cut("densenet121")


def closed_form(*layers: tuple[int, int]) -> int:
    """Extent of a chain of (kernel, stride)."""
    extent, jump = 1, 1
    for kernel, stride in layers:
        extent, jump = extent + (kernel - 1) * jump, jump * stride
    return extent


def stages(blocks: tuple[int, ...], block: list[int]) -> list[tuple[int, int]]:
    """A ResNet: the first 3 x 3 of a stage carries its stride."""
    layers = [(7, 2), (3, 2)]
    for stage, count in enumerate(blocks):
        for i in range(count):
            layers += [(k, 2 if stage and not i and not j else 1) for j, k in enumerate(block)]
    return layers


INVERTED = ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))
LONGEST = {
    "alexnet": [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)],
    "vgg16": [layer for count in (2, 2, 3, 3, 3) for layer in [*[(3, 1)] * count, (2, 2)]],
    "resnet18": stages((2, 2, 2, 2), [3, 3]),
    "resnet50": stages((3, 4, 6, 3), [3]),
    "mobilenet_v2": [(3, 2), *((3, 1 if i else s) for count, s in INVERTED for i in range(count))],
    "inception_v3": [
        *[(3, 2), (3, 1), (3, 1), (3, 2), (1, 1), (3, 1), (3, 2)],
        *[*[(5, 1)] * 3, (3, 1), (3, 2)],
        *[*[(7, 1), (7, 1)] * 4, (7, 1), (3, 2)],
        *[(3, 1), (3, 1)] * 2,
    ],
    "densenet121": [
        *[(7, 2), (3, 2), *[(3, 1)] * 6, (2, 2), *[(3, 1)] * 12],
        *[(2, 2), *[(3, 1)] * 24, (2, 2), *[(3, 1)] * 16],
    ],
    # its "5x5" branches are 3x3 in torchvision
    "googlenet": [
        *[(7, 2), (3, 2), (1, 1), (3, 1), (3, 2), (3, 1), (3, 1), (3, 2)],
        *[*[(3, 1)] * 5, (2, 2), (3, 1), (3, 1)],
    ],
}


@dataclass(frozen=True)
class Case:
    """One network. size: axes of the image, px. truth: extent and jump by the closed form, px, else measured. measured:
    size of the image on which truth is measured (None: it is not). gradients: size that receptivefield gets. units: how
    many neighbours in the middle are looked at, a whole period of what differs between them. sequential: one path of
    modules, which is what torchscan claims. large_enough: receptivefield may have an image larger than the field.
    linear: it may have a linear copy. narrow: the same kernels on fewer channels, where gradients take too much memory.
    """

    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, ...] = (96, 96)
    channels: int = C
    truth: tuple[float, float] | None = None
    measured: tuple[int, ...] | None = (96, 96)
    gradients: tuple[int, ...] | None = None
    units: int = 3
    sequential: bool = True
    whole: bool = False
    large_enough: bool = True
    linear: bool = True
    narrow: Callable[[], nn.Module] | None = None
    jump: float | None = None


def torchvision_case(name: str, last: str | None, size: int, gradients: int, measured: bool, **more: Any) -> Case:
    sides = (gradients, gradients)
    return Case(
        f"torchvision {name}",
        more.pop("build", lambda: cut(name, last)),
        (size, size),
        3,
        (closed_form(*LONGEST[name]), math.prod(stride for _, stride in LONGEST[name])),
        sides if measured else None,
        sides,
        units=1,
        **more,
    )


def cases() -> list[Case]:
    branches = [conv(1), conv(dilation=2), conv(dilation=4), conv(dilation=6), nn.Conv2d(4 * C, C, 1)]
    return [
        Case("chain", lambda: chain(*(conv() for _ in range(5)))),
        Case("dilated", lambda: chain(conv(), conv(dilation=2), conv(dilation=4))),
        Case("dilated, with gaps between taps", lambda: chain(conv(dilation=3), conv(dilation=6))),
        Case("strided", lambda: chain(conv(3, 2), conv(3, 2), conv())),
        Case("strided, with gaps between windows", lambda: chain(conv(1, 2), conv(), conv(1, 2), conv())),
        Case("asymmetric 3x5", lambda: chain(conv((3, 5)), conv((3, 5)))),
        Case("even kernels", lambda: chain(conv(4, 2), conv(2), conv(4))),
        Case("grouped and depthwise", lambda: chain(conv(groups=C), conv(1), conv(5, groups=C), conv(1))),
        Case("max pool, ceil mode", lambda: chain(conv(), nn.MaxPool2d(3, 2, ceil_mode=True), conv()), (95, 95)),
        Case(
            "transposed convolution",
            lambda: nn.Sequential(conv(3, 2), nn.ConvTranspose2d(C, C, 4, 2, 1), conv()),
            units=4,
        ),
        Case(
            "nearest up-sampling",
            lambda: nn.Sequential(conv(3, 2), conv(), nn.Upsample(scale_factor=2), conv()),
            units=4,
        ),
        Case(
            "bilinear up-sampling",
            lambda: nn.Sequential(conv(3, 2), conv(), nn.Upsample(scale_factor=2, mode="bilinear"), conv()),
            units=4,
        ),
        Case(
            "residual sum, shortcut the wider",
            lambda: Lambda(residual, conv(), conv(), conv(), conv(9)),
            sequential=False,
        ),
        Case("concatenation, dilated branches", lambda: Lambda(aspp, conv(3, 2), *branches), sequential=False),
        Case("functional pools and resampling", lambda: Lambda(functional, conv(), conv()), units=4, sequential=False),
        Case("offset branches", lambda: Lambda(offset, conv(2, padding=0), conv(padding=3)), sequential=False),
        Case(
            "field larger than the image",
            lambda: chain(*(conv() for _ in range(40))),
            (32, 32),
            truth=(81, 1),
            measured=(128, 128),
            gradients=(32, 32),
            large_enough=False,
        ),
        Case(
            "ReLU and max pools, random weights",
            lambda: nn.Sequential(
                *[nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()],
                *[nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)],
                *[nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1)],
            ),
            channels=3,
            linear=False,
        ),
        Case(
            "squeeze and excite gate",
            lambda: Lambda(gated, conv(), conv(1), conv(1), conv()),
            (64, 64),
            measured=(64, 64),
            sequential=False,
            whole=True,
            jump=1,
        ),
        Case(
            "windowed attention, swin_t's first stage",
            swin,
            (224, 224),
            3,
            measured=(224, 224),
            units=7,
            sequential=False,
        ),
        torchvision_case("alexnet", None, 224, 384, True),
        torchvision_case("vgg16", None, 224, 352, True),
        torchvision_case("resnet18", "layer4", 224, 576, True, sequential=False),
        torchvision_case("resnet50", "layer4", 224, 576, True, sequential=False),
        torchvision_case("mobilenet_v2", None, 224, 640, True, sequential=False),
        torchvision_case("inception_v3", "Mixed_7c", 299, 1472, False, sequential=False),
        torchvision_case(
            *("densenet121", None, 224, 2304, True),
            build=densenet,
            narrow=lambda: densenet(narrow=True),
            sequential=False,
        ),
        torchvision_case("googlenet", "inception5b", 224, 576, True, sequential=False),
        Case(
            "1-D chain",
            lambda: nn.Sequential(nn.Conv1d(C, C, 5, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(C, C, 3, padding=1)),
            (200,),
            measured=(200,),
        ),
        Case(
            "3-D chain",
            lambda: nn.Sequential(nn.Conv3d(C, C, 3, 2, 1), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(C, C, 3, padding=1)),
            (40, 40, 40),
            measured=(40, 40, 40),
        ),
    ]


# Every answer of a peer that is not the truth, and the line of its code that makes it so.
COUNTS = "counts the rows that have a gradient (common.py, x_cs.sum()), not first to last: gaps are left out"
SWAPS = "x_cs sums over columns, so what it calls the width is the height, and the other way round (common.py)"
FIRST = "_first() takes kernel_size[0] for every axis (modules/receptive.py)"
HOOKS = "a list of module calls has no branches: their strides and extents add up as if one came after the other"
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


def windows(model: nn.Module, size: tuple[int, ...], channels: int, units: int) -> list[list[tuple[int, int]]]:
    """First and last pixel an axis that each of some units in the middle sees; from one unit before it on."""
    image = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
    output = Linearised(model).double()(image)
    middle = [(n - units) // 2 for n in output.shape[2:]]
    found = []
    for i in range(units):
        unit = tuple(place + i for place in middle)
        (grad,) = torch.autograd.grad(output[(0, slice(None), *unit)].sum(), image, retain_graph=i + 1 < units)
        places = grad[0].sum(0).nonzero()
        found.append([(int(a), int(b)) for a, b in zip(places.min(0).values, places.max(0).values, strict=True)])
    return found


def truth(case: Case, model: nn.Module) -> tuple[Extent, float, set[Extent], str]:
    """Extent and jump, px, the extents of single units, and how they are known."""
    axes = len(case.size)
    closed = None if case.truth is None else (case.truth[0],) * axes
    if case.measured is None:
        assert closed
        assert case.truth
        return closed, case.truth[1], {closed}, "closed form"
    model = model if case.narrow is None else case.narrow()
    found = windows(model, case.measured, case.channels, case.units)
    clear = all(low > 0 and high < n - 1 for unit in found for (low, high), n in zip(unit, case.measured, strict=True))
    assert clear or case.whole, f"{case.name}: too small an image for its truth"
    each: list[Extent] = [tuple(high - low + 1 for low, high in unit) for unit in found]
    extent = tuple(max(unit[i] for unit in each) for i in range(axes))
    if closed:
        assert closed == extent, f"{case.name}: closed form {closed}, measured {extent}"
        assert case.truth
        return closed, case.truth[1], {closed}, "closed form and gradient"
    jump = case.jump
    if jump is None:
        more = windows(model, case.measured, case.channels, 2 * case.units)
        moves = [more[case.units + i][-1][side] - more[i][-1][side] for i in range(case.units) for side in (0, 1)]
        jump = statistics.mean(moves) / case.units
    return extent, jump, set(each), "gradient"


@dataclass(frozen=True)
class Answer:
    """What a tool says. status: right, wrong, refuses (says that it cannot), fails (breaks). claimed: whether its
    documentation says that it works here."""

    status: str
    claimed: bool = True
    extent: Extent = ()
    jump: float | None = None
    seconds: float | None = None
    why: str = ""


def clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gave, and its median time over three runs; one run, if that took longer than a second."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - began)
        if times[0] > 1:
            break
    return result, statistics.median(times)


def by_rfsearch(case: Case, model: nn.Module) -> Answer:
    try:
        field, seconds = clocked(lambda: receptive_field(model, (1, case.channels, *case.size)))
    except ModelError as error:
        return Answer("refuses", why=str(error).splitlines()[0])
    return Answer("", True, tuple(axis.px for axis in field.axes), field.axes[-1].jump, seconds)


def by_receptivefield(case: Case, model: nn.Module) -> Answer:
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
    """receptivefield measures one unit in the middle: that it names any unit's extent is right."""
    if answer.status:
        return answer
    rights = accepted | {extent} if tool == "receptivefield" else {extent}
    if tool == "receptivefield" and case.whole:
        rights = {tuple(map(float, case.gradients or case.size))}
    right = any(max(abs(a - b) for a, b in zip(answer.extent, one, strict=True)) < 1e-6 for one in rights)
    why = "" if right else WHY.get((tool, case.name), "not explained")
    return Answer("right" if right else "wrong", answer.claimed, answer.extent, answer.jump, answer.seconds, why)


def installed() -> dict[str, str]:
    """Versions of the peers; says so where one is missing."""
    found = {}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            print(f"{peer} is not installed and is left out: pip install {peer}")
            found[peer] = "missing"
    return found


def compare(case: Case, peers: dict[str, str]) -> dict[str, Any]:
    torch.manual_seed(0)
    model = case.build().eval()
    extent, jump, accepted, known_by = truth(case, model)
    row: dict[str, Any] = {
        "case": case.name,
        "image_px": " x ".join(map(str, case.size)),
        "truth_h": extent[-2] if len(extent) > 1 else None,
        "truth_w": extent[-1],
        "jump": jump,
        "truth_by": known_by,
    }
    asked = {"rfsearch": by_rfsearch, "receptivefield": by_receptivefield, "torchscan": by_torchscan}
    for tool, ask in asked.items():
        if peers.get(tool) == "missing":
            row |= {f"{tool}": "not installed"}
            continue
        answer = judged(case, tool, ask(case, model), extent, accepted)
        jump_right = answer.jump is not None and abs(answer.jump - jump) < 1e-6
        row |= {
            tool: answer.status,
            f"{tool}_claims": answer.claimed,
            f"{tool}_h": answer.extent[-2] if len(answer.extent) > 1 else None,
            f"{tool}_w": answer.extent[-1] if answer.extent else None,
            f"{tool}_jump": answer.jump,
            f"{tool}_jump_right": jump_right if answer.status in ("right", "wrong") else None,
            f"{tool}_s": None if answer.seconds is None else float(f"{answer.seconds:.3g}"),
            f"{tool}_why": answer.why,
        }
    print(f"{case.name:42}", extent, f"jump {jump:g}", end="")
    for tool in TOOLS:
        print(f" | {tool}: {row[tool]} {row.get(f'{tool}_h')} {row.get(f'{tool}_w')}", end="")
        print(f" j{row.get(f'{tool}_jump')} {row.get(f'{tool}_s')} s {row.get(f'{tool}_why')}", end="")
    print(flush=True)
    return row


def summary(table: pd.DataFrame, peers: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {"cases": len(table)}
    for tool in TOOLS:
        if peers.get(tool) == "missing":
            body[tool] = "not installed"
            continue
        claims = table[f"{tool}_claims"].astype(bool)
        answered = table[tool].isin(["right", "wrong"])
        ours = claims & ~table[tool].isin(["refuses"])
        right = table[tool] == "right"
        body[tool] = {
            "claims_to_work": int(ours.sum()),
            "right_among_those": int((right & ours).sum()),
            "jump_right_among_those": int((table[f"{tool}_jump_right"].eq(True) & ours).sum()),
            **{status: int((table[tool] == status).sum()) for status in ("right", "wrong", "refuses", "fails")},
            "right_where_it_does_not_claim_to": int((right & ~claims).sum()),
            "seconds_in_all": round(float(table.loc[answered, f"{tool}_s"].sum()), 2),
        }
        if tool != "rfsearch":
            same = right & (table.rfsearch == "right")
            body[tool]["rfsearch_agrees_where_it_is_right"] = f"{int(same.sum())} of {int(right.sum())}"
            bad = table[table[tool].isin(["wrong", "fails"])]
            body[tool]["wrong_or_failing_because"] = dict(zip(bad.case, bad[f"{tool}_why"], strict=True))
            said = table[table[tool] == "refuses"]
            body[tool]["refuses_because"] = dict(zip(said.case, said[f"{tool}_why"], strict=True))
    return body


def deep() -> dict[str, Callable[[], nn.Module]]:
    def plain() -> nn.Module:
        layers: list[nn.Module] = []
        for i in range(200):
            layers += [nn.Conv2d(16 if i else 3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*layers)

    bottleneck = torchvision.models.resnet.Bottleneck
    return {
        "200 x Conv-BN-ReLU": plain,
        "ResNet-200": lambda: torchvision.models.ResNet(bottleneck, [3, 24, 36, 3]),
        "DenseNet-201": lambda: torchvision.models.densenet201(weights=None),
    }


def timings(runs: int) -> dict[str, Any]:
    """Seconds to run a model on shapes, and to follow it to every module's field."""
    body = {}
    for name, build in deep().items():
        model = build()
        tracing, tracing_cpu, following, following_cpu = [], [], [], []
        for _ in range(runs + 1):  # the first warms up
            began = time.perf_counter()
            at_work = time.process_time()
            trace = traced(model, (1, 3, 224, 224))
            then, worked = time.perf_counter(), time.process_time()
            fields = trace.receptive_fields()
            following.append(time.perf_counter() - then)
            following_cpu.append(time.process_time() - worked)
            tracing.append(then - began)
            tracing_cpu.append(worked - at_work)
        beyond = following[1:]
        body[name] = {
            "modules_quoted": len(fields),
            "operators_followed": len(trace._calls),
            "px_at": {path: fields[path].px for path in ("", "layer4", "features") if path in fields},
            "first_run_s": [round(tracing[0], 3), round(following[0], 3)],
            "tracing_s": round(statistics.median(tracing[1:]), 3),
            "tracing_cpu_s": round(statistics.median(tracing_cpu[1:]), 3),
            "following_s": round(statistics.median(beyond), 3),
            "following_cpu_s": round(statistics.median(following_cpu[1:]), 3),
            "following_s_least_and_most": [round(min(beyond), 3), round(max(beyond), 3)],
            "under_1_s_beyond_tracing": statistics.median(beyond) < TARGET_S,
        }
        print(name, body[name], flush=True)
    return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each deep network")
    parser.add_argument("--only", help="cases whose name contains this; writes nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    peers = installed()
    if asked.only:
        for case in cases():
            if asked.only in case.name:
                compare(case, peers)
        return
    deep_networks = timings(asked.runs)
    table = pd.DataFrame([compare(case, peers) for case in cases()])
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    origin = provenance()
    body = {
        **origin,
        "versions": {**origin["versions"], **peers},
        "threads": 1,
        "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
        "deep_networks": {
            "image": [1, 3, 224, 224],
            "runs": asked.runs,
            "split": "tracing_s: the model on shapes; following_s: from there the fields of all modules; medians; cpu: "
            "the processor's time, which others on the machine disturb less",
            "target": f"following_s under {TARGET_S:g}",
            "target_met": all(entry["under_1_s_beyond_tracing"] for entry in deep_networks.values()),
            "by_network": deep_networks,
        },
        "truth": " ".join(__doc__.split("\n\n")[1].split()),
        "peers": " ".join(__doc__.split("\n\n")[2].split()),
        "right": "every axis' extent to the pixel; receptivefield also with that of a single unit in the middle",
        "seconds": "median of three calls, one where it took over a second; models built before; torchscan counts FLOP "
        "and memory in the same call, receptivefield gets larger images where the field needs them",
        "summary": summary(table, peers),
    }
    write_sidecar(NAME, body)
    print(body["summary"])


if __name__ == "__main__":
    main()
