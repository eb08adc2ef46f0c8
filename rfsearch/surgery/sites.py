"""Find the places in a model whose receptive field may be set, and say what fits there."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import type_before_parametrizations

from rfsearch.choices import Candidate, Dilated
from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.lazy import give_sizes
from rfsearch.surgery.dilation import Convolution
from rfsearch.surgery.places import check_apart, convolutions, lone_convolution
from rfsearch.untouched import untouched


@dataclass(frozen=True)
class Site:
    """One place by its name, and the convolution that decides what fits: of several, that with the least room.

    kernel: its taps an axis, such as (height, width). map_size: of its input map, px an axis. unit: px between its
    taps at a dilation of 1, which is more than 1 where a container or span is dilated on top of what it has.
    """

    path: str
    kernel: tuple[int, ...]
    map_size: tuple[int, ...]
    unit: tuple[int, ...]

    def span(self, dilation: int) -> int:
        """The longest side of the dilated kernel, px of the site's map."""
        return max((k - 1) * unit * dilation + 1 for k, unit in zip(self.kernel, self.unit, strict=True))

    @property
    def largest_dilation(self) -> int:
        """The largest dilation whose kernel still fits into the map."""
        axes = zip(self.kernel, self.unit, self.map_size, strict=True)
        return max(1, min(((size - 1) // ((k - 1) * unit) for k, unit, size in axes if k > 1), default=1))

    def too_far(self, dilation: int, where: str) -> str:
        """Say that a dilated kernel is longer than the map: its outer taps would see padding only.

        Args:
            dilation: Of the kernel, larger than the largest that fits.
            where: Which of several paths it is.
        """
        times = " times its own" if any(unit > 1 for unit in self.unit) else ""
        return (
            f"a {_by(self.kernel)}{' px' if len(self.kernel) == 1 else ''} kernel at dilation {dilation}{times}{where} "
            f"spans {self.span(dilation)} px, its input map is {_by(self.map_size, ' x ')} px. "
            f"Largest dilation that fits: {self.largest_dilation}."
        )


@dataclass(frozen=True)
class SiteRow:
    """A convolution of a model, and whether its receptive field may be changed.

    kind: its class, such as Conv2d. kernel, stride, dilation: an axis each, px. map_size: of the map that it reads, px
    an axis, or None where it never ran. largest_dilation: whose kernel still fits into that map, or None where it
    cannot be set. why_not: the reason for that, "" where it can.
    """

    path: str
    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    in_channels: int
    out_channels: int
    map_size: tuple[int, ...] | None
    largest_dilation: int | None
    why_not: str


def class_name(module: nn.Module) -> str:
    """Name a module's class as its author did: a parametrization puts a class of its own over it."""
    return type_before_parametrizations(module).__name__


def match_sites(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """The sites that the patterns name.

    A pattern is the module path of a convolution or a shell pattern such as `layer4.*` for several; the path of a
    container, such as `layer4`; or a span `first:last` of children of one nn.Sequential, both included. Only 1-D, 2-D
    and 3-D convolutions with a kernel larger than 1 have a receptive field to set. A pattern that matches none is a
    SpaceError with the nearest path, and so are sites that overlap.
    """
    paths = _paths(model)
    containers = {path.rpartition(".")[0] for path in paths}
    containers |= {path[:end] for path in containers for end, sign in enumerate(path) if sign == "."}
    known = [*paths, *sorted(containers - {""})]
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = fnmatch.filter(paths, pattern)
        if not hits and (pattern in known or _holds_one(model, pattern)):
            hits = [pattern]
        if not hits:
            raise SpaceError(
                f"site {pattern!r} matches no convolution with a kernel larger than 1 px.{nearest(pattern, known)}"
            )
        found.update(dict.fromkeys(hits))
    check_apart(model, tuple(found))
    return tuple(found)


def measure_sites(model: nn.Module, paths: Sequence[str], image_size: Sequence[int], in_channels: int) -> list[Site]:
    """Send one empty image of the model's axes, such as H x W px, through it: how large is each site's input map?"""
    maps = map_sizes(model, (1, in_channels, *image_size))
    sites = []
    for path in paths:
        lone = lone_convolution(model, path) is not None
        inside = [
            _site(path, conv, maps[conv], conv.dilation if not lone else (1,) * len(conv.kernel_size))
            for conv in convolutions(model, path)
            if conv in maps
        ]
        if not inside:
            raise ModelError(f"site {path!r} is never used when the network runs.")
        sites.append(min(inside, key=lambda site: site.largest_dilation))
    return sites


def list_sites(model: nn.Module, input_shape: Sequence[int]) -> list[SiteRow]:
    """Every convolution of a model in the order of its forward pass, those that never run last.

    input_shape: B x C x H x W, or of one or three axes.
    """
    with untouched(model):  # a lazy network is lazy again behind it
        give_sizes(model, input_shape)
        return _rows(model, map_sizes(model, input_shape))


def _rows(model: nn.Module, maps: Mapping[_ConvNd, tuple[int, ...]]) -> list[SiteRow]:
    names = {module: name for name, module in model.named_modules() if isinstance(module, _ConvNd)}
    rows = []
    for conv in [*maps, *(conv for conv in names if conv not in maps)]:
        size, why_not = maps.get(conv), ""
        if conv.transposed:
            why_not = "transposed"
        elif max(conv.kernel_size) == 1:
            why_not = f"{_by(conv.kernel_size)} kernel: reads one pixel"
        elif size is None:
            why_not = "never runs on this input"
        elif all(n == 1 for n, k in zip(size, conv.kernel_size, strict=True) if k > 1):
            why_not = "input map is 1 px: a dilated tap would see padding only"
        elif not names[conv]:
            why_not = "a site is a part of a network, and this is the whole"
        largest = None
        if not why_not and size is not None:
            largest = _site(names[conv], conv, size, (1,) * len(size)).largest_dilation
        rows.append(
            SiteRow(
                names[conv],
                class_name(conv),
                tuple(conv.kernel_size),
                tuple(conv.stride),
                tuple(conv.dilation),
                conv.groups,
                conv.in_channels,
                conv.out_channels,
                size,
                largest,
                why_not,
            )
        )
    return rows


def neutral(model: nn.Module, sites: Sequence[str]) -> Candidate:
    """The candidate that leaves a model as it is: every site at the dilation that it has.

    Raises SpaceError for a convolution whose dilation differs from axis to axis, which no candidate says.
    """
    choices: dict[str, Dilated] = {}
    for site in sites:
        conv = lone_convolution(model, site)
        if conv is None:
            convolutions(model, site)  # there are some
            choices[site] = Dilated(1)
            continue
        seen = {d for d, k in zip(conv.dilation, conv.kernel_size, strict=True) if k > 1}
        if len(seen) > 1:
            raise SpaceError(
                f"site {site!r}: a candidate dilates every axis alike, this convolution has {_by(conv.dilation)}. "
                "Its container may be a site: there a dilation multiplies what each convolution has."
            )
        choices[site] = Dilated(seen.pop() if seen else 1)
    return Candidate(choices)


def _paths(model: nn.Module) -> list[str]:
    """Of the convolutions that have a receptive field to set."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, Convolution) and max(module.kernel_size) > 1
    ]


def _holds_one(model: nn.Module, span: str) -> bool:
    """Whether a name is a span that holds a convolution to set. Raises ModelError for a span that is none."""
    return ":" in span and bool(convolutions(model, span))


def _site(path: str, conv: _ConvNd, map_size: tuple[int, ...], unit: tuple[int, ...]) -> Site:
    return Site(path, tuple(conv.kernel_size), map_size, tuple(unit))


def map_sizes(model: nn.Module, shape: Sequence[int]) -> dict[_ConvNd, tuple[int, ...]]:
    """The size of the map that each convolution reads, px an axis, in the order in which they run on an empty input.

    Of one that runs more than once, the smallest on each axis.
    """
    sizes: dict[_ConvNd, tuple[int, ...]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(module, _ConvNd)
        x: Tensor = args[0] if args else kwargs["input"]
        size = tuple(x.shape[-len(module.kernel_size) :])
        sizes[module] = tuple(map(min, size, sizes.get(module, size)))

    with untouched(model), torch.no_grad():
        give_sizes(model, shape)
        for module in model.modules():
            if isinstance(module, _ConvNd):
                module.register_forward_pre_hook(note, with_kwargs=True)
        model.eval()
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        try:
            model(torch.zeros(*shape, device=like.device, dtype=like.dtype))
        except Exception as error:
            raise ModelError(
                f"the network does not take a {shape[1]}-channel image of {_by(shape[2:], ' x ')} px: {error}"
            ) from error
    return sizes


def _by(sizes: Sequence[int], sign: str = "x") -> str:
    return sign.join(map(str, sizes))


def check_fits(sites: Sequence[Site], candidates: Sequence[Candidate], asked_by: str, kernel: int = 3) -> None:
    """Raise SpaceError for a choice that its site has no room for.

    Args:
        sites: All sites, measured.
        candidates: What they may get.
        asked_by: Where the candidates come from, for the message.
        kernel: Taps an axis of an LS-DFN block.
    """
    known = {site.path: site for site in sites}
    for candidate in candidates:
        for site, paths in candidate.sites:
            where = f" in one of {len(paths)} paths" if len(paths) > 1 else ""
            for path in paths:
                if misfit := path.choice.misfit(known[site], kernel, where):
                    raise SpaceError(f"{site}: {misfit} Asked for by {asked_by}.")
