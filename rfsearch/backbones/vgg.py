"""Build the parsing networks of Wei et al., to the letter and as we train them: VGG-16 with an output stride of 8 px.

`wei_table1_*` are Table 1 of Wei, Sun, Lin et al., "Learning adaptive receptive fields for deep image parsing
networks", Computational Visual Media 4(3), 2018, and what its text says of them. Its pools are padded on all sides, so
that the map spans more than the image (65 units of 8 px for 500 px) and is squeezed onto it: a unit lies up to 7.5 px
beside the pixel that it predicts, since eq. 8 has no offset.

`wei_vgg16_*` put each unit where it predicts, and have dropout behind conv6 and conv7, as VGG-16 and DeepLab do, and as
many channels in both.

VGG-16: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015. A trous
conversion: Chen et al., "Semantic image segmentation with deep convolutional nets and fully connected CRFs", ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rfsearch.backbones.parsing_path import ParsingPath
from rfsearch.errors import ModelError
from rfsearch.tensor_files import foreign_class, read_tensors

STRIDE = 8
OFFSET = -0.5  # centre of the first unit behind the features, px
FEATURES = "features."  # in front of the names of what trained weights fill
HIDDEN = 1024
DROPOUT = 0.5

# Channels and dilation of the 3x3 convolutions in front of each pool, VGG-16's configuration D.
_STAGES = (
    ((64, 64), 1),
    ((128, 128), 1),
    ((256, 256, 256), 1),
    ((512, 512, 512), 1),
    ((512, 512, 512), 2),
)


def wei_table1_helen(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build Table 1's network for Helen: conv6 is 4x4. B x in_channels x H x W to B x num_classes x H x W."""
    return _printed(num_classes, in_channels, kernel=4, conv7=512)


def wei_table1_voc(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build Table 1's network for PASCAL VOC: conv6 is 3x3. B x in_channels x H x W to B x num_classes x H x W."""
    return _printed(num_classes, in_channels, kernel=3, conv7=1024)


def wei_vgg16_helen(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a network as Wei's for Helen, whose conv6 is 4x4: B x in_channels x H x W to B x num_classes x H x W."""
    return _centred(num_classes, in_channels, kernel=4)


def wei_vgg16_voc(num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build a network as Wei's for VOC, whose conv6 is 3x3: B x in_channels x H x W to B x num_classes x H x W."""
    return _centred(num_classes, in_channels, kernel=3)


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
        state, origin = read_state(Path(source)), source
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ModelError(
                f"ImageNet weights are a state dict, from names to tensors. {source} holds something else."
            )
    _fill(model, state, origin)
    return Loading(True, f"ImageNet weights from {origin}.")


def vgg16_features(in_channels: int) -> nn.Sequential:
    """Build conv1_1 to pool5, numbered as torchvision's VGG-16, with an output stride of 8 px.

    pool4 and pool5 keep the size of their map, and what follows pool4 is dilated instead. Kernels are those of Wei's
    Table 1, which gives 212 px; only pool4 and pool5 are padded, and pool4 in front alone.
    """
    return _features(in_channels, _centred_pool)


def _centred(num_classes: int, in_channels: int, kernel: int) -> nn.Module:
    features = vgg16_features(in_channels)
    return ParsingPath(features, 512, STRIDE, num_classes, kernel, (HIDDEN, HIDDEN), dropout=DROPOUT)


def _printed(num_classes: int, in_channels: int, kernel: int, conv7: int) -> nn.Module:
    """Build Table 1.

    Sec. 4.2 leaves batch normalisation at "default settings", and names its other settings as Caffe does (a base rate,
    a gamma of steps, a loss normalised by batch size). Caffe's default has no scale and shift.
    """
    features = _features(in_channels, _printed_pool)
    return ParsingPath(features, 512, None, num_classes, kernel, (HIDDEN, conv7), affine=False)


def _features(in_channels: int, pool: Callable[[int], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = in_channels
    for stage, (widths, dilation) in enumerate(_STAGES, start=1):
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)]
            channels = width
        layers.append(pool(stage))
    return nn.Sequential(*layers)


def _printed_pool(stage: int) -> nn.Module:
    # At every size as large as Caffe's, which rounds up and then drops a window that lies in the padding alone.
    return nn.MaxPool2d(2 if stage <= 4 else 3, stride=2 if stage <= 3 else 1, padding=1)


def _centred_pool(stage: int) -> nn.Module:
    if stage <= 3:
        return nn.MaxPool2d(2, stride=2)
    if stage == 4:
        # In front: that takes back what the pools of stride 2 have moved the map, and a unit is centred half a pixel in
        # front of the label pixel that it predicts. Behind a ReLU a padded zero never wins a maximum.
        return nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.MaxPool2d(2, stride=1))
    return nn.MaxPool2d(3, stride=1, padding=1)


def read_state(path: Path) -> dict[str, Any]:
    """Read what torch.save has written, a dict of names.

    Raises:
        ModelError: There is no such file, or it is none.
    """
    if not path.is_file():
        raise ModelError(f"trained weights come from 'none', 'hub' or an existing file. Got {str(path)!r}.")
    try:
        state = read_tensors(path, torch.device("cpu"))
    except (RuntimeError, UnpicklingError, EOFError, ValueError) as cause:
        if foreign := foreign_class(cause):
            raise ModelError(
                f"trained weights are read as tensors and plain values alone. {path} also holds {foreign}: save the "
                "state dict alone, torch.save(model.state_dict(), PATH)."
            ) from cause
        raise ModelError(f"trained weights are a state dict saved by torch.save. {path} is not one: {cause}") from cause
    if not isinstance(state, dict):
        raise ModelError(f"trained weights are a state dict, from names to tensors. {path} holds something else.")
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Copy the entries `features.*`, all of them or none."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(FEATURES)}
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    faults += [f"{name} is not in the model" for name in state if name.startswith(FEATURES) and name not in own]
    if faults or not own:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ModelError(
            f"{origin} does not fit {type(model).__name__}: {shown or 'the model has no features'}. "
            "A VGG-16 state dict with torchvision's names, features.0.weight and so on, fits."
        )
    model.load_state_dict({name: state[name] for name in own}, strict=False)
