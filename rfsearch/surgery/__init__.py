"""Cutting models open: finding sites, and setting what a candidate says at them."""

from rfsearch.surgery.build import Learnable, Settings, assemble, build, check_labels
from rfsearch.surgery.dilation import set_dilation
from rfsearch.surgery.sites import Site, SiteRow, check_fits, list_sites, match_sites, measure_sites, neutral

__all__ = [
    "Learnable",
    "Settings",
    "Site",
    "SiteRow",
    "assemble",
    "build",
    "check_fits",
    "check_labels",
    "list_sites",
    "match_sites",
    "measure_sites",
    "neutral",
    "set_dilation",
]
