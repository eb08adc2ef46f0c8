"""What a site's name means in a model: a convolution, a container module, or a span of an nn.Sequential.

A span is `first:last`, the module paths of two children of one nn.Sequential: these and all between them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from rfsearch.errors import ModelError, SpaceError
from rfsearch.surgery.dilation import Convolution
from rfsearch.surgery.inserts import InflatedSite, SampledSite

_TO = ":"


def members(model: nn.Module, site: str) -> tuple[str, ...]:
    """Paths of the modules that a site is made of: one, or those of a span in their order.

    Raises ModelError for a module that the model lacks, and for a span that is none.
    """
    first, colon, last = site.partition(_TO)
    for path in (first, last) if colon else (site,):
        try:
            found = path != "" and model.get_submodule(path)
        except AttributeError:
            found = False
        if not found:
            raise ModelError(f"site {site!r}: the model has no such module{f' as {path!r}' if colon else ''}.")
    if not colon:
        return (site,)
    parents, (start, end) = zip(*(path.rpartition(".")[::2] for path in (first, last)), strict=True)
    sequence = model.get_submodule(parents[0])
    names = list(sequence._modules)  # with a module that stands twice
    if len(set(parents)) > 1 or type(sequence).forward is not nn.Sequential.forward:
        raise ModelError(f"site {site!r}: a span runs from one child of an nn.Sequential to another one of the same.")
    span = names[names.index(start) : names.index(end) + 1]
    if not span:
        raise ModelError(f"site {site!r}: a span runs forwards. Did you mean {last + _TO + first!r}?")
    return tuple(f"{parents[0]}.{name}" if parents[0] else name for name in span)


def lone_convolution(model: nn.Module, site: str) -> Convolution | None:
    """The convolution that a site is, or that stands inside what was put in its place; None for a container or span."""
    paths = members(model, site)
    module = model.get_submodule(paths[0])
    if isinstance(module, InflatedSite | SampledSite):
        module = module.conv
    return module if len(paths) == 1 and isinstance(module, Convolution) else None


def convolutions(model: nn.Module, site: str) -> list[Convolution]:
    """The convolution that a site is, or all with a kernel larger than 1 px in a container or span.

    Raises ModelError where there is none.
    """
    lone = lone_convolution(model, site)
    if lone is not None:
        return [lone]
    paths, seen = members(model, site), set[nn.Module]()
    found = [
        module
        for path in paths
        for _, module in model.get_submodule(path).named_modules(seen)
        if isinstance(module, Convolution) and max(module.kernel_size) > 1
    ]
    if not found:
        kind = type(model.get_submodule(paths[0])).__name__ if len(paths) == 1 else "span"
        raise ModelError(
            f"site {site!r} is a {kind}; a site is a 1-D, 2-D or 3-D convolution, or a container or span that holds "
            "one with a kernel larger than 1 px."
        )
    return found


def gather(model: nn.Module, site: str) -> str:
    """The path of the one module that a site is; a span is made one, in its first member's place.

    Identities stand in the places of the others, so that whatever is behind the span keeps its path.
    """
    first, *others = members(model, site)
    if others:
        modules = [(path.rpartition(".")[2], model.get_submodule(path)) for path in (first, *others)]
        model.set_submodule(first, nn.Sequential(OrderedDict(modules)))
        for path in others:
            model.set_submodule(path, nn.Identity())
    return first


def check_apart(model: nn.Module, sites: Sequence[str]) -> None:
    """Raise SpaceError where one site holds another, or a part of it."""
    taken: dict[str, str] = {}
    for site in sites:
        for path in members(model, site):
            for other, owner in taken.items():
                if owner != site and (f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")):
                    raise SpaceError(f"Sites lie apart. Got {owner!r} and {site!r}, which share {max(path, other)!r}.")
            taken[path] = site


def parent_of(model: nn.Module, path: str) -> nn.Module:
    """Return the module that holds the one of a module path."""
    return model.get_submodule(path.rpartition(".")[0])
