"""Find the output of a network in whatever its forward pass returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

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
