"""What every backbone keeps to: any classes, channels and sizes, repeatable weights, a cost that can be forecast."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.outputs import require_maps
from rfsearch.planning.forecaster import shapes_only
from rfsearch.testing.rules import hold, same
from rfsearch.training.meter import Meter

MakeBackbone = Callable[..., nn.Module]

# H x W, px: one that strides divide, and one of odd sides.
_IMAGE_SIZES = ((96, 128), (97, 131))
_CLASSES = 5
_CHANNELS = 3
# Of a value computed in two ways, in single precision, through a few dozen layers.
_TOLERANCE = 1e-3


def backbone_builds_for_any_classes_and_channels(make: MakeBackbone) -> None:
    """Check `(num_classes, in_channels=3)`: as many logits as classes, from images of that many channels."""
    for arguments in ((2,), (11, 3), (_CLASSES, 1), (_CLASSES, 4)):
        try:
            net = make(*arguments)
        except Exception as error:
            raise AssertionError(
                f"a backbone builds for (num_classes, in_channels=3). {arguments} gave {error!r}"
            ) from error
        hold(isinstance(net, nn.Module), f"a backbone is a torch.nn.Module. Got {type(net).__name__}")
        channels = arguments[1] if len(arguments) > 1 else 3
        _logits(net.eval(), _images(2, _IMAGE_SIZES[0], channels), arguments[0])


def backbone_takes_images_of_any_size(make: MakeBackbone) -> None:
    """Check for finite logits no larger than the image, at sides that strides divide and odd ones, in any batch."""
    net = make(_CLASSES, _CHANNELS).eval()
    for size in _IMAGE_SIZES:
        for batch in (1, 2):
            logits = _logits(net, _images(batch, size), _CLASSES)
            height, width = logits.shape[-2:]
            hold(
                height <= size[0] and width <= size[1],
                f"logits are no larger than the image, {size[0]} x {size[1]} px. Got {height} x {width}",
            )
            hold(bool(logits.isfinite().all()), "the logits of a new network are finite. Got inf or nan")


def backbone_is_the_same_for_the_same_seed(make: MakeBackbone) -> None:
    """Check that torch.manual_seed decides every weight, so that a trial can be repeated."""
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(make(_CLASSES, _CHANNELS).state_dict())
    same(list(states[0]), list(states[1]), "two networks have the same parameters and buffers")
    for name, value in states[0].items():
        hold(torch.equal(value, states[1][name]), f"torch.manual_seed decides every weight. It does not decide {name}")


def backbone_is_deterministic_in_evaluation(make: MakeBackbone) -> None:
    """Check that one image always gives the same logits, and leaves parameters and buffers as they were."""
    net = make(_CLASSES, _CHANNELS).eval()
    before = copy.deepcopy(net.state_dict())
    images = _images(2, _IMAGE_SIZES[0])
    first, second = (_logits(net, images, _CLASSES) for _ in range(2))
    hold(torch.equal(first, second), "in evaluation the same images give the same logits. Got two answers")
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    hold(not changed, f"evaluation changes no parameter and no buffer. It changed {changed}")


def backbone_takes_each_image_for_itself(make: MakeBackbone) -> None:
    """Check that in evaluation an image's logits do not depend on the others of its batch."""
    net = make(_CLASSES, _CHANNELS).eval()
    images = _images(3, _IMAGE_SIZES[0])
    together = _logits(net, images, _CLASSES)
    for i in range(len(images)):
        alone = _logits(net, images[i : i + 1], _CLASSES)
        hold(
            _close(alone[0], together[i]),
            "in evaluation an image's logits do not depend on the others of its batch. They differ by "
            f"{(alone[0] - together[i]).abs().max():.3g}",
        )


def backbone_lets_gradients_reach_every_parameter(make: MakeBackbone) -> None:
    """Check that gradients reach every parameter with `requires_grad`: another one should not be there."""
    net = make(_CLASSES, _CHANNELS).train()
    output = net(_images(2, _IMAGE_SIZES[0]))
    require_maps(output, 2, _CLASSES, "under test").square().mean().backward()
    missed = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    hold(not missed, f"a gradient reaches every parameter that requires one. None reaches {missed}")
    wild = [name for name, p in net.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    hold(not wild, f"the gradients of a new network are finite. Those of {wild} are not")


def backbone_can_be_copied_and_restored(make: MakeBackbone) -> None:
    """Check that copy.deepcopy gives an independent network, and the state dict holds all that training changes."""
    net = make(_CLASSES, _CHANNELS)
    net.train()(_images(2, _IMAGE_SIZES[0]))
    images = _images(1, _IMAGE_SIZES[0])
    expected = _logits(net.eval(), images, _CLASSES)
    twin, fresh = copy.deepcopy(net), make(_CLASSES, _CHANNELS)
    fresh.load_state_dict(net.state_dict())
    for other, how in ((twin, "copied with copy.deepcopy"), (fresh.eval(), "restored from its state dict")):
        hold(
            _close(_logits(other, images, _CLASSES), expected),
            f"a network {how} gives the logits of the original. Got others",
        )
        with torch.no_grad():
            for parameter in other.parameters():
                if parameter.ndim > 1:  # scalars may have bounds that zero is beyond
                    parameter.zero_()
        hold(
            not _close(_logits(other, images, _CLASSES), expected) and _close(_logits(net, images, _CLASSES), expected),
            f"a network {how} has parameters of its own: changing them changes it, and the original not",
        )


def backbone_can_be_forecast(make: MakeBackbone) -> None:
    """Check that a training step runs on tensors without values (PyTorch's `meta` device), every operator counted."""
    net = shapes_only(make(_CLASSES, _CHANNELS)).train()
    try:
        with Meter() as meter:
            output = net(_images(2, _IMAGE_SIZES[0]).to("meta"))
            require_maps(output, 2, _CLASSES, "under test").square().mean().backward()
    except Exception as error:
        raise AssertionError(
            "a backbone runs on tensors without values, whose sizes depend on no value, and every operator of it has a "
            f"FLOP count. This one raised {error!r}"
        ) from error
    hold(meter.metered.flop > 0, "a training step costs some FLOP. Got 0")


BACKBONE_CHECKS: tuple[Callable[[MakeBackbone], None], ...] = (
    backbone_builds_for_any_classes_and_channels,
    backbone_takes_images_of_any_size,
    backbone_is_the_same_for_the_same_seed,
    backbone_is_deterministic_in_evaluation,
    backbone_takes_each_image_for_itself,
    backbone_lets_gradients_reach_every_parameter,
    backbone_can_be_copied_and_restored,
    backbone_can_be_forecast,
)


def _images(count: int, size: tuple[int, int], channels: int = _CHANNELS) -> Tensor:
    """Return normalised noise, always the same: count x channels x H x W."""
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(0))


def _logits(net: nn.Module, images: Tensor, num_classes: int) -> Tensor:
    """Return the logits of a network in evaluation; whatever else it gives breaks the contract."""
    try:
        with torch.no_grad():
            output = net(images)
    except Exception as error:
        raise AssertionError(f"a backbone takes images of {tuple(images.shape)}. This one raised {error!r}") from error
    try:
        return require_maps(output, len(images), num_classes, "under test")
    except ModelError as error:
        raise AssertionError(str(error)) from error


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * (b.abs().max() + 1e-6))
