"""Kinds of choice, one a file, and candidates, which are made of them. Imports neither torch nor Ray."""

from rfsearch.choices.base import Choice
from rfsearch.choices.candidate import Candidate, Given, SitePath, path_names
from rfsearch.choices.dilated import Dilated
from rfsearch.choices.fractional import Fractional
from rfsearch.choices.guest import Guest
from rfsearch.choices.inflated import Inflated, inflated
from rfsearch.choices.moved import Moved
from rfsearch.choices.reading import read_choice
from rfsearch.choices.rounding import ChannelSplit, Room, Rounded
from rfsearch.choices.sampled import Sampled
from rfsearch.choices.searched import Searched

__all__ = [
    "Candidate",
    "ChannelSplit",
    "Choice",
    "Dilated",
    "Fractional",
    "Given",
    "Guest",
    "Inflated",
    "Moved",
    "Room",
    "Rounded",
    "Sampled",
    "Searched",
    "SitePath",
    "inflated",
    "path_names",
    "read_choice",
]
