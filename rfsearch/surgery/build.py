"""Put a candidate onto a model: set dilations, and inflation in front of the sites that ask for it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor, nn

from rfsearch.errors import ModelError
from rfsearch.layers import Inflation, InflationFactor, Interpolation
from rfsearch.layers.inflation import Normalisation
from rfsearch.space import Candidate, Choice
from rfsearch.surgery.dilation import set_dilation


class InflatedSite(nn.Module):
    """A convolution between an inflation and the interpolation that undoes it: input and output keep their sizes.

    B x C x H x W to B x C' x H' x W', H' x W' as the bare convolution gives. For a model that does not bring an
    inflation layer of its own, as the parsing networks of Wei do.
    """

    def __init__(self, conv: nn.Conv2d, factor: InflationFactor, normalisation: Normalisation) -> None:
        super().__init__()
        self.inflation = Inflation(factor, normalisation)
        self.conv = conv
        self.interpolation = Interpolation(factor, stride=1, normalisation=normalisation)

    def forward(self, x: Tensor) -> Tensor:
        return self.interpolation(self.conv(self.inflation(x)), self._plain_size(x))

    def _plain_size(self, x: Tensor) -> tuple[int, int]:
        """The size of the convolution's output without inflation, px."""
        conv = self.conv
        left, right, top, bottom = conv._reversed_padding_repeated_twice  # what the convolution pads, mode by mode
        sizes = []
        for axis, padding in enumerate((top + bottom, left + right)):
            extent = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
            sizes.append((x.shape[2 + axis] + padding - extent) // conv.stride[axis] + 1)
        return sizes[0], sizes[1]


def build(
    model: nn.Module,
    candidate: Candidate,
    f_bounds: tuple[float, float] = (0.25, 4.0),
    normalisation: Normalisation = "exact",
) -> nn.Module:
    """A copy of the model with the candidate's receptive field; the model's own weights are kept.

    f_bounds: of learned factors. normalisation: of the gradient that reaches f. Raises ModelError for a site that the
    model lacks or that is no 2-D convolution.
    """
    model = copy.deepcopy(model)
    for site, choice in candidate:
        conv = convolution_at(model, site)
        set_dilation(conv, choice.dilation)
        if choice.learned or choice.f != 1.0:
            _inflate_site(model, site, conv, choice, f_bounds, normalisation)
    return model


def factors(model: nn.Module, candidate: Candidate) -> dict[str, InflationFactor]:
    """The inflation factors that `build` gave a model, by site."""
    found = {}
    for site, choice in candidate:
        if choice.learned or choice.f != 1.0:
            for inflation in _inflations_of(model, site):
                found[site] = inflation.factor
    return found


def convolution_at(model: nn.Module, site: str) -> nn.Conv2d:
    """The 2-D convolution that a site names."""
    try:
        module = model.get_submodule(site)
    except AttributeError:
        raise ModelError(f"site {site!r}: the model has no such module.") from None
    if isinstance(module, InflatedSite):
        return module.conv
    if not isinstance(module, nn.Conv2d):
        raise ModelError(f"site {site!r} is a {type(module).__name__}; a site is a 2-D convolution.")
    return module


def _inflate_site(
    model: nn.Module,
    site: str,
    conv: nn.Conv2d,
    choice: Choice,
    f_bounds: tuple[float, float],
    normalisation: Normalisation,
) -> None:
    factor = InflationFactor(choice.f, choice.learned, f_bounds)
    own = list(_inflations_of(model, site))
    if not own:
        model.set_submodule(site, InflatedSite(conv, factor, normalisation))
        return
    for inflation in own:
        shared = inflation.factor
        for module in model.modules():
            if isinstance(module, (Inflation, Interpolation)) and module.factor is shared:
                module.factor = factor
                module.normalisation = normalisation


def _inflations_of(model: nn.Module, site: str) -> Iterator[Inflation]:
    """The inflation layers beside a site, under the same parent, or inside what now stands at the site."""
    module = model.get_submodule(site)
    parent = module if isinstance(module, InflatedSite) else model.get_submodule(site.rpartition(".")[0])
    return (child for child in parent.children() if isinstance(child, Inflation))
