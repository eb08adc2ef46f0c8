"""Build the networks whose receptive fields are compared, and their linear copies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Extent = tuple[float, ...]


C = 2


BIAS = 0.1


GATES = {"relu", "relu_", "relu6", "hardtanh", "gelu", "silu", "layer_norm", "dropout", "dropout_"}


class Linear(TorchFunctionMode):
    """Run a model without what gates, its max pools as means, whether it is written with modules or functions."""

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
        """Replace a max pool by a mean."""
        assert dilation in (1, (1,) * axes), "no dilated pool is among the cases"
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        return pool(x, kernel_size, stride, padding, ceil_mode)


class Linearised(nn.Module):
    """Copy a model with positive weights, run it under `Linear`, and keep its map as receptivefield needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.feature_maps: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            fill = 1 / math.prod(parameter.shape[1:]) if parameter.dim() > 1 else BIAS if name.endswith("bias") else 1.0
            nn.init.constant_(parameter, fill)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x its axes to the model's output."""
        with Linear():
            result = self.model(x)
        self.feature_maps = [result]
        return result


class AsItIs(nn.Module):
    """Keep a model's own weights and gates, and its map as receptivefield needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.feature_maps: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x its axes to the model's output."""
        result = self.model(x)
        self.feature_maps = [result]
        return result


class Lambda(nn.Module):
    """Run a function on an image and some layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map B x C x its axes to the function's result."""
        return self.function(x, *self.layers)


def conv(kernel: Any = 3, stride: int = 1, padding: Any = None, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """Build a convolution of C channels that keeps the map's size at stride 1."""
    if padding is None:
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = tuple((side - 1) * dilation // 2 for side in sides)
    return nn.Conv2d(C, C, kernel, stride, padding, dilation, groups)


def chain(*layers: nn.Module) -> nn.Module:
    """Build convolutions with batch norm and ReLU behind each."""
    parts: list[nn.Module] = []
    for layer in layers:
        parts += [layer, nn.BatchNorm2d(C), nn.ReLU()] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*parts)


def residual(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, shortcut: nn.Module) -> Tensor:
    """Add a body and a shortcut that looks farther."""
    return c(F.relu(b(a(x)) + shortcut(x)))


def aspp(x: Tensor, stem: nn.Module, *branches: nn.Module) -> Tensor:
    """Concatenate dilated branches."""
    *parts, last = branches
    x = stem(x)
    return last(torch.cat([part(x) for part in parts], 1))


def functional(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    """Pool and resample by functions."""
    x = F.max_pool2d(F.relu(a(x)), 3, 2, 1)
    x = F.avg_pool2d(F.relu(b(x)), 2)
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def offset(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    """Add branches that are offset: units of a read i ... i + 1, those of b i - 3 ... i - 1, together five pixels."""
    one, other = a(x), b(x)
    height, width = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    return one[:, :, :height, :width] + other[:, :, :height, :width]


def gated(x: Tensor, a: nn.Module, squeeze: nn.Module, excite: nn.Module, b: nn.Module) -> Tensor:
    """Gate a map by its squeezed and excited mean."""
    x = a(x)
    return b(x * excite(F.relu(squeeze(x.mean((2, 3), keepdim=True)))).sigmoid())


def swin() -> nn.Module:
    """Build the first stages of swin_t, channels first."""
    stages = torchvision.models.swin_t(weights=None).features[:3]
    return nn.Sequential(stages, torchvision.ops.Permute([0, 3, 1, 2]))


def cut(name: str, last: str | None = None) -> nn.Module:
    """Build torchvision's network up to a child, without its auxiliary heads."""
    model = torchvision.models.get_model(name, weights=None, **({"init_weights": False} if "inc" in name else {}))
    if last is None:
        return model.features
    children = dict(model.named_children())
    kept = list(children)[: list(children).index(last) + 1]
    return nn.Sequential(*(children[child] for child in kept if not child.lower().startswith("aux")))


def densenet(narrow: bool = False) -> nn.Module:
    """Build DenseNet-121, or the same kernels on a few channels."""
    if narrow:
        return torchvision.models.DenseNet(2, (6, 12, 24, 16), 4, bn_size=1).features
    return cut("densenet121")


def closed_form(*layers: tuple[int, int]) -> int:
    """Compute the extent of a chain of (kernel, stride), px."""
    extent, jump = 1, 1
    for kernel, stride in layers:
        extent, jump = extent + (kernel - 1) * jump, jump * stride
    return extent


def stages(blocks: tuple[int, ...], block: list[int]) -> list[tuple[int, int]]:
    """List (kernel, stride) of a ResNet: the first 3 x 3 of a stage carries its stride."""
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
    """Describe one network.

    Attributes:
        name: What it is called.
        build: Builds it.
        size: Axes of the image, px.
        channels: Channels of the image.
        truth: Extent and jump by the closed form, px, or None if they are measured.
        measured: Size of the image on which the truth is measured, or None if it is not.
        gradients: Size of the image that receptivefield gets.
        units: Number of neighbours in the middle that are looked at: a whole period of what differs between them.
        sequential: Whether it is one path of modules, which is what torchscan claims.
        whole: Whether units see the whole image.
        large_enough: Whether receptivefield may have an image larger than the field.
        linear: Whether it may have a linear copy.
        narrow: Builds the same kernels on fewer channels, where gradients take too much memory.
        jump: Distance between neighbouring units, px, if it is not measured.
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
    """Describe a network of torchvision, whose truth is the closed form."""
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
    """Describe all networks."""
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


def deep() -> dict[str, Callable[[], nn.Module]]:
    """Return what builds each network of about 200 layers."""

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
