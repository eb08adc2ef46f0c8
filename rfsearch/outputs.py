"""Find the output of a network in whatever its forward pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rfsearch.errors import ModelError, described, nearest

OUTPUT_NAMES = ("out", "logits")

RULE = "a tensor, the first of a tuple or list, or the entry 'out' or 'logits' of a dict or object"


def main_output(returned: Any) -> Any:
    """Pick the output of a network out of what it returned; a tensor if the network keeps to `RULE`.

    Args:
        returned: A tensor; a dict, dataclass or object that names the output `out` or `logits`, as torchvision and
            transformers do; or a tuple or list that begins with one of these, auxiliary outputs behind it.

    Returns:
        That output, or None if there is none.
    """
    if isinstance(returned, Tensor):
        return returned
    for name in OUTPUT_NAMES:
        named = returned.get(name) if isinstance(returned, Mapping) else getattr(returned, name, None)
        if named is not None:
            return named
    return main_output(returned[0]) if isinstance(returned, tuple | list) and returned else None


def exported_outputs(returned: Any) -> Mapping[str, Tensor]:
    """Return what an export writes of what a network returned, by name.

    That is its output, as `output`; or, where it says more, its `exported`: all that what it finds follows from.
    """
    exported = getattr(returned, "exported", None)
    return exported if isinstance(exported, Mapping) else {"output": main_output(returned)}


def require_maps(output: object, batch: int, channels: int, network: str, name: str = "logits") -> Tensor:
    """Find maps, B x channels x h x w, in what a network returned; see `main_output`.

    Args:
        output: What it returned.
        batch: B, the number of images that it was given.
        channels: Channels that it was built for.
        network: Its SPEC, for the message.
        name: What the maps are, for the message.

    Raises:
        ModelError: It is anything else; the message says what.
    """
    rule = f"backbone {network!r} maps {batch} images to {name} of {batch} x {channels} x h x w"
    maps = main_output(output)
    if maps is None and isinstance(output, Mapping):
        raise ModelError(f"{rule}: {RULE}.{nearest(OUTPUT_NAMES[0], map(str, output))}")
    if not isinstance(maps, Tensor):
        raise ModelError(f"{rule}: {RULE}. Got {described(output if maps is None else maps)}.")
    shape = tuple(maps.shape)
    if len(shape) != 4 or shape[:2] != (batch, channels) or 0 in shape:
        raise ModelError(f"{rule}. Got {described(maps)}.")
    if not maps.is_floating_point():
        raise ModelError(f"{rule}, in floating point. Got {described(maps)} of {maps.dtype}.")
    return maps
