"""Replace learned real numbers by whole ones: plain dilated convolutions with nearly the same receptive field.

A kernel at dilation d behind an inflation by f has its taps delta = d / f px of the map apart; a real dilation delta
has them so directly. If delta is no whole number, `rounded` takes the nearest one for all output channels, and `split`
gives the larger neighbour to a share delta - floor(delta) of them, so that they have delta on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rfsearch.patch import ChannelSplit, Patch
from rfsearch.space import Candidate, Sampling


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


@dataclass
class Projected:
    """Hold patches of whole numbers, and sentences about them.

    Attributes:
        patches: The patches by how they were made, none if nothing had to be done.
        notices: What was done, in sentences.

    Example:
        >>> project(patch, {"conv6": Room(11, 20, 64)}).patches["rounded"]
    """

    patches: dict[str, Patch] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def fixed(candidate: Candidate, outcome: Candidate) -> Candidate:
    """Return what a trained network is built from: its outcome, in which nothing is left to be learned.

    A layer in a convolution's place starts where it started, because its state dict expects that.
    """
    starts = dict(candidate)
    return outcome.changed(lambda path, choice: starts[path] if choice.layer else choice)


def project(patch: Patch, rooms: Mapping[str, Room]) -> Projected:
    """Find the patches of whole numbers that come nearest to one with fixed real numbers.

    Args:
        patch: The patch.
        rooms: What fits, by site.
    """
    found = Projected()
    rounded, near, splits = {}, {}, {}
    for path, choice in patch.candidate:
        room = rooms[patch.site_of(path)[0]]
        rounded[path] = near[path] = choice
        if choice.f != 1.0:
            real = choice.dilation / choice.f
            delta = min(max(real, 1.0), float(room.dilation))
            low, whole = math.floor(delta), math.floor(delta + 0.5)
            rounded[path] = near[path] = replace(choice, dilation=whole, f=1.0, fractional=False)
            said = f"{path}: dilation {choice.dilation} behind f = {choice.f:.4g} is {real:.4g} px between taps"
            if choice.fractional:
                said = f"{path}: dilation {real:.4g}"
            if delta != real:
                said += f", {'above' if real > delta else 'below'} what is possible: {delta:g}"
            said += f". Rounded: {whole}."
            many = round((delta - low) * room.channels)
            if 0 < many < room.channels:
                near[path] = replace(choice, dilation=low, f=1.0, fractional=False)
                splits[path] = ChannelSplit(low + 1, many)
                said += f" Split: {many} of {room.channels} channels at {low + 1}, the others at {low}."
            elif delta != whole and not room.channels:
                said += " Its output channels cannot be split."
            found.notices.append(said)
        elif choice.sampling and choice.sampling.s > 1 and choice.sampling.gamma % 1:
            sampling = _round_stride(choice.sampling, room.span)
            rounded[path] = near[path] = replace(choice, sampling=sampling)
            found.notices.append(f"{path}: sample stride {choice.sampling.gamma:.4g} px. Rounded: {sampling.gamma:g}.")
    if found.notices:
        found.patches["rounded"] = replace(patch, candidate=patch.candidate.changed(lambda path, _: rounded[path]))
    if splits:
        shared = patch.candidate.changed(lambda path, _: near[path])
        found.patches["split"] = replace(patch, candidate=shared, splits=splits)
    return found


def _round_stride(sampling: Sampling, span: int) -> Sampling:
    """Round a sample stride to the nearest whole number that fits."""
    most = max(1, span // (sampling.s - 1))
    return replace(sampling, gamma=float(min(max(1, math.floor(sampling.gamma + 0.5)), most)))
