"""Cutting models open: finding sites, and setting what a candidate says at them."""

from rfsearch.surgery.build import Learnable, assemble, build, check_labels, install
from rfsearch.surgery.dilation import set_dilation, without_dilations
from rfsearch.surgery.guest import Advancing, Changing, Finding, Undecayed, found_dilation
from rfsearch.surgery.installing import Installed, Place, Settings
from rfsearch.surgery.sites import Site, SiteRow, check_fits, list_sites, match_sites, measure_sites, neutral

__all__ = [
    "Advancing",
    "Changing",
    "Finding",
    "Installed",
    "Learnable",
    "Place",
    "Settings",
    "Site",
    "SiteRow",
    "Undecayed",
    "assemble",
    "build",
    "check_fits",
    "check_labels",
    "found_dilation",
    "install",
    "list_sites",
    "match_sites",
    "measure_sites",
    "neutral",
    "set_dilation",
    "without_dilations",
]
