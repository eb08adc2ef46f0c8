"""Cutting models open: finding sites, and setting what a candidate says at them."""

from rfsearch.surgery.build import build, factors
from rfsearch.surgery.dilation import set_dilation
from rfsearch.surgery.sites import Site, check_fits, match_sites, measure_sites

__all__ = ["Site", "build", "check_fits", "factors", "match_sites", "measure_sites", "set_dilation"]
