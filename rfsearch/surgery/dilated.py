"""Install a whole dilation."""

from __future__ import annotations

from rfsearch.choices import Dilated
from rfsearch.surgery.installing import Installed, Place


def install(choice: Dilated, place: Place) -> Installed:
    """Dilate the path's convolution, or multiply the dilations in its container or span."""
    place.dilations.set(choice.dilation)
    return Installed(place.module)
