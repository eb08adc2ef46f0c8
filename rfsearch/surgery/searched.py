"""Install a dilation that training is to find, or to move from where it starts."""

from __future__ import annotations

from rfsearch.choices import Moved, Searched
from rfsearch.surgery.installing import Installed, Place


def install(choice: Searched | Moved, place: Place) -> Installed:
    """Dilate the path's convolutions as a start, and name them as those that training dilates."""
    place.dilations.set(choice.dilation)
    return Installed(place.module, searched=place.dilations)
