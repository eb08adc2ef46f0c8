"""Install an LS-DFN block behind a convolution."""

from __future__ import annotations

from rfsearch.choices import Sampled
from rfsearch.layers import LSDFN
from rfsearch.surgery.inserts import SampledSite
from rfsearch.surgery.installing import Installed, Place


def install(choice: Sampled, place: Place) -> Installed:
    """Put the block behind the path's convolution, concatenated to its output."""
    place.dilations.set(choice.dilation)
    conv = place.conv_2d("an LS-DFN block stands behind one 2-D convolution")
    spec = place.settings.sampling
    block = LSDFN(
        conv.out_channels,
        spec.channels or len(place.settings.classes) or conv.out_channels,
        features=spec.features,
        s=choice.s,
        k=spec.kernel,
        gamma=choice.gamma,
        learned=choice.learned,
        bounds=spec.bounds,
    )
    return Installed(place.put(SampledSite(conv, block)), stride=block.stride)
