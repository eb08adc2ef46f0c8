"""Check what a layer needs: packages of others, and a convolution that it can replace."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from torch import nn

from rfsearch.errors import ModelError, RequestError
from rfsearch.surgery.dilation import is_plain, pads_of

# By the module, where an index has its package under another name.
_PACKAGES = {"mmcv": "mmcv-lite", "DCLS": "dcls"}


def check_installed(peer: str, modules: Sequence[str]) -> None:
    """Check that the packages that a peer calls are installed.

    Raises:
        RequestError: One is missing.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RequestError(
            f"{peer} calls {' and '.join(modules)}, of which {' and '.join(missing)} is not installed. "
            f"Install it with: pip install {' '.join(_PACKAGES.get(module, module) for module in missing)}"
        )


def even_padding(conv: nn.Conv2d, peer: str) -> tuple[int, int]:
    """Return the zeros that a plain convolution with an odd kernel pads on either side, px, as (vertical, horizontal).

    Raises:
        ModelError: It is another convolution, which the layers of some peers cannot replace.
    """
    if is_plain(conv) and conv.padding_mode == "zeros" and all(k % 2 for k in conv.kernel_size):
        left, _, top, _ = pads_of(conv)  # with an odd kernel, the same on the right and below
        return top, left
    raise ModelError(
        f"{peer} replaces a plain convolution with an odd kernel, padded with equally many zeros on either side. "
        f"Got {conv}."
    )
