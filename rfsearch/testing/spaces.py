"""What every space file keeps to: it can be read, and its sites and dilations are those of its networks and images."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from rfsearch import plugins
from rfsearch.errors import RfsearchError
from rfsearch.space import Space, read_space
from rfsearch.surgery import check_fits, match_sites, measure_sites

_CLASSES = 5


def space_file_can_be_read(file: Path) -> None:
    """Check that every preset can be read, its task with it, and that the backbone that it names is there."""
    for space in _presets(file):
        try:
            plugins.backbone(space.backbone)
        except RfsearchError as error:
            raise AssertionError(f"{file}: preset {space.preset!r} names a task and a backbone. {error}") from error


def space_has_sites_in_its_backbones(file: Path) -> None:
    """Check that the sites of every preset are convolutions of its backbone."""
    for space in _presets(file):
        try:
            match_sites(_network(space), space.sites)
        except RfsearchError as error:
            raise AssertionError(f"{file}: preset {space.preset!r} names sites of its backbone. {error}") from error


def space_dilations_fit_its_embedded_images(file: Path) -> None:
    """Check that every dilation, and the hand default, fits images of a preset's size; where its data is embedded."""
    for space in _presets(file):
        if space.data.default is None:
            continue
        net = _network(space)
        space = space.with_(sites=match_sites(net, space.sites))
        sites = measure_sites(net, space.sites, space.image_size or (96, 96), space.data.channels)
        candidates = [*(space.uniform(choice) for choice in space.options), space.default_candidate]
        try:
            check_fits(sites, candidates, f"{file}, preset {space.preset}", space.sampling.kernel)
        except RfsearchError as error:
            raise AssertionError(str(error)) from error


SPACE_CHECKS: tuple[Callable[[Path], None], ...] = (
    space_file_can_be_read,
    space_has_sites_in_its_backbones,
    space_dilations_fit_its_embedded_images,
)


def _presets(file: Path) -> Iterator[Space]:
    """Yield every preset of a space file, the default one first."""
    try:
        yield read_space(file, None)
        yield from (read_space(file, name) for name in tomllib.loads(file.read_text(encoding="utf-8-sig"))["presets"])
    except RfsearchError as error:
        raise AssertionError(str(error)) from error


def _network(space: Space) -> nn.Module:
    return plugins.make_backbone(space.backbone, _CLASSES, space.data.channels)
