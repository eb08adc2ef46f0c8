"""What a layer needs: packages of others, and a convolution that it can take the place of."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from torch import nn

from rfsearch.errors import ModelError, RequestError
from rfsearch.surgery.dilation import is_plain, pads_of

# By the module, where an index has its package under another name.
_PACKAGES = {"mmcv": "mmcv-lite", "DCLS": "dcls"}


def check_installed(peer: str, modules: Sequence[str]) -> None:
    """Raise RequestError where a package that a peer calls is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RequestError(
            f"{peer} calls {' and '.join(modules)}, of which {' and '.join(missing)} is not installed. "
            f"Get it with: pip install {' '.join(_PACKAGES.get(module, module) for module in missing)}"
        )


def even_padding(conv: nn.Conv2d, peer: str) -> tuple[int, int]:
    """The zeros that a plain convolution with an odd kernel pads on either side, px, vertically and horizontally.

    Raises ModelError for any other convolution: the layers of some peers cannot take its place.
    """
    if is_plain(conv) and conv.padding_mode == "zeros" and all(k % 2 for k in conv.kernel_size):
        left, _, top, _ = pads_of(conv)  # with an odd kernel, the same on the right and below
        return top, left
    raise ModelError(
        f"{peer} takes the place of a plain convolution with an odd kernel, padded with as many zeros on either side. "
        f"Got {conv}."
    )
