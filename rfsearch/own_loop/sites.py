"""The sites of a model whose receptive field its own training moves: what is learned there, and what it comes to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rfsearch.choices import Candidate, Choice, Dilated, Inflated
from rfsearch.choices.fractional import real_dilation
from rfsearch.choices.inflated import inflated
from rfsearch.copies import copy_module
from rfsearch.layers import FractionalConv2d, InflationFactor
from rfsearch.layers.host import on_host
from rfsearch.surgery import Settings, install, set_dilation
from rfsearch.surgery.inserts import InflatedSite
from rfsearch.surgery.installing import Dilations, dilations_of
from rfsearch.surgery.places import convolutions

Bounds = tuple[float, float]
# Of a learned f, as in Wei sec. 5.1: a map that is inflated more costs more than it tells.
_F_BOUNDS = 0.25, 4.0


class LearnedSite(ABC):
    """Hold one site of a model, dilated by a whole number at first.

    Attributes:
        path: Module path.
        start: The dilation that it begins with, px of its map.
        whole: The whole dilation that it was given last.
    """

    def __init__(self, path: str, start: int, dilations: Dilations) -> None:
        """Dilate the site."""
        self.path, self.start, self.whole, self._dilations = path, start, start, dilations
        self.dilate(start)

    @property
    @abstractmethod
    def dilation(self) -> float:
        """Distance between taps, px of the map as it is."""

    @property
    @abstractmethod
    def choice(self) -> Choice:
        """What the site has now."""

    @abstractmethod
    def dilate(self, dilation: int) -> None:
        """Give it a whole dilation, from which what is learned goes on."""

    def state(self) -> dict[str, Any]:
        """Return what it has."""
        return {"whole": self.whole}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Give it what `state` gave."""
        self._set_whole(state["whole"])

    def _set_whole(self, whole: int) -> None:
        self.whole = whole
        self._dilations.set(whole)

    def settle(self, model: nn.Module, keep: bool = False) -> None:
        """Give this site of the model, or of a copy of it, what was learned, as a plain convolution if it is whole.

        Args:
            model: The model, or the copy.
            keep: Whether a copy keeps the real dilation that it has, such as an averaged one.
        """
        for (own, _), other in zip(self._dilations.parts, convolutions(model, self.path), strict=True):
            if other is not own:
                set_dilation(other, own.dilation)


class MovingSite(LearnedSite):
    """Hold one that the gradient moves.

    Attributes:
        logarithm: Whether its parameter is the logarithm of what moves.
    """

    logarithm = False

    @property
    @abstractmethod
    def parameter(self) -> nn.Parameter:
        """What the gradient moves."""

    @abstractmethod
    def project(self) -> None:
        """Put what has moved back into its bounds."""

    def state(self) -> dict[str, Any]:
        return {**super().state(), "moved": self.parameter.detach().clone()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        with torch.no_grad():
            self.parameter.copy_(state["moved"])


class WholeSite(LearnedSite):
    """Dilate a container, span or convolution by whole numbers only."""

    @property
    def dilation(self) -> float:
        return float(self.whole)

    @property
    def choice(self) -> Choice:
        return Dilated(self.whole)

    def dilate(self, dilation: int) -> None:
        self._set_whole(dilation)


class RealSite(MovingSite):
    """Hold a 2-D convolution at a real dilation."""

    logarithm = True

    def __init__(self, path: str, start: int, dilations: Dilations, layer: FractionalConv2d) -> None:
        """Keep the layer that replaces the convolution."""
        self._layer, self._conv = layer, dilations.parts[0][0]
        super().__init__(path, start, dilations)

    @property
    def parameter(self) -> nn.Parameter:
        return self._layer.log_dilation

    @property
    def dilation(self) -> float:
        return self._layer.value

    @property
    def choice(self) -> Choice:
        return real_dilation(self.dilation)

    def dilate(self, dilation: int) -> None:
        self.whole = dilation
        with torch.no_grad():
            self._layer.log_dilation.copy_(torch.tensor(dilation, dtype=torch.float64).log())

    def _set_whole(self, whole: int) -> None:
        self.whole = whole

    def project(self) -> None:
        self._layer.project_()

    def settle(self, model: nn.Module, keep: bool = False) -> None:
        layer = model.get_submodule(self.path)
        if not isinstance(layer, FractionalConv2d):
            return  # settled before
        if not keep:
            with torch.no_grad():
                layer.log_dilation.copy_(self._layer.log_dilation)
        if not layer.value.is_integer():
            return
        conv = self._conv if layer is self._layer else copy_module(self._conv)
        for name in ("weight", "bias"):  # a move to another type or device may have made new ones
            if getattr(layer, name) is not None:
                setattr(conv, name, getattr(layer, name))
        set_dilation(conv, int(layer.value))
        conv.train(layer.training)
        model.set_submodule(self.path, conv)


class InflatedMap(MovingSite):
    """Hold a site between an inflation and the interpolation that undoes it, whose factor moves."""

    def __init__(self, path: str, start: int, dilations: Dilations, factor: InflationFactor) -> None:
        """Dilate the site."""
        self._factor = factor
        super().__init__(path, start, dilations)

    @property
    def parameter(self) -> nn.Parameter:
        return self._factor.f

    @property
    def dilation(self) -> float:
        return self.whole / on_host(self._factor.f)[0]

    @property
    def choice(self) -> Choice:
        return inflated(self.whole, on_host(self._factor.f)[0])

    def dilate(self, dilation: int) -> None:
        self._set_whole(dilation)
        with torch.no_grad():
            self._factor.f.fill_(1.0)

    def project(self) -> None:
        self._factor.project_()

    def settle(self, model: nn.Module, keep: bool = False) -> None:
        super().settle(model)
        site = model.get_submodule(self.path)
        if not isinstance(site, InflatedSite):
            return  # settled before, or inflated by layers of the model's own
        with torch.no_grad():
            site.inflation.factor.f.copy_(self._factor.f)
        if on_host(self._factor.f)[0] == 1.0:
            model.set_submodule(self.path, site.conv)


def why_whole(model: nn.Module, path: str) -> str:
    """Return why a site cannot have a real dilation that ends as a plain one; see `Dilations.why_whole`."""
    dilations = dilations_of(model, path)
    even = any(k % 2 == 0 for k in dilations.parts[0][0].kernel_size)
    # At every other dilation the centre of its taps lies between two pixels, where no plain convolution reads.
    return dilations.why_whole or ("has an even kernel" if even else "")


def put_real_site(model: nn.Module, path: str, start: int, bounds: Bounds) -> LearnedSite:
    """Let the dilation of a convolution be a real number; of anything else, and where it cannot, a whole one.

    Args:
        model: The model, changed in place.
        path: Of the site.
        start: Its dilation at first, px of its map.
        bounds: Smallest and largest dilation, px.
    """
    dilations = dilations_of(model, path)
    conv = dilations.parts[0][0]
    if why_whole(model, path) or not isinstance(conv, nn.Conv2d):
        return WholeSite(path, start, dilations)
    layer = FractionalConv2d(conv, float(start), bounds=bounds)
    model.set_submodule(path, layer)
    return RealSite(path, start, dilations, layer)


def put_inflated_site(model: nn.Module, path: str, start: int, bounds: Bounds) -> LearnedSite:
    """Put an inflation in front of a site and the interpolation that undoes it behind it; see `put_real_site`."""
    dilations = dilations_of(model, path)
    f_bounds = max(_F_BOUNDS[0], start / bounds[1]), min(_F_BOUNDS[1], start / bounds[0])
    installed = install(model, Candidate({path: Inflated(start, learned=True)}), Settings(f_bounds=f_bounds))
    factor = installed.factors[path].to(dilations.parts[0][0].weight.device)
    return InflatedMap(installed.modules[path], start, dilations, factor)
