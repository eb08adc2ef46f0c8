"""Find the places in a model whose receptive field may be set, and say what fits there."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.space import Candidate, Choice, Sampling
from rfsearch.surgery.build import convolution_at


@dataclass(frozen=True)
class Site:
    """One place: its module path, kernel (height, width), and the size of its input map (height, width) in px."""

    path: str
    kernel: tuple[int, int]
    map_size: tuple[int, int]

    def span(self, dilation: int) -> int:
        """The longer side of the dilated kernel, px of the site's map."""
        return max((k - 1) * dilation + 1 for k in self.kernel)

    @property
    def largest_dilation(self) -> int:
        """The largest dilation whose kernel still fits into the map."""
        fits = [(size - 1) // (k - 1) for k, size in zip(self.kernel, self.map_size, strict=True) if k > 1]
        return max(1, min(fits))


def match_sites(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Module paths of the convolutions that the patterns name: whole paths, or shell patterns such as `layer4.*`.

    Only 2-D convolutions with a kernel larger than 1 have a receptive field to set. A pattern that matches none is a
    SpaceError with the nearest path.
    """
    paths = [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
    ]
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = fnmatch.filter(paths, pattern)
        if not hits:
            raise SpaceError(
                f"site {pattern!r} matches no convolution with a kernel larger than 1 px.{nearest(pattern, paths)}"
            )
        found.update(dict.fromkeys(hits))
    return tuple(found)


def measure_sites(model: nn.Module, paths: Sequence[str], image_size: tuple[int, int], in_channels: int) -> list[Site]:
    """Send one empty image of H x W through the model and see how large each site's input map is."""
    sizes: dict[str, tuple[int, int]] = {}
    hooks = []
    for path in paths:

        def note(module: nn.Module, args: tuple[Tensor, ...], path: str = path) -> None:
            sizes[path] = (args[0].shape[-2], args[0].shape[-1])

        hooks.append(convolution_at(model, path).register_forward_pre_hook(note))
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, in_channels, *image_size))
    except Exception as error:
        raise ModelError(
            f"the network does not take a {in_channels}-channel image of {image_size[0]} x {image_size[1]} px: {error}"
        ) from error
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    silent = [path for path in paths if path not in sizes]
    if silent:
        raise ModelError(f"site {silent[0]!r} is never used when the network runs.")
    kernels = {path: convolution_at(model, path).kernel_size for path in paths}
    return [Site(path, (kernels[path][0], kernels[path][1]), sizes[path]) for path in paths]


def check_fits(sites: Sequence[Site], candidates: Sequence[Candidate], asked_by: str, kernel: int = 3) -> None:
    """Raise SpaceError when a dilated kernel is longer than the map it reads: its outer taps would see padding only.

    The same for the field that an LS-DFN block samples. kernel: taps an axis of such a block.
    """
    known = {site.path: site for site in sites}
    for candidate in candidates:
        for site, choice in candidate.choices:
            paths = (choice,) if isinstance(choice, Choice) else choice
            for path in paths:
                where = f" in one of {len(paths)} paths" if len(paths) > 1 else ""
                _check_fits(known[site], path, where, asked_by)
                if path.sampling:
                    _check_sampling_fits(known[site], path.sampling, kernel, asked_by)


def _check_fits(site: Site, choice: Choice, where: str, asked_by: str) -> None:
    if choice.dilation > site.largest_dilation:
        kernel, span, (height, width) = max(site.kernel), site.span(choice.dilation), site.map_size
        raise SpaceError(
            f"{site.path}: a {kernel}x{kernel} kernel at dilation {choice.dilation}{where} spans {span} px, "
            f"its input map is {height} x {width} px. Largest dilation that fits: {site.largest_dilation}. "
            f"Asked for by {asked_by}."
        )


def _check_sampling_fits(site: Site, sampling: Sampling, kernel: int, asked_by: str) -> None:
    room = min(site.map_size) - kernel
    if sampling.gamma * (sampling.s - 1) > room:
        (height, width), span = site.map_size, sampling.gamma * (sampling.s - 1) + kernel
        raise SpaceError(
            f"{site.path}: {sampling.s} x {sampling.s} regions at sample stride {sampling.gamma:g} span {span:g} px, "
            f"the map is {height} x {width} px. Largest sample stride that fits: {room / (sampling.s - 1):.3g}. "
            f"Asked for by {asked_by}."
        )
