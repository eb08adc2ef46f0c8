"""Install a real dilation."""

from __future__ import annotations

from torch import nn

from rfsearch.choices import Fractional
from rfsearch.errors import SpaceError
from rfsearch.layers import FractionalConv2d
from rfsearch.surgery.dilation import owns_weight
from rfsearch.surgery.installing import Installed, Place


def install(choice: Fractional, place: Place) -> Installed:
    """Put a layer that reads between pixels in the place of the path's convolution."""
    place.dilations.set(choice.whole_dilation)
    conv = place.conv
    if type(conv) is not nn.Conv2d:
        what = type(conv).__name__ if conv is not None else "container or span"
        raise SpaceError(f"{place.path}: a real dilation is that of one nn.Conv2d. Got a {what}.")
    if not owns_weight(conv):
        raise SpaceError(
            f"{place.path}: a real dilation is that of a convolution whose weight is its own. This one's is computed "
            "by a hook, such as that of torch.nn.utils.weight_norm. Remove it first, or dilate by a whole number."
        )
    known = (choice.dilation, *place.settings.dilations)
    return Installed(place.put(FractionalConv2d(conv, choice.dilation, learned=False, bounds=(min(known), max(known)))))
