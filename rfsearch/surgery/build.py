"""Put a candidate onto a model: dilations, parallel paths, inflation or LS-DFN at the sites that ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from rfsearch.choices import Candidate, path_names
from rfsearch.compiled import check_not_compiled
from rfsearch.copies import copy_module
from rfsearch.errors import SpaceError, nearest
from rfsearch.layers import FractionalConv2d, InflationFactor, SampleStride, WeightedGradient
from rfsearch.surgery.inflated import BACKGROUND
from rfsearch.surgery.inserts import ParallelSite
from rfsearch.surgery.installing import Dilations, Installed, Settings, install_choice, place_of
from rfsearch.surgery.places import check_apart, convolutions, gather, lone_convolution, parent_of


@runtime_checkable
class Forkable(Protocol):
    """A model that can itself put what follows a site into parallel paths."""

    def fork(self, site: str, count: int) -> list[str] | None:
        """Stand a site in `count` paths, alike; returns its module path in each, or None where this model cannot."""


@dataclass(frozen=True)
class Learnable:
    """Hold what a built model can learn of its receptive field, by path of the candidate.

    Attributes:
        modules: Module path of each path's convolution, or of what stands in its place; that of the last module of a
            span that stands as it did.
        factors: Inflation factors.
        strides: Sample strides.
        dilations: Dilations that training is to find.
        layers: Layers in the place of convolutions; see `rfsearch.surgery.guest`.
    """

    modules: dict[str, str]
    factors: dict[str, InflationFactor]
    strides: dict[str, SampleStride]
    dilations: dict[str, Dilations]
    layers: dict[str, nn.Module]

    def note(self, path: str, installed: Installed) -> None:
        """Add what an installer has put into the network for a path."""
        self.modules[path] = installed.module
        if installed.factor is not None:
            self.factors[path] = installed.factor
        if installed.stride is not None:
            self.strides[path] = installed.stride
        if installed.searched is not None:
            self.dilations[path] = installed.searched
        if installed.layer is not None:
            self.layers[path] = installed.layer

    def let_move(self, model: nn.Module, bounds: tuple[float, float]) -> dict[str, FractionalConv2d]:
        """Replace the convolutions whose dilation is to be found by layers that learn it, from where it is.

        Args:
            model: The model that these were built into.
            bounds: Smallest and largest dilation, px.

        Returns:
            The layers by path, wherever `Dilations.learned` has one.
        """
        if bounds[0] == bounds[1]:
            return {}
        moving = {path: layer for path, found in self.dilations.items() if (layer := found.learned(bounds)) is not None}
        for path, layer in moving.items():
            model.set_submodule(self.modules[path], layer)
        return moving


def build(model: nn.Module, candidate: Candidate, settings: Settings | None = None) -> nn.Module:
    """Return a copy of the model with the candidate's receptive field; the model's own weights are kept.

    `install` changes a model that was made for it. A choice's dilation is that of a convolution, or what the dilations
    in a container or span are multiplied by; all are in the state dict from then on.

    Raises:
        ModelError: The model lacks a site, a site holds no convolution, or the model cannot be copied.
        SpaceError: Sites overlap, or a site cannot have its choice.
    """
    return assemble(model, candidate, settings or Settings())[0]


def assemble(model: nn.Module, candidate: Candidate, settings: Settings) -> tuple[nn.Module, Learnable]:
    """Build a model as `build` does; returns it with what of it can be learned."""
    check_labels(candidate, settings)
    check_not_compiled(model)
    model = copy_module(model)
    return model, install(model, candidate, settings)


def install(model: nn.Module, candidate: Candidate, settings: Settings) -> Learnable:
    """Set the candidate's receptive field in the model itself, and return what of it can be learned.

    For errors see `build`. After one the model may be changed in part.
    """
    check_labels(candidate, settings)
    check_apart(model, [site for site, _ in candidate.sites])
    learnable = Learnable({}, {}, {}, {}, {})
    for site, paths in candidate.sites:
        modules = _fork(model, site, len(paths)) if len(paths) > 1 else [site]
        for name, module, path in zip(path_names(site, len(paths)), modules, paths, strict=True):
            place = place_of(model, name, module, settings)
            installed = install_choice(path.choice, place)
            learnable.note(name, installed)
            if path.labels:
                if not all(isinstance(part, nn.Conv2d) for part, _ in place.dilations.parts):
                    raise SpaceError(f"{name}: a path is guided by labels on 2-D maps only.")
                ids = [settings.classes.index(label) for label in path.labels]
                _guide(model, installed.module, WeightedGradient(ids, settings.guidance_weight))
    return learnable


def check_labels(candidate: Candidate, settings: Settings) -> None:
    """Raise SpaceError for a path guided by a class that the data does not have, or an unknown background."""
    for name, path in candidate:
        for label in path.labels:
            if label not in settings.classes:
                known = f"Classes: {', '.join(settings.classes)}." if settings.classes else ""
                raise SpaceError(
                    f"{name}: guided by the label {label!r}, which the data does not have."
                    f"{nearest(label, settings.classes)} {known}".rstrip()
                )
    if settings.f_background != 1 and BACKGROUND not in settings.classes:
        raise SpaceError(
            f"f_background = {settings.f_background:g} weighs pixels of a class named {BACKGROUND!r}; the data has "
            f"none.{nearest(BACKGROUND, settings.classes)} Leave f_background at 1."
        )


def _fork(model: nn.Module, site: str, count: int) -> list[str]:
    convolutions(model, site)  # there are some
    modules = None
    if isinstance(model, Forkable) and lone_convolution(model, site) is not None:
        modules = model.fork(site, count)
    if modules is None:
        path = gather(model, site)
        model.set_submodule(path, ParallelSite(model.get_submodule(path), count))
        modules = [f"{path}.paths.{i}" for i in range(count)]
    return modules


def _guide(model: nn.Module, module: str, guidance: WeightedGradient) -> None:
    """Put guidance behind a path: in the place that stands ready for it, which is beside the path's convolution."""
    head, _, tail = module.rpartition(".")
    if head.endswith(".paths") or head == "paths":
        site = model.get_submodule(head.rpartition(".")[0])
        if isinstance(site, ParallelSite):
            site.guidance[int(tail)] = guidance
            return
    parent = parent_of(model, module)
    if not isinstance(getattr(parent, "guidance", None), WeightedGradient):
        raise SpaceError(f"{module}: only one of several parallel paths can be guided by labels.")
    parent.guidance = guidance
