"""Say what of a network's surroundings goes into an exported graph, and put it around the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.data.batches import channel_statistics
from rfsearch.errors import RequestError
from rfsearch.outputs import exported_outputs

_MOST = 2**13  # images, or px: what a dimension may be at most


@dataclass(frozen=True)
class Graph:
    """Say what an exported graph takes, holds and returns.

    Attributes:
        normalise: Whether it takes bytes, 0 to 255, and normalises them itself.
        upsample: Whether its output has the size of the image.
        argmax: Whether it returns class ids in place of the network's output.
        half: Whether it computes in half precision. What it takes and returns stays as it is without.
        size: The only size of an image that it takes, (H, W) px. None: any, if the network can.
        batch: The only number of images that it takes at a time. None: any, if the network can.
        opset: Version of ONNX's operators. None: that of torch's exporter.

    Raises:
        RequestError: A number is out of its range.

    Example:
        >>> Graph(normalise=True, upsample=True, argmax=True, half=True)
        Graph(normalise=True, upsample=True, argmax=True, half=True, size=None, batch=None, opset=None)
    """

    normalise: bool = False
    upsample: bool = False
    argmax: bool = False
    half: bool = False
    size: tuple[int, int] | None = None
    batch: int | None = None
    opset: int | None = None

    def __post_init__(self) -> None:
        for name, numbers in (
            ("--size", self.size or ()),
            ("--batch", (self.batch,) if self.batch is not None else ()),
        ):
            if not all(1 <= number <= _MOST for number in numbers):
                raise RequestError(f"{name} is from 1 to {_MOST}. Got {' x '.join(map(str, numbers))}.")

    @property
    def plain(self) -> Graph:
        """The same with the network's values in place of class ids, in single precision."""
        return Graph(self.normalise, self.upsample)


class Normalise(nn.Module):
    """Normalise bytes as in training: B x C x H x W uint8 to float32.

    Args:
        channels: C.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        mean, std = (torch.from_numpy(values)[:, None, None] for values in channel_statistics(channels))
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("offset", (-mean / std).float())

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise B x C x H x W."""
        return pixels.float() * self.scale + self.offset


Outputs = Tensor | tuple[Tensor, ...]
"""What a graph returns: one tensor, or several where a network has no single output."""


class Deployed(nn.Module):
    """Run a network as an exported graph does: B x C x H x W to its output itself, and nothing around that.

    Args:
        network: The network.
        channels: C.
        graph: What goes around it.
        ignored: A class id that no pixel gets, or None.
    """

    def __init__(self, network: nn.Module, channels: int, graph: Graph, ignored: int | None = None) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        if graph.half:
            self.network.half()
        self.normalise = Normalise(channels) if graph.normalise else nn.Identity()
        self.graph, self.ignored = graph, ignored

    def forward(self, image: Tensor) -> Outputs:
        """Run the network."""
        x = self.normalise(image)
        outputs = tuple(exported_outputs(self.network(x.half() if self.graph.half else x)).values())
        if self.graph.half:
            outputs = tuple(output.float() for output in outputs)
        if len(outputs) > 1:
            return outputs
        output = outputs[0]
        if self.graph.upsample:
            output = F.interpolate(output, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return self.called(output) if self.graph.argmax else output

    def called(self, output: Tensor) -> Tensor:
        """Return the class of each pixel: B x classes x h x w to B x h x w int32."""
        if self.ignored is not None:
            barred = torch.zeros(output.shape[1])
            barred[self.ignored] = -math.inf
            output = output + barred[:, None, None]
        return output.argmax(1).to(torch.int32)
