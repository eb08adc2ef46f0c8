"""Put a candidate onto a model: dilations, parallel paths, inflation or LS-DFN at the sites that ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from rfsearch.compiled import check_not_compiled
from rfsearch.copies import copy_module
from rfsearch.errors import ModelError, SpaceError, nearest
from rfsearch.layers import (
    LSDFN,
    FractionalConv2d,
    Inflation,
    InflationFactor,
    Interpolation,
    LabelWeight,
    SampleStride,
    WeightedGradient,
)
from rfsearch.layers.inflation import Normalisation
from rfsearch.lazy import is_unsized
from rfsearch.space import Candidate, Choice, SamplingSpec
from rfsearch.surgery.dilation import Convolution, owns_weight, set_dilation
from rfsearch.surgery.inserts import InflatedSite, ParallelSite, SampledSite
from rfsearch.surgery.places import check_apart, convolutions, gather, lone_convolution, members
from rfsearch.surgery.stand_in import stand_in

BACKGROUND = "background"


@dataclass(frozen=True)
class Settings:
    """What `build` needs beside a candidate.

    f_bounds: of learned factors. normalisation: of the gradient that reaches f. classes: names in order of id, which a
    path's labels refer to. guidance_weight: W of Wei eq. 12. f_background: what a pixel of the class `background`
    counts in f's gradient. sampling: channels and bounds of LS-DFN blocks. dilations: of the space, which a layer in
    a convolution's place is told.
    """

    f_bounds: tuple[float, float] = (0.25, 4.0)
    normalisation: Normalisation = "exact"
    classes: tuple[str, ...] = ()
    guidance_weight: float = 1.2
    f_background: float = 1.0
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    dilations: tuple[int, ...] = ()


@runtime_checkable
class Forkable(Protocol):
    """A model that can itself put what follows a site into parallel paths."""

    def fork(self, site: str, count: int) -> list[str] | None:
        """Stand a site in `count` paths, alike; returns its module path in each, or None where this model cannot."""


@dataclass(frozen=True)
class Dilations:
    """The dilations of one path: of its convolution, or of all in a container or span.

    parts: each convolution, and its dilation an axis where the path's is 1.
    """

    parts: list[tuple[Convolution, tuple[int, ...]]]

    def set(self, dilation: int) -> None:
        for part, unit in self.parts:
            set_dilation(part, [d * dilation for d in unit])

    def learned(self, bounds: tuple[float, float]) -> FractionalConv2d | None:
        """Make the layer that learns the convolution's dilation, from where it is, on the map as it is.

        Returns:
            The layer; None for a container or span, a convolution of another kind, one with hooks, which may make its
            weight, and one whose output shrinks with its dilation.
        """
        conv = self.parts[0][0]
        if len(self.parts) > 1 or type(conv) is not nn.Conv2d or conv.padding_mode not in ("zeros", "replicate"):
            return None
        if conv._forward_pre_hooks or conv._forward_hooks or not owns_weight(conv):
            return None
        padded = conv.padding == "same" or all(isinstance(pad, int) and pad > 0 for pad in conv.padding)
        return FractionalConv2d(conv, (conv.dilation[0], conv.dilation[1]), bounds=bounds) if padded else None


def dilations_of(model: nn.Module, place: str) -> Dilations:
    """The dilations of a convolution, or of all in a container or span, by its path."""
    lone = lone_convolution(model, place) is not None
    parts = convolutions(model, place)
    return Dilations([(part, (1,) * len(part.dilation) if lone else part.dilation) for part in parts])


@dataclass(frozen=True)
class Learnable:
    """What a built model can learn of its receptive field, by path of the candidate.

    modules: the module path of each path's convolution, or of what stands in its place; of a span that stands as it
    did, the path of its last module. layers: those in the place of convolutions; see `rfsearch.surgery.stand_in`.
    """

    modules: dict[str, str]
    factors: dict[str, InflationFactor]
    strides: dict[str, SampleStride]
    dilations: dict[str, Dilations]
    layers: dict[str, nn.Module]

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
    """What `build` gives, and what of it can be learned."""
    check_labels(candidate, settings)
    check_not_compiled(model)
    model = copy_module(model)
    return model, install(model, candidate, settings)


def install(model: nn.Module, candidate: Candidate, settings: Settings) -> Learnable:
    """Set the candidate's receptive field in the model itself, and return what of it can be learned.

    For errors see `build`. After one the model may be changed in part.
    """
    check_labels(candidate, settings)
    check_apart(model, [site for site, _ in candidate.choices])
    learnable = Learnable({}, {}, {}, {}, {})
    for site, choice in candidate.choices:
        if isinstance(choice, Choice):
            places = [(site, site, choice)]
        else:
            modules = _fork(model, site, len(choice))
            places = [
                (f"{site}/{i}", module, path) for i, (module, path) in enumerate(zip(modules, choice, strict=True), 1)
            ]
        for name, module, path in places:
            learnable.modules[name] = _set(model, name, module, path, settings, learnable)
    return learnable


def check_labels(candidate: Candidate, settings: Settings) -> None:
    """Raise SpaceError for a path guided by a class that the data does not have, or an unknown background."""
    for path, choice in candidate:
        for label in choice.labels:
            if label not in settings.classes:
                known = f"Classes: {', '.join(settings.classes)}." if settings.classes else ""
                raise SpaceError(
                    f"{path}: guided by the label {label!r}, which the data does not have."
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


def _set(model: nn.Module, name: str, place: str, choice: Choice, settings: Settings, learnable: Learnable) -> str:
    """Give one path its receptive field and its guidance. place: of its convolution, container or span.

    Returns the path of the module that now gives its output.
    """
    conv, dilations = lone_convolution(model, place), dilations_of(model, place)
    parts = [part for part, _ in dilations.parts]
    if any(is_unsized(part) for part in parts):
        raise ModelError(
            f"{place}: a lazy convolution has no size before it has run. Send one batch through the network first."
        )
    dilations.set(choice.dilation)
    if choice.to_find:
        learnable.dilations[name] = dilations
    module = members(model, place)[-1]
    if choice.fractional and not choice.to_find:
        if type(conv) is not nn.Conv2d:
            what = type(conv).__name__ if conv is not None else "container or span"
            raise SpaceError(f"{place}: a real dilation is that of one nn.Conv2d. Got a {what}.")
        if not owns_weight(conv):
            raise SpaceError(
                f"{place}: a real dilation is that of a convolution whose weight is its own. This one's is computed by "
                "a hook, such as that of torch.nn.utils.weight_norm. Remove it first, or dilate by a whole number."
            )
        bounds = min((choice.spacing, *settings.dilations)), max((choice.spacing, *settings.dilations))
        model.set_submodule(module, FractionalConv2d(conv, choice.spacing, learned=False, bounds=bounds))
    elif choice.learned or choice.f != 1.0:
        module = gather(model, place)
        learnable.factors[name] = _inflate(model, module, choice, settings)
    if choice.sampling:
        if not isinstance(conv, nn.Conv2d):
            what = type(conv).__name__ if conv is not None else "container or span"
            raise SpaceError(f"{place}: an LS-DFN block stands behind one 2-D convolution. Got a {what}.")
        block = _block(conv, choice, settings)
        learnable.strides[name] = block.stride
        model.set_submodule(module, SampledSite(conv, block))
    if choice.layer:
        if not isinstance(conv, nn.Conv2d):
            what = type(conv).__name__ if conv is not None else "container or span"
            raise SpaceError(f"{place}: a layer stands in the place of one 2-D convolution. Got a {what}.")
        learnable.layers[name] = stand_in(choice.layer, name, conv, settings.dilations or (choice.dilation,))
        model.set_submodule(module, learnable.layers[name])
    if choice.labels:
        if not all(isinstance(part, nn.Conv2d) for part in parts):
            raise SpaceError(f"{name}: a path is guided by labels on 2-D maps only.")
        ids = [settings.classes.index(label) for label in choice.labels]
        _guide(model, module, WeightedGradient(ids, settings.guidance_weight))
    return module


def _inflate(model: nn.Module, module: str, choice: Choice, settings: Settings) -> InflationFactor:
    """Put a new factor into the inflation layers beside a convolution, or bring layers for it."""
    factor = InflationFactor(choice.f, choice.learned, settings.f_bounds)
    inside = model.get_submodule(module)
    if isinstance(inside, InflatedSite | SampledSite):
        inside = inside.conv
    beside = [child for child in _parent(model, module).children() if isinstance(child, Inflation)]
    if beside and lone_convolution(model, module) is not None:
        old = {inflation.factor for inflation in beside}
        root: nn.Module = model
    else:
        root = InflatedSite(inside, factor)
        model.set_submodule(module, root)
        old = {factor}
    weight = None
    if settings.f_background != 1:
        weight = LabelWeight([settings.classes.index(BACKGROUND)], settings.f_background)
    for layer in root.modules():
        if isinstance(layer, Inflation | Interpolation) and layer.factor in old:
            layer.factor, layer.normalisation, layer.pixel_weight = factor, settings.normalisation, weight
    return factor


def _block(conv: nn.Conv2d, choice: Choice, settings: Settings) -> LSDFN:
    assert choice.sampling
    spec = settings.sampling
    return LSDFN(
        conv.out_channels,
        spec.channels or len(settings.classes) or conv.out_channels,
        features=spec.features,
        s=choice.sampling.s,
        k=spec.kernel,
        gamma=choice.sampling.gamma,
        learned=choice.sampling.learned,
        bounds=spec.bounds,
    )


def _guide(model: nn.Module, module: str, guidance: WeightedGradient) -> None:
    """Put guidance behind a path: in the place that stands ready for it, which is beside the path's convolution."""
    head, _, tail = module.rpartition(".")
    if head.endswith(".paths") or head == "paths":
        site = model.get_submodule(head.rpartition(".")[0])
        if isinstance(site, ParallelSite):
            site.guidance[int(tail)] = guidance
            return
    parent = _parent(model, module)
    if not isinstance(getattr(parent, "guidance", None), WeightedGradient):
        raise SpaceError(f"{module}: only one of several parallel paths can be guided by labels.")
    parent.guidance = guidance


def _parent(model: nn.Module, module: str) -> nn.Module:
    return model.get_submodule(module.rpartition(".")[0])
