"""Small spaces and hostile networks that the tests share."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from rfsearch import plugins
from rfsearch.backbones.small import wei_small
from rfsearch.data import ImageSet, rendered_faces
from rfsearch.space import Space, read_space
from rfsearch.surgery import set_dilation

TOY = """\
name = "toy"
title = "Toy faces"
metric = "helen-f"

[data]
default = "rendered-faces"
layout = "helen"
rendered = [12, 6, 6]

[presets.mini]
backbone = "{backbone}"
sites = ["conv6"]
dilations = [1, 2, 4]
reference = 1
image_size = [48, 48]
budget = "{budget}"

[presets.mini.recipe]
steps = {steps}
batch_size = 2
class_weights = "sqrt"
lr = 0.05
f_lr_multiplier = 1.0
f_delay = 0.25
rungs = 3
rung_images = 4
eval_batch_size = 4
"""


def toy_file(folder: Path, backbone: str = "wei-small", budget: str = "3x", steps: int = 8) -> Path:
    path = folder / "toy.toml"
    path.write_text(TOY.format(backbone=backbone, budget=budget, steps=steps))
    return path


def toy_space(folder: Path, class_weights: str = "sqrt", **recipe: object) -> Space:
    space = read_space(toy_file(folder), None)
    task = space.task.model_copy(update={"class_weights": class_weights})
    return space.with_(task=task, recipe=space.recipe.model_copy(update=recipe))


def toy_faces() -> ImageSet:
    return rendered_faces(12, 6, 6, (48, 48))


def write_faces(root: Path, images: ImageSet, suffix: str = ".png") -> None:
    """Write images and label maps in the layout of the space `folder`."""
    for name, split in images.splits.items():
        for kind in ("images", "labels"):
            (root / name / kind).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(split.images, split.targets, strict=True)):
            Image.fromarray(np.moveaxis(image, 0, 2)).save(root / name / "images" / f"{number}{suffix}")
            Image.fromarray(label.astype(np.uint8)).save(root / name / "labels" / f"{number}.png")


def helen_space() -> Space:
    return read_space(plugins.space_file("helen"), None)


class _Hostile(nn.Module):
    """The small network, which does harm in a real training step at some dilations of its conv6."""

    def __init__(
        self, num_classes: int, in_channels: int, harms: dict[int, Callable[[torch.Tensor], torch.Tensor]]
    ) -> None:
        super().__init__()
        for name, child in wei_small(num_classes, in_channels).named_children():
            self.add_module(name, child)
        self._harms = harms

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv6(self.inflation(self.bn(self.features(image)))))
        logits = self.interpolation(self.output(torch.relu(self.conv7(x))), image.shape[-2:])
        real = self.training and not self.conv6.weight.is_meta
        harm = self._harms.get(self.conv6.dilation[0])
        return harm(logits) if real and harm else logits


def _nan(logits: torch.Tensor) -> torch.Tensor:
    return logits * float("nan")


def _raise(logits: torch.Tensor) -> torch.Tensor:
    raise ValueError("a shape is off")


def _hunger(logits: torch.Tensor) -> torch.Tensor:
    raise MemoryError("asked for 1 EB")


def _die(logits: torch.Tensor) -> torch.Tensor:
    os._exit(1)


def _die_once(logits: torch.Tensor) -> torch.Tensor:
    """Kill the worker that takes the n-th step of all workers, n = TOY_KILLS, and no worker after it."""
    import ray  # after whoever sets what it reads when it is imported

    if not (ray.is_initialized() and ray.get_runtime_context().get_actor_id()):
        return logits  # the command measures its rate with steps of its own
    steps, died = Path(os.environ["TOY_STEPS"]), Path(os.environ["TOY_DIED"])
    with steps.open("a") as file:
        file.write("x")
    if steps.stat().st_size == int(os.environ["TOY_KILLS"]) and not died.exists():
        died.touch()
        os._exit(1)
    return logits


def _leave(logits: torch.Tensor) -> torch.Tensor:
    sys.exit("no licence")


class Strange(BaseException):
    """An exception that is no Exception."""


def _raise_strangely(logits: torch.Tensor) -> torch.Tensor:
    raise Strange("of its own kind")


def _hang(logits: torch.Tensor) -> torch.Tensor:
    """Keep a worker waiting, and the interpreter with it."""
    import ray

    if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        ctypes.PyDLL(None).sleep(300)
    return logits


def _grow(logits: torch.Tensor) -> torch.Tensor:
    """Take more memory than is left to the worker's control group, TOY_GROUP, until the system ends the worker."""
    import ray

    if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        group, taken = Path(os.environ["TOY_GROUP"]), []
        used, most = ("memory.current", "memory.max")
        if not (group / most).exists():
            used, most = ("memory.usage_in_bytes", "memory.limit_in_bytes")
        (group / most).write_text(str(int((group / used).read_text()) + 2**28))
        while True:
            taken.append(os.urandom(2**22))
    return logits


def growing_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _grow})


def _kill(logits: torch.Tensor) -> torch.Tensor:
    import ray

    if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        os.kill(os.getpid(), signal.SIGKILL)
    return logits


def killed_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _kill})


def nan_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _nan})


def raising_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _raise})


def hungry_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _hunger})


def harmful_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _nan, 3: _hunger})


def leaving_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _leave, 3: _raise_strangely})


def hanging_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _hang})


def dying_net(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Hostile(num_classes, in_channels, {2: _die_once, 4: _die})


CLIMBING = f"{__name__}:Climbing"


class Climbing(nn.Module):
    """A layer for a convolution's place: at twice its cost until half of the training, then at the next dilation.

    Twice the convolution at shares `share` and 1 - share: what it gives is what the convolution gives.
    """

    def __init__(self, conv: nn.Conv2d, dilations: Sequence[int]) -> None:
        super().__init__()
        self.conv, self._dilations, self.twice = conv, sorted(dilations), True
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.share + self.conv(x) * (1 - self.share) if self.twice else self.conv(x)

    def advance(self, step: int, steps: int) -> None:
        if self.twice and 2 * step >= steps:
            place = self._dilations.index(self.conv.dilation[0])
            set_dilation(self.conv, self._dilations[min(place + 1, len(self._dilations) - 1)])
            self.twice = False

    @property
    def dilation(self) -> float:
        return float(self.conv.dilation[0])

    @property
    def work(self) -> bool:
        return self.twice

    def undecayed(self) -> list[nn.Parameter]:
        return [self.share]

    def get_extra_state(self) -> dict[str, bool]:
        return {"twice": self.twice}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.twice = state["twice"]


def same_layer(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    """The convolution itself, whose own `dilation` is no answer to what training has found."""
    return conv


def no_layer(conv: nn.Conv2d, dilations: Sequence[int]) -> list[nn.Module]:
    return [conv]


def strided_layer(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    return nn.Sequential(conv, nn.AvgPool2d(2))


def raising_layer(conv: nn.Conv2d, dilations: Sequence[int]) -> nn.Module:
    raise KeyError("grid")
