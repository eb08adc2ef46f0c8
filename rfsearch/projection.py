"""Whole numbers in the place of learned real ones: plain dilated convolutions with nearly the same receptive field.

A kernel at dilation d behind an inflation by f has its taps delta = d / f px of the map apart, one at a real dilation
delta has them so by itself. Where delta is no whole number, `rounded` takes the nearest one for all output channels,
and `split` gives the larger neighbour to a share delta - floor(delta) of them, so that they have delta on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rfsearch.patch import Patch, Split
from rfsearch.space import Candidate, Choice, Sampling


@dataclass(frozen=True)
class Room:
    """What a site has room for. dilation: the largest that fits. span: the largest gamma (s - 1) of LS-DFN regions
    that fits, px of the map. channels: output channels that can be split, 0 where they cannot."""

    dilation: int
    span: int
    channels: int


@dataclass
class Projected:
    """Patches of whole numbers by how they were found, none where there was nothing to do, and sentences about it."""

    patches: dict[str, Patch] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def fixed(candidate: Candidate, f: Mapping[str, float], gamma: Mapping[str, float]) -> Candidate:
    """A candidate whose learned values are fixed to what they had become, by path. A layer in a convolution's place
    starts where it started, as its state dict expects it."""
    choices, searched = {}, {path for path, choice in candidate if choice.searched}
    for (path, start), (_, choice) in zip(candidate, candidate.found(f), strict=True):
        if start.layer:
            choices[path] = start
            continue
        sampling = choice.sampling
        if sampling:
            sampling = replace(sampling, gamma=gamma.get(path, sampling.gamma), learned=False)
        own = choice.f if path in searched else f.get(path, choice.f)
        choices[path] = replace(choice, f=own, learned=False, sampling=sampling)
    return _again(candidate, choices)


def project(patch: Patch, rooms: Mapping[str, Room]) -> Projected:
    """The patches of whole numbers that come nearest to one with fixed real numbers. rooms: by site."""
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
                said += f", {'above' if real > delta else 'below'} what can be: {delta:g}"
            said += f". Rounded: {whole}."
            many = round((delta - low) * room.channels)
            if 0 < many < room.channels:
                near[path], splits[path] = replace(choice, dilation=low, f=1.0, fractional=False), Split(low + 1, many)
                said += f" Split: {many} of {room.channels} channels at {low + 1}, the others at {low}."
            elif delta != whole and not room.channels:
                said += " Its output channels cannot be split."
            found.notices.append(said)
        elif choice.sampling and choice.sampling.s > 1 and choice.sampling.gamma % 1:
            sampling = _whole(choice.sampling, room.span)
            rounded[path] = near[path] = replace(choice, sampling=sampling)
            found.notices.append(f"{path}: sample stride {choice.sampling.gamma:.4g} px. Rounded: {sampling.gamma:g}.")
    if found.notices:
        found.patches["rounded"] = replace(patch, candidate=_again(patch.candidate, rounded))
    if splits:
        found.patches["split"] = replace(patch, candidate=_again(patch.candidate, near), splits=splits)
    return found


def _whole(sampling: Sampling, span: int) -> Sampling:
    most = max(1, span // (sampling.s - 1))
    return replace(sampling, gamma=float(min(max(1, math.floor(sampling.gamma + 0.5)), most)))


def _again(candidate: Candidate, choices: Mapping[str, Choice]) -> Candidate:
    """A candidate with other choices, by path."""
    paths = iter(choices.values())
    sites = [(site, 1 if isinstance(choice, Choice) else len(choice)) for site, choice in candidate.choices]
    return Candidate.of({site: [next(paths) for _ in range(count)] for site, count in sites})
