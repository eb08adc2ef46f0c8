"""Install an inflation factor in front of a convolution."""

from __future__ import annotations

from torch import nn

from rfsearch.choices import Inflated
from rfsearch.layers import Inflation, InflationFactor, Interpolation, LabelWeight
from rfsearch.surgery.inserts import InflatedSite, SampledSite
from rfsearch.surgery.installing import Installed, Place
from rfsearch.surgery.places import gather, lone_convolution, parent_of

BACKGROUND = "background"


def install(choice: Inflated, place: Place) -> Installed:
    """Put a new factor into the inflation layers beside the path's convolution, or bring layers for it."""
    place.dilations.set(choice.dilation)
    model, settings = place.model, place.settings
    module = gather(model, place.path)
    factor = InflationFactor(choice.f, choice.learned, settings.f_bounds)
    inside = model.get_submodule(module)
    if isinstance(inside, InflatedSite | SampledSite):
        inside = inside.conv
    beside = [child for child in parent_of(model, module).children() if isinstance(child, Inflation)]
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
            layer.factor, layer.pixel_weight = factor, weight
            layer.normalisation, layer.border = settings.normalisation, settings.border
    return Installed(module, factor=factor)
