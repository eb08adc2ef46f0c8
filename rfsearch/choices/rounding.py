"""Whole numbers in place of real ones: plain dilated convolutions with nearly the same receptive field."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rfsearch.choices.base import Choice
from rfsearch.choices.dilated import Dilated
from rfsearch.errors import SpaceError


@dataclass(frozen=True)
class Room:
    """State what a site has room for.

    Attributes:
        dilation: The largest dilation that fits, px.
        span: The largest gamma (s - 1) of LS-DFN regions that fits, px of the map.
        channels: Output channels that can be split, 0 if they cannot.

    Example:
        >>> Room(dilation=11, span=20, channels=64)
        Room(dilation=11, span=20, channels=64)
    """

    dilation: int
    span: int
    channels: int


@dataclass(frozen=True)
class ChannelSplit:
    """Give the last output channels of a convolution a dilation of their own.

    Attributes:
        dilation: Distance between their taps, px.
        channels: Their number.

    Example:
        >>> ChannelSplit(dilation=3, channels=20)
        ChannelSplit(dilation=3, channels=20)
    """

    dilation: int
    channels: int

    def __post_init__(self) -> None:
        if any(not isinstance(n, int) or n < 1 for n in (self.dilation, self.channels)):
            raise SpaceError(f"a split has a dilation and channels, whole numbers of at least 1. Got {self}.")


@dataclass(frozen=True)
class Rounded:
    """Hold a choice in whole numbers.

    Attributes:
        choice: With the nearest whole number for all output channels.
        shared: With the whole number below, where a share of the output channels gets the one above, so that they have
            the real one on average.
        split: That share and its dilation; None where it makes no difference.
        notice: A sentence about it.
    """

    choice: Choice
    shared: Choice
    split: ChannelSplit | None
    notice: str


def rounded_taps(said: str, spacing: float, room: Room) -> Rounded:
    """Round the distance between the taps of a convolution.

    Args:
        said: The beginning of the notice.
        spacing: The distance, px of the map as it is.
        room: What the site has room for.
    """
    within = min(max(spacing, 1.0), float(room.dilation))
    low, whole = math.floor(within), math.floor(within + 0.5)
    if within != spacing:
        said += f", {'above' if spacing > within else 'below'} what is possible: {within:g}"
    said += f". Rounded: {whole}."
    rounded = shared = Dilated(whole)
    split = None
    many = round((within - low) * room.channels)
    if 0 < many < room.channels:
        shared, split = Dilated(low), ChannelSplit(low + 1, many)
        said += f" Split: {many} of {room.channels} channels at {low + 1}, the others at {low}."
    elif within != whole and not room.channels:
        said += " Its output channels cannot be split."
    return Rounded(rounded, shared, split, said)
