"""Build untrained networks of other packages by name: torchvision, timm and segmentation-models-pytorch.

A segmentation network is used as it is. A classifier becomes its feature network, up to its last map, with a 1x1
convolution to the classes behind it, whose logits are enlarged to the image: each pixel gets those of the units around
it, wherever the network puts its units. Four detectors of torchvision are in `torchvision_detectors`. Nothing is
downloaded. timm and segmentation-models-pytorch are optional, and imported when one of their networks is named.

Names of sites: `backbone.layer4.0.conv2` in a segmentation network of torchvision, `net.backbone.body.layer4.0.conv2`
in a detector of it, `features.layer4.0.conv2` in a classifier of it, `net.features.layer4.0.conv2` in one of timm,
`net.encoder.layer4.0.conv2` in a network of segmentation-models-pytorch.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models import segmentation as torchvision_segmentation

from rfsearch.backbones.channels import for_channels
from rfsearch.backbones.grid import Grid, measure_grid
from rfsearch.backbones.torchvision_detectors import DETECTORS, torchvision_detector
from rfsearch.errors import ModelError
from rfsearch.untouched import untouched

# Standard deviation of the head's weights: small logits, so that the first steps see a nearly uniform prediction.
_STD = 0.01
_NAMES_SHOWN = 6

_grids: dict[str, Grid | None] = {}  # of classifiers, by SPEC

_TORCHVISION_SEGMENTATION = torchvision_models.list_models(module=torchvision_segmentation)
# The parts of torchvision's classifiers are registered in the order of their use; at these the features end.
_BEHIND_THE_FEATURES = ("avgpool", "dropout", "classifier", "fc", "head", "heads")


def builder(zoo: str, name: str) -> Callable[..., nn.Module]:
    """Return the callable `(num_classes, in_channels=3) -> nn.Module` of a network.

    Args:
        zoo: A key of ZOOS.
        name: Name of the network in that package.

    Raises:
        ModelError: The package does not have the network, or is not installed.
    """
    return ZOOS[zoo](name)


def trained_state(spec: str, weights: str) -> dict[str, Tensor]:
    """Return the state dict of a zoo's network with trained weights, downloaded or cached.

    Args:
        spec: SPEC of the network.
        weights: Name of the weights: in torchvision such as "DEFAULT" or "IMAGENET1K_V1", of an encoder of
            segmentation-models-pytorch such as "imagenet"; timm has one for each name of a network.

    Raises:
        ModelError: There are no such weights, or they are out of reach.
    """
    zoo, _, name = spec.partition(":")
    try:
        return _TRAINED[zoo](name, weights)
    except ModelError:
        raise
    except (KeyError, ValueError, AttributeError) as error:
        why = error.args[0] if error.args else error
        raise ModelError(f"backbone {spec!r} has no trained weights {weights!r}: {why}.") from error
    except Exception as error:  # each package downloads by means of its own
        raise ModelError(
            f"backbone {spec!r}: its weights {weights!r} are out of reach: {type(error).__name__}: "
            f"{str(error).rstrip('.')}. Train from scratch, or name a file that holds them: --set weights=FILE."
        ) from error


def _torchvision_state(name: str, weights: str) -> dict[str, Tensor]:
    known = torchvision_models.get_model_weights(name)
    if weights not in known.__members__:
        raise ModelError(
            f"backbone 'torchvision:{name}' has no trained weights {weights!r}. It has {', '.join(known.__members__)}."
        )
    return dict(known[weights].get_state_dict(progress=False, check_hash=True))


def _timm_state(name: str, weights: str) -> dict[str, Tensor]:
    timm = _import_optional("timm", "timm", f"timm:{name}")
    return dict(timm.create_model(name, pretrained=True, features_only=True, out_indices=(-1,)).state_dict())


def _smp_state(name: str, weights: str) -> dict[str, Tensor]:
    smp = _import_optional("segmentation_models_pytorch", "segmentation-models-pytorch", f"smp:{name}")
    return dict(smp.encoders.get_encoder(name.partition("/")[2], weights=weights).state_dict())


_TRAINED = {"torchvision": _torchvision_state, "timm": _timm_state, "smp": _smp_state}


class Classifier(nn.Module):
    """Label pixels by a classifier's features and a 1x1 convolution: B x C x H x W to B x classes x H x W.

    Args:
        features: Returns the last map, or a list of maps that ends in it.
        channels: Channels of that map, B x channels x h x w.
        num_classes: Channels of the output.
        channels_last: Whether the map is B x h x w x channels.

    Attributes:
        grid: Where the map's units lie on the image. Without it, logits stay at the map's size.

    Example:
        >>> net = Classifier(torch.nn.Conv2d(3, 8, 3, stride=4, padding=1), channels=8, num_classes=5)
        >>> net(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 5, 8, 8])
    """

    grid: Grid | None = None

    def __init__(self, features: nn.Module, channels: int, num_classes: int, channels_last: bool = False) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Conv2d(channels, num_classes, 1)
        self._channels_last = channels_last
        nn.init.normal_(self.head.weight, std=_STD)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Map B x C x H x W to B x classes x H x W, or to the size of the map without a grid."""
        maps = self.features(image)
        x = maps if isinstance(maps, Tensor) else maps[-1]
        logits: Tensor = self.head(x.permute(0, 3, 1, 2) if self._channels_last else x)
        return self.grid.enlarge(logits, image.shape[-2:]) if self.grid else logits


class Padded(nn.Module):
    """Let a network that needs sides divisible by `multiple` px accept every image.

    An image of other sides is padded with zeros on the right and below, and its logits are cut back to the image's
    size, after they were enlarged bilinearly if they are coarser.

    Args:
        net: The network.
        multiple: What sides must be divisible by, px.
        spec: SPEC of the network, for messages.
        only: (H, W) of the images that it accepts, px, or None if it accepts all. Another size is a ModelError.

    Example:
        >>> Padded(torch.nn.Conv2d(3, 5, 1), 8, "mine")(torch.randn(1, 3, 30, 20)).shape
        torch.Size([1, 5, 30, 20])
    """

    def __init__(self, net: nn.Module, multiple: int, spec: str, only: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net = net
        self.multiple = multiple
        self._spec = spec
        self._only = tuple(only) if only else None

    def forward(self, image: Tensor) -> Tensor:
        """Map B x C x H x W to B x classes x H x W."""
        height, width = image.shape[-2:]
        if self._only and (height, width) != self._only:
            raise ModelError(
                f"{self._spec} takes images of one size, {self._only[0]} x {self._only[1]} px (H x W). "
                f"Got {height} x {width}. Set image_size = {list(self._only)} in the space (--input "
                f"3x{self._only[0]}x{self._only[1]} of rf and sites), or take another network."
            )
        below, right = -height % self.multiple, -width % self.multiple
        if not below and not right:
            fitting: Tensor = self.net(image)
            return fitting
        padded = F.pad(image, (0, right, 0, below))
        logits: Tensor = self.net(padded)
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def _torchvision(name: str) -> Callable[..., nn.Module]:
    if name in _TORCHVISION_SEGMENTATION:
        return partial(_torchvision_segmentation, name)
    if name in DETECTORS:
        return torchvision_detector(name)
    classifiers = torchvision_models.list_models(module=torchvision_models)
    if name in classifiers:
        return partial(_torchvision_classifier, name)
    raise ModelError(
        f"backbone 'torchvision:{name}': torchvision has no such network."
        f"{_closest_names(name, [*_TORCHVISION_SEGMENTATION, *DETECTORS, *classifiers])} It labels pixels with "
        f"{', '.join(_TORCHVISION_SEGMENTATION)}, detects objects with {', '.join(DETECTORS)}, and has "
        f"{len(classifiers)} classifiers."
    )


def _torchvision_segmentation(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    net = torchvision_models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False
    )
    return for_channels(net, in_channels)


def _torchvision_classifier(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    # Two of them come with auxiliary classifiers.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    net = for_channels(torchvision_models.get_model(name, weights=None, **extra), in_channels)
    features = nn.Sequential()
    for child_name, child in net.named_children():
        if child_name in _BEHIND_THE_FEATURES:
            break
        features.add_module(child_name, child)
    spec = f"torchvision:{name}"
    net = Classifier(features, _count_channels(features, in_channels, spec), num_classes)
    return _with_grid(net, spec, (1, in_channels, 256, 256))


def _with_grid(net: Classifier, spec: str, shape: Sequence[int]) -> Classifier:
    """Give a classifier the grid of its units, measured once for each SPEC, on images of that shape."""
    if spec not in _grids:
        _grids[spec] = measure_grid(net, shape)
    net.grid = _grids[spec]
    return net


def _count_channels(features: nn.Module, in_channels: int, spec: str) -> int:
    """Count the channels of a feature network's last map, by sending an empty image through it."""
    try:
        last = _map_of_empty_image(features, in_channels, 96, 96)
    except Exception as error:
        raise ModelError(
            f"backbone {spec!r}: no map of features precedes its classifier. torchvision labels pixels with "
            f"{', '.join(_TORCHVISION_SEGMENTATION)}."
        ) from error
    return int(last.shape[1])


def _timm(name: str) -> Callable[..., nn.Module]:
    timm = _import_optional("timm", "timm", f"timm:{name}")
    if not timm.is_model(name):
        known = f"It has {len(timm.list_models())}, timm.list_models('*{name[:4]}*') finds some."
        raise ModelError(
            f"backbone 'timm:{name}': timm has no such network.{_closest_names(name, timm.list_models())} {known}"
        )
    return partial(_timm_classifier, name)


def _timm_classifier(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    timm = _import_optional("timm", "timm", f"timm:{name}")
    make = partial(
        timm.create_model, name, pretrained=False, features_only=True, out_indices=(-1,), in_chans=in_channels
    )
    try:  # networks with position embeddings or windows fit them to every image if asked to
        features = make(dynamic_img_size=True)
    except TypeError:
        features = make()
    stride = features.feature_info.reduction()[-1]
    only = None
    try:
        _map_of_empty_image(features, in_channels, 3 * stride, 4 * stride)
    except Exception:  # windows and position embeddings of a fixed size raise errors of any kind
        only = timm.get_pretrained_cfg(name).input_size[1:]
    channels_last = getattr(features, "output_fmt", "NCHW") == "NHWC"
    net = Classifier(features, features.feature_info.channels()[-1], num_classes, channels_last)
    size = tuple(only) if only else (8 * stride, 8 * stride)
    net = _with_grid(net, f"timm:{name}", (1, in_channels, *size))
    return Padded(net, 1 if only else stride, f"timm:{name}", only)


def _smp(name: str) -> Callable[..., nn.Module]:
    spec = f"smp:{name}"
    smp = _import_optional("segmentation_models_pytorch", "segmentation-models-pytorch", spec)
    architecture, _, encoder = name.partition("/")
    architectures = list(smp.MODEL_ARCHITECTURES_MAPPING)
    if architecture.lower() not in architectures:
        raise ModelError(
            f"backbone {spec!r} is smp:ARCH/ENCODER, with one of {', '.join(architectures)} for ARCH."
            f"{_closest_names(architecture, architectures)}"
        )
    encoders = smp.encoders.get_encoder_names()
    if encoder not in encoders and not encoder.startswith("tu-"):
        raise ModelError(
            f"backbone {spec!r}: segmentation-models-pytorch has no encoder {encoder!r}."
            f"{_closest_names(encoder, encoders)} "
            f"It has {len(encoders)}, and those of timm as tu-NAME."
        )
    return partial(_smp_segmentation, architecture, encoder)


def _smp_segmentation(architecture: str, encoder: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    spec = f"smp:{architecture}/{encoder}"
    smp = _import_optional("segmentation_models_pytorch", "segmentation-models-pytorch", spec)
    # The one decoder for transformers fits its encoder's position embedding to every image if asked to, and halves its
    # map once more.
    transformer = architecture.lower() == "dpt"
    extra = {"dynamic_img_size": True} if transformer else {}
    net = smp.create_model(architecture, encoder, None, in_channels, num_classes, **extra)
    return Padded(net, net.encoder.output_stride * (2 if transformer else 1), spec)


ZOOS: Mapping[str, Callable[[str], Callable[..., nn.Module]]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "smp": _smp,
}
"""By the prefix of a SPEC: from a network's name to its callable."""


def _import_optional(module: str, package: str, spec: str) -> Any:
    """Import a module that a package of its own provides. `package` is its name on an index."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"backbone {spec!r}: the package {module} cannot be imported ({error}). Run `pip install {package}`."
        ) from error


def _closest_names(wanted: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name, where there are too many names to print all."""
    close = difflib.get_close_matches(wanted, list(known), n=_NAMES_SHOWN, cutoff=0.5)
    return f" Closest: {', '.join(close)}." if close else ""


def _map_of_empty_image(features: nn.Module, in_channels: int, height: int, width: int) -> Any:
    """Return what a feature network makes of an empty image, and leave its state as it was."""
    image = torch.zeros(1, in_channels, height, width, device=next(features.parameters()).device)
    with untouched(features), torch.no_grad():
        features.eval()
        return features(image)
