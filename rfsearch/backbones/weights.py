"""Put trained weights into a network before its training: ImageNet's into VGG-16's features, or any state dict's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from rfsearch.backbones.vgg import FEATURES, load_imagenet_vgg16, read_state
from rfsearch.backbones.zoos import trained_state
from rfsearch.compiled import name_as_written
from rfsearch.errors import ModelError
from rfsearch.plugins import OF_ZOO

# Where a network of another package stands inside the one that labels pixels; see `rfsearch.backbones.zoos`.
_PREFIXES = ("", "features.", "net.features.", "net.encoder.", "net.", "backbone.")
# What trainers put around a state dict, and in front of its names.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
_LEAST = 0.5


class TrainedWeights(NamedTuple):
    """Report what was loaded into a network.

    Attributes:
        names: Of the parameters that were, empty if it trains from scratch.
        said: What was done, in a sentence.

    Example:
        >>> load_weights(torch.nn.Conv2d(3, 8, 3), "none", "mine").names
        frozenset()
    """

    names: frozenset[str]
    said: str


def load_weights(model: nn.Module, source: str, spec: str) -> TrainedWeights:
    """Put trained weights into a network.

    A file of VGG-16's weights fits networks with its features, all of them or none. Of any other state dict, what has
    the name and shape of something in the network is taken: by its own name, or by that in a wrapped network of another
    package.

    Args:
        model: The network.
        source: "none"; "hub" for ImageNet weights of VGG-16's features; "zoo:NAME" for those that a zoo has of its
            network; or the path of a state dict.
        spec: SPEC of the network.

    Raises:
        ModelError: The file is missing or holds something else, or fits less than half of the network or of its part
            that has these names, such as an encoder; or a zoo's weights are out of reach.
    """
    own = dict(model.named_parameters())
    if source.startswith(OF_ZOO):
        return _matched(
            model, trained_state(spec, source.removeprefix(OF_ZOO)), f"{spec}, {source.removeprefix(OF_ZOO)}"
        )
    if source not in ("none", "hub"):
        state = _unwrapped(read_state(Path(source)))
        if not _is_vgg(state) or f"{FEATURES}0.weight" not in own:
            return _matched(model, state, source)
    loading = load_imagenet_vgg16(model, source)
    return TrainedWeights(frozenset(name for name in own if loading.loaded and name.startswith(FEATURES)), loading.said)


def _matched(model: nn.Module, state: Mapping[str, Tensor], source: str) -> TrainedWeights:
    """Copy what fits by name and shape."""
    own = model.state_dict()
    fits, part = _fitting(own, state)
    if not fits:  # a trainer's module may hold the network under any name
        holders = sorted({name.partition(".")[0] for name in state})
        inner = [{k.removeprefix(f"{h}."): v for k, v in state.items() if k.startswith(f"{h}.")} for h in holders]
        fits, part = max((_fitting(own, held) for held in inner), key=lambda found: len(found[0]), default=(fits, part))
    parameters = dict(model.named_parameters())
    sizes = {name: parameter.numel() for name, parameter in parameters.items()}
    whole, loaded = sum(sizes.values()), sum(size for name, size in sizes.items() if name in fits)
    # A decoder may be far larger than the encoder whose weights these are.
    if loaded < _LEAST * sum(size for name, size in sizes.items() if name.startswith(part)):
        shown, of_part = ", ".join(list(state)[:3]), f" of its {part.removesuffix('.')}" if part else ""
        raise ModelError(
            f"{source} fits {loaded / whole:.0%} of the parameters of {type(model).__name__} by name and shape; half"
            f"{of_part} is the least. It holds {shown}; the network has {', '.join(list(own)[:3])}."
        )
    model.load_state_dict(fits, strict=False)
    new = [name for name in parameters if name not in fits]
    rest = f"; new: {', '.join(new[:4])}{f' and {len(new) - 4} more' if len(new) > 4 else ''}" if new else ""
    return TrainedWeights(
        frozenset(name for name in parameters if name in fits),
        f"weights from {source}, {loaded / whole:.0%} of its parameters{rest}.",
    )


def _fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return what of a state fits a network, by the network's names, and the part of the network that it is of."""
    found: list[tuple[dict[str, Tensor], str]] = []
    for prefix in _PREFIXES:
        named = {f"{prefix}{name}": value for name, value in state.items()}
        fits = {name: value for name, value in named.items() if name in own and own[name].shape == value.shape}
        found.append((fits, prefix))
    return max(found, key=lambda fitting: len(fitting[0]))


def _is_vgg(state: Mapping[str, Tensor]) -> bool:
    """Check whether a state dict is that of a VGG network of torchvision, or of its features alone."""
    return f"{FEATURES}0.weight" in state and all(name.startswith((FEATURES, "classifier.")) for name in state)


def _unwrapped(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the state dict inside of what a trainer saved, by the names from before it was compiled or wrapped."""
    for wrapper in _WRAPPERS:
        inner = state.get(wrapper)
        if isinstance(inner, dict):
            state = inner
    tensors = {name_as_written(name): value for name, value in state.items() if isinstance(value, Tensor)}
    return {name.removeprefix("module."): value for name, value in tensors.items()}
