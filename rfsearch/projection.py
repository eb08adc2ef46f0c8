"""Replace learned real numbers by whole ones: plain dilated convolutions with nearly the same receptive field.

A kernel at dilation d behind an inflation by f has its taps delta = d / f px of the map apart; a real dilation delta
has them so directly. If delta is no whole number, `rounded` takes the nearest one for all output channels, and `split`
gives the larger neighbour to a share delta - floor(delta) of them, so that they have delta on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rfsearch.choices import Choice, Room, Rounded
from rfsearch.patch import Patch


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


def project(patch: Patch, rooms: Mapping[str, Room]) -> Projected:
    """Find the patches of whole numbers that come nearest to one with fixed real numbers.

    Args:
        patch: What a trained network gets.
        rooms: What there is room for, by site.
    """
    found, rounded = Projected(), dict[str, Rounded]()
    for name, path in patch.candidate:
        made = path.choice.rounded(name, rooms[patch.site_of(name)[0]])
        if made is not None:
            rounded[name] = made
            found.notices.append(made.notice)

    def whole(name: str, choice: Choice) -> Choice:
        return rounded[name].choice if name in rounded else choice

    def shared(name: str, choice: Choice) -> Choice:
        return rounded[name].shared if name in rounded else choice

    if rounded:
        found.patches["rounded"] = replace(patch, candidate=patch.candidate.changed(whole))
    if splits := {name: made.split for name, made in rounded.items() if made.split}:
        found.patches["split"] = replace(patch, candidate=patch.candidate.changed(shared), splits=splits)
    return found
