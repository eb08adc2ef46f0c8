"""What detectors keep to, and outputs and images with which the task of detection is checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfsearch.data import ImageSet
from rfsearch.data.rendered_objects import rendered_objects
from rfsearch.detector import Detected, Detecting, Objects
from rfsearch.planning.forecaster import shapes_only
from rfsearch.receptive import receptive_field
from rfsearch.testing.rules import hold
from rfsearch.testing.tasks import Outputs
from rfsearch.training.meter import Meter

MakeBackbone = Callable[..., nn.Module]

_SIZE = (96, 128)  # H x W, px
_CLASSES = 3
_TOLERANCE = 1e-4


def boxed_objects() -> ImageSet:
    """Draw a few images with boxes, for the checks of tasks that take such."""
    return rendered_objects(6, 5, 2, (64, 64))


def grid_outputs(data: ImageSet) -> Outputs:
    """Return outputs for the checks of detection: each unit of a map finds the object whose centre is in it, if any."""
    return Outputs(
        lambda task: task.out_channels + 4, lambda maps: [_GridOutput(maps, data.image_size)], absence_says=True
    )


class _GridOutput:
    """Keep to `Detecting` by a map of class logits and, behind them, four distances to a box's edges for each unit."""

    def __init__(self, maps: Tensor, size: tuple[int, int]) -> None:
        self.out, self._size = maps, size

    def loss(self, objects: Sequence[Objects]) -> Tensor:
        logits, edges = self.out[:, :-4], self._boxes()
        wanted, apart = torch.zeros_like(logits), self.out.new_zeros(())
        for image, one in enumerate(objects):
            for box, label in zip(one.boxes, one.labels, strict=True):
                row, column = self._unit_of(box)
                wanted[image, label, row, column] = 1
                apart = apart + (edges[image, :, row, column] - box).abs().mean()
        return F.binary_cross_entropy_with_logits(logits, wanted) * 100 + apart / max(self._size)

    def detections(self) -> list[Detected]:
        boxes, scores = self._boxes().flatten(2), self.out[:, :-4].sigmoid().flatten(2)
        found = []
        for own, score in zip(boxes, scores, strict=True):
            best, label = score.max(dim=0)
            order = best.argsort(descending=True, stable=True)[:20]
            found.append(Detected(own[:, order].T, best[order], label[order]))
        return found

    def _unit_of(self, box: Tensor) -> tuple[int, int]:
        middles = ((box[1] + box[3]) / 2, (box[0] + box[2]) / 2)
        pairs = zip(middles, self.out.shape[-2:], self._size, strict=True)
        row, column = (min(int(float(middle) * units / side), units - 1) for middle, units, side in pairs)
        return row, column

    def _boxes(self) -> Tensor:
        """Return B x 4 x h x w boxes, px."""
        (height, width), (rows, columns) = self._size, self.out.shape[-2:]
        down = (torch.arange(rows) + 0.5).to(self.out)[:, None].expand(rows, columns) * (height / rows)
        across = (torch.arange(columns) + 0.5).to(self.out).expand(rows, columns) * (width / columns)
        centres = torch.stack([across, down, across, down])
        return centres + self.out[:, -4:] * 16


def detector_keeps_to_its_contract(make: MakeBackbone) -> None:
    """Check that what it returns has a loss, whose gradient is finite, and detections, best first and in the image."""
    net = _made(make)
    images, objects = _images(2), _objects()
    output = net.train()(images)
    hold(
        isinstance(output, Detecting), f"a detector returns `loss`, `detections` and `out`. Got {type(output).__name__}"
    )
    loss = output.loss(objects)
    hold(loss.ndim == 0 and bool(loss.isfinite()), f"a loss is one finite number. Got {loss.detach()}")
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    hold(bool(gradients) and all(bool(g.isfinite().all()) for g in gradients), "its gradients are finite")
    with torch.no_grad():
        for one in _found(net.eval(), images):
            hold(len({len(part) for part in one}) == 1, "each detection has a box, a score and a label")
            if not len(one.scores):
                continue
            hold(bool((one.scores.diff() <= _TOLERANCE).all()), "detections are sorted, best first")
            inside = (one.boxes >= -1).all() & (one.boxes[:, [0, 2]] <= _SIZE[1] + 1).all()
            hold(bool(inside & (one.boxes[:, [1, 3]] <= _SIZE[0] + 1).all()), "boxes lie in the image")
            hold(bool(((one.labels >= 0) & (one.labels < _CLASSES)).all()), f"labels lie in 0..{_CLASSES - 1}")


def detector_learns_from_images_without_objects(make: MakeBackbone) -> None:
    """Check that images without any object give a finite loss."""
    nothing = [Objects(one.boxes[:0], one.labels[:0], one.proposals) for one in _objects()]
    loss = _made(make).train()(_images(2)).loss(nothing)
    hold(bool(loss.isfinite()), f"the loss of images without objects is finite. Got {loss.detach()}")


def detector_takes_each_image_for_itself(make: MakeBackbone) -> None:
    """Check that in evaluation an image's detections do not depend on its batch, and are the same each time."""
    net, images = _made(make).eval(), _images(2)
    with torch.no_grad():
        both, alone = _found(net, images), [_found(net, image[None])[0] for image in images]
    for one, other in zip(both, alone, strict=True):
        hold(len(one.scores) == len(other.scores), "an image's detections do not depend on the others of its batch")
        hold(
            torch.allclose(one.scores, other.scores, atol=_TOLERANCE),
            "scores of an image do not depend on the others of its batch",
        )


def detector_is_followed_on_shapes(make: MakeBackbone) -> None:
    """Check that its maps are made on shapes alone, and that the receptive field of `out` can be followed."""
    net = _made(make).eval()
    field = receptive_field(net, (1, 3, *_SIZE))
    hold(field.px > 1, f"a detector's unit sees more than a pixel. Got {field.px}")
    with torch.no_grad(), Meter() as meter:
        output = shapes_only(copy.deepcopy(net))(_images(1).to("meta"))
    hold(output.out.is_meta and meter.flop > 0, "a detector runs on tensors without values, up to its maps")


def detector_can_be_restored(make: MakeBackbone) -> None:
    """Check that its state dict holds all that its detections follow from."""
    net, images = _made(make).eval(), _images(1)
    other = _made(make, seed=1).eval()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        one, same = _found(net, images)[0], _found(other, images)[0]
    hold(torch.equal(one.scores, same.scores), "a network restored from a state dict finds the same")


DETECTOR_CHECKS: tuple[Callable[[MakeBackbone], None], ...] = (
    detector_keeps_to_its_contract,
    detector_learns_from_images_without_objects,
    detector_takes_each_image_for_itself,
    detector_is_followed_on_shapes,
    detector_can_be_restored,
)


def _made(make: MakeBackbone, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make(_CLASSES, 3)


def _images(count: int) -> Tensor:
    return torch.randn(count, 3, *_SIZE, generator=torch.Generator().manual_seed(0))


def _proposals() -> Tensor:
    corners = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([64.0, 48.0])
    sides = 8 + 40 * torch.rand(12, 2, generator=torch.Generator().manual_seed(1))
    return torch.cat([corners, corners + sides], dim=1)


def _objects() -> list[Objects]:
    boxes = torch.tensor([[10.0, 12.0, 50.0, 44.0], [60.0, 30.0, 110.0, 90.0]])
    return [
        Objects(boxes, torch.tensor([0, 2]), _proposals()),
        Objects(boxes[:1], torch.tensor([1]), _proposals()),
    ]


def _found(net: nn.Module, images: Tensor) -> list[Detected]:
    """Return what a network finds; one that proposes its own regions ignores these."""
    found: list[Detected] = net(images, [_proposals()] * len(images)).detections()
    return found
