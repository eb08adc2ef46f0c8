"""Cutting models open: finding sites, and setting what a candidate says at them."""

from rfsearch.surgery.build import Learnable, Settings, assemble, build, check_labels, install
from rfsearch.surgery.dilation import set_dilation, without_dilations
from rfsearch.surgery.sites import Site, SiteRow, check_fits, list_sites, match_sites, measure_sites, neutral
from rfsearch.surgery.stand_in import Advancing, Changing, Finding, Undecayed, found_dilation

__all__ = [
    "Advancing",
    "Changing",
    "Finding",
    "Learnable",
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
