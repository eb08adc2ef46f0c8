"""Build the two parsing networks of Wei et al. (CVPR 2017), on VGG-16 with an output stride of 8 px.

VGG-16: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015. A trous
conversion: Chen et al., "Semantic image segmentation with deep convolutional nets and fully connected CRFs", ICLR 2015.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rfsearch.backbones.parsing_path import ParsingPath
from rfsearch.errors import ModelError

STRIDE = 8
OFFSET = -0.5  # centre of the first unit behind the features, px
HIDDEN = 1024

# Channels and dilation of the 3x3 convolutions in front of each pool, VGG-16's configuration D.
_STAGES = (
    ((64, 64), 1),
    ((128, 128), 1),
    ((256, 256, 256), 1),
    ((512, 512, 512), 1),
    ((512, 512, 512), 2),
)


def wei_vgg16_helen(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build Wei's network for Helen, whose conv6 is 4x4: B x in_channels x H x W to B x num_classes x H x W."""
    return ParsingPath(vgg16_features(in_channels), 512, STRIDE, num_classes, kernel=4, hidden=HIDDEN)


def wei_vgg16_voc(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build Wei's network for PASCAL VOC, whose conv6 is 3x3: B x in_channels x H x W to B x num_classes x H x W."""
    return ParsingPath(vgg16_features(in_channels), 512, STRIDE, num_classes, kernel=3, hidden=HIDDEN)


class Loading(NamedTuple):
    """Report whether trained weights were put into a model.

    Attributes:
        loaded: Whether they were.
        said: What was done, in a sentence.

    Example:
        >>> load_imagenet_vgg16(wei_vgg16_voc(21), "none").loaded
        False
    """

    loaded: bool
    said: str


def load_imagenet_vgg16(model: nn.Module, source: str) -> Loading:
    """Put ImageNet weights into a model's features. They expect images in [0, 1], normalised by ImageNet's statistics.

    Args:
        model: A model whose features are VGG-16's.
        source: "none"; "hub" for torchvision's weights, downloaded or cached; or the path of a VGG-16 state dict.

    Returns:
        Whether weights were loaded, and a sentence about it. A hub out of reach is not an error.

    Raises:
        ModelError: The path is missing or holds something else, or the weights do not fit.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if source == "none":
        return Loading(False, "The model trains from scratch: no ImageNet weights were asked for.")
    if first is not None and first.in_channels != 3:
        return Loading(
            False,
            f"The model trains from scratch: ImageNet weights read 3 input channels, this model reads "
            f"{first.in_channels}.",
        )
    if source == "hub":
        from torchvision.models import VGG16_Weights

        weights = VGG16_Weights.IMAGENET1K_V1
        try:
            state = weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as cause:
            why = f"The model trains from scratch: the ImageNet weights at {weights.url} are out of reach ({cause})."
            return Loading(False, why)
        origin = f"torchvision's {weights}"
    else:
        state, origin = _read(Path(source)), source
    _fill(model, state, origin)
    return Loading(True, f"ImageNet weights from {origin}.")


def vgg16_features(in_channels: int) -> nn.Sequential:
    """Build conv1_1 to pool5, numbered as torchvision's VGG-16, with an output stride of 8 px.

    pool4 and pool5 keep the size of their map, and what follows pool4 is dilated instead. Their kernels, 2 and 3, are
    our reading of Wei's Table 1: they give the 212 px that the paper prints. Where pool4 is padded is our choice.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for stage, (widths, dilation) in enumerate(_STAGES, start=1):
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
            channels = width
        layers.append(_pool(stage))
    return nn.Sequential(*layers)


def _pool(stage: int) -> nn.Module:
    if stage <= 3:
        return nn.MaxPool2d(2, stride=2)
    if stage == 4:
        # In front: that takes back what the pools of stride 2 have moved the map, and a unit is centred half a pixel in
        # front of the label pixel that it predicts. Behind a ReLU a padded zero never wins a maximum.
        return nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.MaxPool2d(2, stride=1))
    return nn.MaxPool2d(3, stride=1, padding=1)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"ImageNet weights come from 'none', 'hub' or an existing file. Got {str(path)!r}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError) as cause:
        raise ModelError(
            f"ImageNet weights are a state dict saved by torch.save. {path} is not one: {cause}"
        ) from cause
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"ImageNet weights are a state dict, from names to tensors. {path} holds something else.")
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Copy the entries `features.*`, all of them or none."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith("features.")}
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    faults += [f"{name} is not in the model" for name in state if name.startswith("features.") and name not in own]
    if faults or not own:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ModelError(
            f"{origin} does not fit {type(model).__name__}: {shown or 'the model has no features'}. "
            "A VGG-16 state dict with torchvision's names, features.0.weight and so on, fits."
        )
    model.load_state_dict({name: state[name] for name in own}, strict=False)
