"""Propose sites in a network where neither its space nor its user names any.

Proposed are the last convolutions with room to dilate on the coarsest map before the head: there a dilation widens the
receptive field most, and changes least of the network. That the output's field depends on them is measured: each of the
dilations that a site would get must give the output a field of its own.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn
from torch.nn.modules.conv import _ConvNd

from rfsearch.errors import SpaceError
from rfsearch.inspection import as_dependent, format_sizes
from rfsearch.receptive import Trace, trace_model
from rfsearch.space import SearchSpace
from rfsearch.surgery import SiteRow, list_sites
from rfsearch.surgery.refused import refused_dilations

# There are as many sites as leave all combinations of their dilations few enough to sweep.
_SITES_MOST = 3
_COMBINATIONS_MOST = 9

AnySpace = TypeVar("AnySpace", bound=SearchSpace)


@dataclass(frozen=True)
class Proposal:
    """Hold sites that are proposed for a network.

    Attributes:
        sites: Module paths of convolutions, in the order in which they run.
        why: What they are, in words.

    Example:
        >>> propose_sites(wei_small(num_classes=5), (1, 3, 96, 96), dilations=(1, 2, 3, 4)).sites
        ('conv6',)
    """

    sites: tuple[str, ...]
    why: str


def with_proposed_sites(
    space: AnySpace, model: nn.Module, input_shape: Sequence[int], others: str = ""
) -> tuple[AnySpace, str]:
    """Give a space the sites that are proposed for its network.

    Args:
        space: The space.
        model: Its network; it is left as it was.
        input_shape: B x C x its axes, of an image.
        others: How to list other sites and name them, in words. Empty: the command for the SPEC of the backbone.

    Returns:
        The space, and a notice: which sites these are, why, and how to choose others.

    Raises:
        SpaceError: No site can be proposed.
    """
    try:
        proposal = propose_sites(model, input_shape, space.dilations, len(space.choices))
    except SpaceError as error:
        raise SpaceError(f"backbone {space.backbone!r}: {error}") from error
    others = others or f"{sites_command(space.backbone, input_shape)}, then --site NAME"
    notice = (
        f"Sites: {' and '.join(proposal.sites)}, {proposal.why}. Every dilation gives the output a receptive field of "
        f"its own. Others: {others}."
    )
    return space.with_(sites=proposal.sites), notice


def sites_command(spec: str, input_shape: Sequence[int]) -> str:
    """Return the command that lists the sites of a network.

    Args:
        spec: The SPEC of the network.
        input_shape: B x C x its axes, of an image.
    """
    return shlex.join(["rfsearch", "sites", spec, "--input", format_sizes(input_shape[1:])])


def propose_sites(model: nn.Module, input_shape: Sequence[int], dilations: Sequence[int], choices: int = 0) -> Proposal:
    """Propose sites in a network.

    Args:
        model: The network; it is left as it was.
        input_shape: B x C x its axes, of an image.
        dilations: What a site is to get, as far as it fits.
        choices: Number of other choices that a site is to get.

    Raises:
        SpaceError: No convolution can be proposed. The message says why, and names the nearest thing that works.
        ModelError: The network cannot be followed.
    """
    trace = trace_model(model, input_shape)
    rows = [as_dependent(row, trace) for row in list_sites(model, input_shape)]
    offered = {row.path: _offered(row, dilations) for row in rows if not row.why_not}
    refused = refused_dilations(model, input_shape, offered)
    usable = {path: [d for d in offered[path] if d not in refused.get(path, ())] for path in offered}
    fixed = {path for path in usable if len(usable[path]) < 2 <= len(offered[path])}
    reasons = {row.path: _why_not(row, dilations, row.path in fixed) for row in rows}
    trunk = _before_the_head(model, rows, trace.needed)
    open_rows = [row for row in reversed(rows) if not reasons[row.path]]

    def rank(row: SiteRow) -> tuple[bool, bool, int]:
        return row.path not in trunk, max(row.stride) > 1, _pixels(row)

    chosen: list[SiteRow] = []
    for row in sorted(open_rows, key=rank):
        # One hand default, the network as it is, serves all sites of a proposal.
        if chosen and (rank(row) != rank(chosen[0]) or _own(row) != _own(chosen[0])):
            continue
        # Beside the others at their largest: a branch parallel to one of them would be dominated there.
        beside = {other.path: usable[other.path][-1] for other in chosen}
        if not _tells_apart(trace, [beside | {row.path: d} for d in usable[row.path]]):
            reasons[row.path] = "the output has the same field at several of its dilations"
            continue
        chosen.append(row)
        if len(chosen) == _count(len(usable[chosen[0].path]) + choices):
            break
    if not chosen:
        raise SpaceError(_nothing(rows, reasons, usable, dilations))
    late, strided, _ = rank(chosen[0])
    kind = f"{'strided ' if strided else ''}convolution{'s' if len(chosen) > 1 else ''}"
    where = "" if late else " before the head"
    why = f"the last {kind}{where} on the coarsest map with room to dilate ({_size(chosen[0])})"
    return Proposal(tuple(row.path for row in reversed(chosen)), why)


def _before_the_head(model: nn.Module, rows: Sequence[SiteRow], needed: Collection[str]) -> set[str]:
    """Return the spatial convolutions up to the coarsest map before a network's head.

    The network is divided where the first convolution on its coarsest map and the one that makes its output are in
    different parts. The head is the part of the latter, and parts behind the former's that are built in another way: a
    decoder, a pyramid. What runs behind the last convolution on the coarsest map belongs to a decoder too.
    """
    running = [row for row in rows if row.path in needed]
    spatial = [row for row in running if not row.why_not]
    if not spatial:
        return set()
    coarsest = min(map(_pixels, spatial))
    first = next(at for at, row in enumerate(spatial) if _pixels(row) == coarsest)
    inside, output = spatial[first].path.split("."), running[-1].path.split(".")
    shared = next((at for at, (a, b) in enumerate(zip(inside, output, strict=False)) if a != b), 0)

    def part_of(path: Sequence[str]) -> str:
        return ".".join(path[: shared + 1])

    def is_head(part: str) -> bool:
        own, other = model.get_submodule(part_of(inside)), model.get_submodule(part)
        return part == part_of(output) or (
            type(own) is not type(other) and not any(isinstance(module, _ConvNd) for module in (own, other))
        )

    trunk = spatial[:first] + [row for row in spatial[first:] if not is_head(part_of(row.path.split(".")))]
    last = max((at for at, row in enumerate(trunk) if _pixels(row) == coarsest), default=len(trunk))
    return {row.path for row in trunk[: last + 1]}


def _offered(row: SiteRow, dilations: Sequence[int]) -> list[int]:
    """Return what a site would get: the dilations that fit into its map, the largest that does, and its own."""
    largest, own = row.largest_dilation or 1, _own(row)
    fitting = {d for d in (*dilations, *([own] if own else [])) if d <= largest}
    return sorted(fitting | {min(largest, max(dilations))})


def _why_not(row: SiteRow, dilations: Sequence[int], fixed: bool) -> str:
    """Return why a convolution is not proposed, as far as it is known before fields are compared; "" if it may be.

    Args:
        row: The convolution.
        dilations: Those of the space.
        fixed: Whether the network refuses all of these that it does not have.
    """
    if row.why_not:
        return row.why_not
    own, largest = _own(row), row.largest_dilation or 1
    if all(s >= k for k, s in zip(row.kernel, row.stride, strict=True) if k > 1):
        return f"a {format_sizes(row.kernel)} kernel that moves by its own length makes patches"
    if own is None:
        return "its dilation differs from axis to axis"
    if largest < (least := max(own, _second(dilations))):
        return f"dilation {least} does not fit into a map of {_size(row)}"
    return "the network does not take another dilation" if fixed else ""


def _tells_apart(trace: Trace, settings: Sequence[Mapping[str, int]]) -> bool:
    """Check whether the output's own field differs on some axis between any two settings of a network's dilations."""
    seen = set[tuple[float, ...]]()
    for dilations in settings:  # one at a time: each follows the whole network
        field = tuple(round(axis.local_px, 3) for axis in trace.receptive_fields(dilations)[""].axes)
        if field in seen:
            return False
        seen.add(field)
    return True


def _count(options: int) -> int:
    """Return the number of sites to propose, where each has that many options."""
    return next(n for n in range(_SITES_MOST, 0, -1) if n == 1 or options**n <= _COMBINATIONS_MOST)


def _nothing(
    rows: Sequence[SiteRow], reasons: Mapping[str, str], usable: Mapping[str, Sequence[int]], dilations: Sequence[int]
) -> str:
    """Say why no convolution is proposed, and what works."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(reasons[row.path], []).append(row.path)
    why = "; ".join(
        f"{paths[0] or 'the network itself'}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''} ({reason})"
        for reason, paths in by_reason.items()
    )
    taking = [row for row in rows if len(usable.get(row.path, ())) > 1]
    small = [row for row in rows if row.path in usable and (row.largest_dilation or 1) < _second(dilations)]
    if taking:
        closest = max(taking, key=_pixels)
        hint = f"to name one: --site {closest.path} takes dilations up to {max(usable[closest.path])}"
    elif small:
        closest = max(small, key=_pixels)
        hint = f"a larger input, for maps larger than the {_size(closest)} that {closest.path} reads"
    else:
        hint = "another network, such as --backbone wei-small"
    return f"no site can be proposed. {why or 'It has no convolution'}. Nearest that works: {hint}."


def _own(row: SiteRow) -> int | None:
    """Return the dilation of a convolution, None where it differs between axes."""
    own = {d for d, k in zip(row.dilation, row.kernel, strict=True) if k > 1}
    return own.pop() if len(own) == 1 else None


def _second(dilations: Sequence[int]) -> int:
    """Return the smallest dilation but one, or the only one."""
    return sorted(dilations)[:2][-1]


def _pixels(row: SiteRow) -> int:
    return math.prod(row.map_size or ())


def _size(row: SiteRow) -> str:
    return f"{' x '.join(map(str, row.map_size or ()))} px"
