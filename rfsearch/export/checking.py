"""Hold what was exported against the trained network, on real images of two sizes and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rfsearch.export.deployed import Deployed, Graph, Outputs

TOLERANCE = 1e-4  # largest difference between the outputs of the network and of what was exported
LARGE_TOLERANCE = 1e-5  # the same where outputs are large, as those of maps may be: a share of the largest one
HALF_TOLERANCE = 0.02  # the same in half precision, as a share of the largest output
_STEPS = (1, 2, 4, 8, 16, 32, 64, 128)  # px: a second size is a multiple of the smallest of these that will do
Size = tuple[int, int]


@dataclass(frozen=True)
class Check:
    """Hold one comparison.

    Attributes:
        runtime: What ran the file.
        images: Number of images at a time.
        size: (H, W) of an image, px.
        difference: Largest difference of outputs; for class ids, by how much the network's output of the class that was
            called falls short of its largest one, at most.
        allowed: Largest difference that is taken for rounding.
    """

    runtime: str
    images: int
    size: Size
    difference: float
    allowed: float

    @property
    def failed(self) -> bool:
        """Whether the outputs differ by more than rounding; also if one is no number."""
        return not self.difference <= self.allowed


@dataclass(frozen=True)
class Sample:
    """Hold images and what the trained network makes of them.

    Attributes:
        images: B x C x H x W, as the graph takes them.
        expected: The network's outputs, most often one, in single precision.
    """

    images: Tensor
    expected: tuple[Tensor, ...]

    @property
    def size(self) -> Size:
        """(H, W) of an image, px."""
        height, width = self.images.shape[-2:]
        return height, width

    def compare(self, runtime: str, run: Callable[[Tensor], Outputs], graph: Graph, at_once: int) -> Check:
        """Run images so many at a time, and compare.

        Args:
            runtime: Its name.
            run: Runs them.
            graph: What is run.
            at_once: Number of images at a time.
        """
        with torch.no_grad():
            parts = [together(run(some)) for some in self.images.split(at_once)]
        got = [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
        if graph.argmax:
            (expected,), (ids,) = self.expected, got
            called = expected.gather(1, ids.long()[:, None])[:, 0]
            difference = float((expected.max(1).values - called).max())
        else:
            apart = [(one - other).abs().max() for one, other in zip(got, self.expected, strict=True)]
            difference = float(torch.stack(apart).max())  # NaN where any is
        largest = max(float(expected[expected.isfinite()].abs().max()) for expected in self.expected)
        allowed = max(TOLERANCE, (HALF_TOLERANCE if graph.half else LARGE_TOLERANCE) * largest)
        return Check(runtime, at_once, self.size, difference, allowed)


class Samples:
    """Make samples of the images of a run.

    Args:
        reference: The trained network, with what goes around it but class ids.
        pixels: B x C x H x W uint8, of the run's size.
    """

    def __init__(self, reference: Deployed, pixels: Tensor) -> None:
        self._reference, self._pixels = reference, pixels

    def at(self, size: Size) -> Sample:
        """Return a sample of resized images.

        Raises:
            Exception: Whatever the network raises for this size.
        """
        pixels = self._pixels
        if tuple(pixels.shape[-2:]) != size:
            pixels = F.interpolate(pixels.float(), size=size, mode="bilinear", align_corners=False).round().byte()
        images = pixels if self._reference.graph.normalise else normalised(pixels)
        with torch.no_grad():
            expected = together(self._reference(images))
            if (ignored := self._reference.ignored) is not None:
                (logits,) = expected
                logits = logits.clone()
                logits[:, ignored] = -torch.inf
                expected = (logits,)
        return Sample(images, expected)

    def elsewhere(self) -> Sample | None:
        """Return a sample of another size, its sides as odd as the network takes; None if it takes no other."""
        height, width = self._pixels.shape[-2:]
        for step in _STEPS:
            size = _multiple(height * 5 // 4, step), _multiple(width * 5 // 4, step) + 2 * step
            if size[0] == size[1]:
                size = size[0], size[1] + step
            try:
                return self.at(size)
            except Exception:  # networks say in many ways that they want a multiple of something
                continue
        return None


def together(outputs: Outputs) -> tuple[Tensor, ...]:
    """Return all that a graph returns as a tuple."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def normalised(pixels: Tensor) -> Tensor:
    """Return bytes, B x C x H x W, as a network takes them."""
    from rfsearch.export.deployed import Normalise

    made: Tensor = Normalise(pixels.shape[1])(pixels)
    return made


def comparisons(
    samples: Sequence[Sample], runtime: str, run: Callable[[Tensor], Outputs], graph: Graph, batch: int | None
) -> Iterator[Check]:
    """Compare on every sample, all images at once and, if any number goes, the first sample one by one too."""
    for number, sample in enumerate(samples):
        yield sample.compare(runtime, run, graph, batch or len(sample.images))
        if batch is None and number == 0 and len(sample.images) > 1:
            yield sample.compare(runtime, run, graph, 1)


def _multiple(number: int, step: int) -> int:
    """Return an odd multiple of a step that is near a number and not below the step."""
    count = max(1, number // step)
    return (count if count % 2 else count + 1) * step
