"""Cutting models open: finding sites, and setting what a candidate says at them."""

from rfsearch.surgery.build import Learnable, Settings, assemble, build, check_labels
from rfsearch.surgery.dilation import set_dilation
from rfsearch.surgery.sites import Site, check_fits, match_sites, measure_sites

__all__ = [
    "Learnable",
    "Settings",
    "Site",
    "assemble",
    "build",
    "check_fits",
    "check_labels",
    "match_sites",
    "measure_sites",
    "set_dilation",
]
