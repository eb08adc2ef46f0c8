"""Install a dilation that training is to find."""

from __future__ import annotations

from rfsearch.choices import Searched
from rfsearch.surgery.installing import Installed, Place


def install(choice: Searched, place: Place) -> Installed:
    """Dilate the path's convolutions as a start, and name them as those that training dilates."""
    place.dilations.set(choice.dilation)
    return Installed(place.module, searched=place.dilations)
